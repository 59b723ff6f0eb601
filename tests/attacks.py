r"""Texts that were made to leave the place that they were put in: values, names and labels."""

from __future__ import annotations

_QUOTES = ("'", '"', "`", "''", "'''", '""', "\\", "\\\\", "\\'", "\\\\'", "'\\", '\\"', "''\\''")
_INSIDE = (
    "|| current_user ||",
    "; drop table canary; --",
    "; delete from canary; select ",
    "::text || current_user || ",
    " or '1'='1",
    ") union select current_user --",
    ") TO PROGRAM 'id' --",
)
_PLACES = (
    *("$1", "$2", "$10", "$0", "${1}", "$$", "$$;drop table canary;$$", "$q$ current_user $q$"),
    *("costs $1 each", "a$1", "$1a", "$1::text", "'$1'", '"$1"', "$1$1", "$ 1", "\\$1"),
    *(":x", ":name", "::int", ":1", ":'x'", "\\:x", ":param_1", ":param_1_1", "%(param_1)s"),
    *("%s", "%%", "%(x)s", "%(name)s", "%", "%d", "%1$s", "{}", "{0}", "{query}", "{opts}", "?"),
    *("__[POSTCOMPILE_x]", "[POSTCOMPILE_param_1]", "__[SCHEMA_x]", "@x", "#{x}", "<%= x %>"),
)
_COMMENTS = ("--", "-- '", "'--", "/*", "*/", "/* ' */", "'/*", "*/ current_user /*", "#", ";--")
_ESCAPES = (
    *("E'\\''", "E'", "' E'\\x27", "\\x27", "\\047", "\\u0027", "\\U00000027", "\\n", "\\0"),
    *("U&'\\0027'", 'U&"\\0022"', "U&'", "' UESCAPE '!", "N'x'", "X'27'", "B'1'"),
    *("\\' || current_user || \\'", "\\\\' || current_user || '", "E'\\' || current_user --"),
    *("'::regclass::text || '", "' COLLATE \"C\" || '", "'\n'", "' '", "'||'"),
)
_COPIES = (
    *("\\.", "\\.\n", "\n\\.\n", "\\N", "\\N\n", "a,b", "a;b", "a\tb", ",", '",', '"\n"'),
    *(
        "x) TO STDOUT; --",
        "') TO STDOUT --",
        ") TO PROGRAM 'touch /tmp/x'",
        "') TO PROGRAM 'id'; --",
    ),
    *(
        "(FORMAT csv, HEADER)",
        "\\copy canary to '/tmp/x'",
        "\\! id",
        "\x01",
        "\x02",
        "\x03",
        "\x01\n",
    ),
)
_BREAKS = (
    *("\n", "\r", "\r\n", "a\nb", "'\n;\ndrop table canary;\n--", "\t", "\v", "\f", "\x1b[2J"),
    *("\u0085", "\u2028", "\u2029", "\u00a0", "\ufeff", "\u200b", "\u202e", "\x7f", "\b"),
)
_UNICODE = (
    *("\u2019", "\u02bc", "\uff07", "\u2018 or \u20181\u2019=\u20181", "\u00ab\u00bb", "\u0130"),
    *("\uff1b drop table canary", "\u0027\u0301", "\U0001f600'", "Größe", "\u65e5\u672c", "ﬁ"),
    *("\ue000", "\U0010ffff", "\ud7ff", "e\u0301", "\u00e9"),
)
_WORDS = (
    *("null", "NULL", "current_user", "user", "session_user", "select", "table", "true", "default"),
    *(
        "r",
        "c0",
        "c1",
        "configured",
        "public",
        "canary",
        "ctid",
        "oid",
        "*",
        "()",
        "(",
        ")",
        "[",
        "]",
    ),
    *(
        "row_to_json(canary)",
        "pg_sleep(60)",
        "version()",
        "a.b",
        "a:b",
        "a->b",
        ".",
        "..",
        "../..",
        "/",
    ),
    *(
        " ",
        "  ",
        " a ",
        "a b",
        "=",
        "!=",
        "<script>",
        "&amp;",
        "|",
        "&",
        "+",
        "1",
        "-1",
        "0x1F",
        "1e9",
    ),
)

# Each text once, in a stable order. None holds NUL, which no database text can.
ATTACKS: tuple[str, ...] = tuple(
    dict.fromkeys(
        [
            *(f"{quote}{inside}{quote}" for quote in ("'", "\\'", '"') for inside in _INSIDE),
            *(f"' {inside} '" for inside in _INSIDE),
            *(*_QUOTES, *_PLACES, *_COMMENTS, *_ESCAPES, *_COPIES, *_BREAKS, *_UNICODE, *_WORDS),
        ]
    )
)
LONG = (
    "'" * 100_001,
    "\\" * 100_001,
    "\\'" * 50_000,
    "$1" * 50_000,
    "x" * 1_000_000,
    "é'\n" * 9_999,
)
WITH_NUL = ("\x00", "a\x00b", "'\x00' || current_user || '", "\x00\x00")

# What PostgreSQL takes as an identifier: NAMEDATALEN - 1 bytes at most, after the same casing.
NAMES: tuple[str, ...] = tuple(text for text in ATTACKS if len(text.encode()) <= 63)


def in_grammar(text: str) -> str:
    """``text`` as the read grammar quotes a name or a value of a list."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def identifier(name: str) -> str:
    """``name`` as SQL quotes an identifier."""
    return '"' + name.replace('"', '""') + '"'
