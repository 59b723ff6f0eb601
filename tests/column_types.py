"""Every type of column that PostgreSQL has, and some that nobody has heard of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal

from hypothesis import strategies as st

from tests import type_values as values
from tests.json_texts import json_texts
from tests.type_values import Texts

# Labels, elements and members that have to be quoted wherever they stand.
SETUP = r"""
    CREATE TYPE mood AS ENUM ('calm', 'it''s "wild", really', ' ', 'a\b', E'two\nlines', '{}()');
    CREATE TYPE pair AS (a int, "b ""c"", d" text);
    CREATE TYPE nest AS (p pair, q pair[], m mood, d timestamptz, j jsonb, n float8, r int4range);
    CREATE TYPE nothing AS ();
    CREATE DOMAIN padded AS char(4);
    CREATE DOMAIN numbers AS int[] CHECK (array_ndims(VALUE) IS DISTINCT FROM 3);
    CREATE DOMAIN couple AS pair;
    CREATE DOMAIN label AS text;
    CREATE DOMAIN sublabel AS label CHECK (VALUE <> 'never');
    CREATE DOMAIN yes AS boolean;
    CREATE TYPE words AS RANGE (subtype = text, collation = "C", multirange_type_name = manywords);
    CREATE TYPE unheard;
    CREATE FUNCTION unheard_in(cstring) RETURNS unheard
        LANGUAGE internal IMMUTABLE STRICT AS 'textin';
    CREATE FUNCTION unheard_out(unheard) RETURNS cstring
        LANGUAGE internal IMMUTABLE STRICT AS 'textout';
    CREATE TYPE unheard (INPUT = unheard_in, OUTPUT = unheard_out, LIKE = text);
    CREATE TYPE number_like;
    CREATE FUNCTION number_like_in(cstring) RETURNS number_like
        LANGUAGE internal IMMUTABLE STRICT AS 'int4in';
    CREATE FUNCTION number_like_out(number_like) RETURNS cstring
        LANGUAGE internal IMMUTABLE STRICT AS 'int4out';
    CREATE TYPE number_like (
        INPUT = number_like_in, OUTPUT = number_like_out, LIKE = int4, CATEGORY = 'N'
    );
"""
LABELS = ("calm", 'it\'s "wild", really', " ", "a\\b", "two\nlines", "{}()")
# to_json knows no lower bounds, so that an array comes back from it with the usual ones.
UNSHIFTED = r"nullif(regexp_replace(format('%s', {value}), '^(\[-?\d+:-?\d+\])+=', ''), '')::"
# Raw line breaks inside json have become spaces, and blanks around it belong to the line.
ON_ONE_LINE = r"btrim(translate({value}::text, E'\n\r', '  '), E' \t')::json"
JSON_ARRAY_ON_ONE_LINE = (
    f"ARRAY(SELECT {ON_ONE_LINE.format(value='element')} FROM unnest({{value}}) AS e(element))"
)
# JSON's null and SQL's NULL are the same then.
JSON_KEPT = f"CASE WHEN json_typeof({{value}}) <> 'null' THEN {ON_ONE_LINE} END"
JSONB_KEPT = "CASE WHEN jsonb_typeof({value}) <> 'null' THEN {value} END"


@dataclass(frozen=True, slots=True, repr=False)
class ColumnType:
    """One type: ``values`` are texts that its input function takes.

    ``from_json`` is SQL for what comes back of ``{value}``, a member of an object, where the
    field that ``json_populate_record`` fills is not it. ``kept`` is SQL for what JSON keeps of
    the value ``{value}``, where that is not everything.
    """

    spelled: str
    values: Texts
    from_json: str = ""
    kept: str = "{value}"

    def __repr__(self) -> str:
        return self.spelled


def _fixed(*texts: str) -> Texts:
    return st.sampled_from(texts)


PAIR = values.composites(values.integers(32), values.characters())
NEST = values.composites(
    PAIR,
    values.arrays_of(PAIR, shifted=False),
    _fixed(*LABELS),
    values.moments("+05:30"),
    _fixed('{"a": [1, null]}', "[]"),
    values.floats(64),
    _fixed("[1,5)", "empty"),
)
INT4RANGE = values.ranges(values.integers(31), int)
WORDS = values.ranges(values.characters(5), str.encode)
NUMRANGE = values.ranges(st.decimals(-999, 999, places=3).map(str), float)
DATERANGE = values.ranges(st.dates().map(str), str)
TSRANGE = values.ranges(st.datetimes().map(str), str)
DECIMALS = st.decimals(-(10**8), 10**8, places=5).map(str)
LSNS = st.builds("{:X}/{:X}".format, st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))

NUMBERS: Mapping[str, Texts] = {
    "boolean": _fixed("t", "f"),
    "yes": _fixed("t", "f"),
    "smallint": values.integers(16),
    "integer": values.integers(32),
    "bigint": values.integers(64),
    "oid": values.integers(32, signed=False),
    "xid": values.integers(32, signed=False),
    "cid": values.integers(32, signed=False),
    "xid8": values.integers(64, signed=False),
    "numeric": values.numerics() | _fixed("NaN", "Infinity", "-Infinity", "1e-1000"),
    "numeric(12,3)": DECIMALS | _fixed("NaN"),
    "real": values.floats(32),
    "double precision": values.floats(64),
    "money": st.integers(-(2**63), 2**63 - 1).map(lambda cents: f"{Decimal(cents).scaleb(-2):f}"),
    "number_like": values.integers(32),
}
TEXTS: Mapping[str, Texts] = {
    "text": values.characters(40),
    "character varying": values.characters(40),
    "character varying(5)": values.characters(5),
    "character(4)": values.characters(4),
    "bpchar": values.characters(6),
    "name": values.characters(15),
    '"char"': st.characters(min_codepoint=1, max_codepoint=127) | st.just(""),
    "label": values.characters(),
    "sublabel": values.characters(),
    "padded": values.characters(4),
    "unheard": values.characters(),
    "refcursor": values.characters(),
    "mood": _fixed(*LABELS),
    "tsvector": values.TSVECTOR,
    "tsquery": values.TSQUERY,
    "jsonpath": _fixed("$", "strict $.a[*] ? (@ > 1.5)", 'lax $."a b".**{2 to 3}.size()'),
}
TIMES: Mapping[str, Texts] = {
    "date": values.days(5_874_896) | values.NOT_FINITE,
    "time": values.clocks(),
    "timetz": values.zoned_clocks(),
    "timestamp": values.moments(),
    "timestamp(0)": values.moments(),
    "timestamptz": values.moments("+05:30", "-11:59", "+02"),
    "interval": values.intervals(),
    "interval day to second(2)": values.intervals(10**15),
}
BITS: Mapping[str, Texts] = {
    "bytea": st.binary(max_size=20).map(lambda octets: "\\x" + octets.hex()),
    "uuid": st.uuids().map(str),
    "bit(5)": st.text("01", min_size=5, max_size=5),
    "bit varying": st.text("01", max_size=20),
    "inet": values.INET,
    "cidr": values.CIDR,
    "macaddr": values.hexadecimal(6),
    "macaddr8": values.hexadecimal(8),
    "pg_lsn": LSNS,
    "tid": st.builds("({},{})".format, st.integers(0, 2**32 - 1), st.integers(0, 65535)),
}
SHAPES: Mapping[str, Texts] = {
    "point": values.POINTS,
    "line": values.LINES,
    "lseg": st.builds("[{},{}]".format, values.POINTS, values.POINTS),
    "box": st.builds("{},{}".format, values.POINTS, values.POINTS),
    "path": values.CORNERS.map("[{}]".format) | values.CORNERS.map("({})".format),
    "polygon": values.CORNERS.map("({})".format),
    "circle": values.CIRCLES,
}
COMPOUND: Mapping[str, Texts] = {
    "pair": PAIR,
    "couple": PAIR,
    "nest": NEST,
    "nothing": _fixed("()"),
    "int4range": INT4RANGE,
    "int8range": values.ranges(values.integers(60), int),
    "numrange": NUMRANGE,
    "daterange": DATERANGE,
    "tsrange": TSRANGE,
    "tstzrange": TSRANGE,
    "words": WORDS,
    "int4multirange": values.multiranges(INT4RANGE),
    "nummultirange": values.multiranges(NUMRANGE),
    "datemultirange": values.multiranges(DATERANGE),
    "tsmultirange": values.multiranges(TSRANGE),
    "tstzmultirange": values.multiranges(TSRANGE),
    "manywords": values.multiranges(WORDS),
}
CATALOGUE: Mapping[str, Texts] = {
    "regclass": _fixed("pg_class", "-", "4294967295", "pair"),
    "regtype": _fixed("integer", "timestamp with time zone", "pair[]", "-"),
    "regproc": _fixed("now", "-", "unheard_in"),
    "regprocedure": _fixed("abs(integer)", "-"),
    "regoper": _fixed("||/", "0"),
    "regoperator": _fixed("+(integer,integer)", "-(NONE,integer)", "0"),
    "regnamespace": _fixed("pg_catalog", "public", "-"),
    "regrole": _fixed("pg_monitor", "-"),
    "regconfig": _fixed("english", "-"),
    "regdictionary": _fixed("simple", "-"),
    "regcollation": _fixed('"C"', '"POSIX"', "-"),
    "pg_snapshot": _fixed("10:20:10,14,15", "1:1:"),
    "txid_snapshot": _fixed("10:20:10,14,15", "1:1:"),
    "aclitem": _fixed("=r/pg_monitor", "pg_monitor=r*w/pg_monitor"),
}
SCALARS = {**NUMBERS, **TEXTS, **TIMES, **BITS, **SHAPES, **COMPOUND, **CATALOGUE}


def _array(spelled: str, elements: Texts) -> ColumnType:
    separator = ";" if spelled == "box" else ","  # typdelim of pg_type
    name = f"{spelled}[]"
    return ColumnType(name, values.arrays_of(elements, separator), kept=f"{UNSHIFTED}{name}")


def _vector(spelled: str, elements: Texts) -> ColumnType:
    """Written as an array, and read as words."""
    words = st.lists(elements, min_size=1, max_size=3).map(" ".join)
    cells = "ARRAY(SELECT json_array_elements_text({value}))"
    return ColumnType(spelled, words, from_json=f"array_to_string({cells}, ' ')::{spelled}")


JSON_VALUES = json_texts()
ELEMENTS = JSON_VALUES.filter(lambda text: text.strip() != "null")
# An element that is a JSON array cannot be told from a dimension more.
JSON_ARRAYS = st.lists(ELEMENTS.map(values.quoted), max_size=3).map(
    lambda cells: f"{{{','.join(cells)}}}"
)
JSON_AND_VECTORS = (
    ColumnType("json", JSON_VALUES, from_json="{value}", kept=JSON_KEPT),
    ColumnType("jsonb", JSON_VALUES, kept=JSONB_KEPT),
    ColumnType(
        "json[]",
        JSON_ARRAYS,
        from_json="ARRAY(SELECT json_array_elements({value}))",
        kept=f"CASE WHEN {{value}} IS NOT NULL THEN {JSON_ARRAY_ON_ONE_LINE} END",
    ),
    ColumnType(
        "jsonb[]",
        JSON_ARRAYS,
        from_json="ARRAY(SELECT jsonb_array_elements({value}::jsonb))",
    ),
    replace(_array("int", SCALARS["integer"]), spelled="numbers"),
    _vector("int2vector", values.integers(16)),
    _vector("oidvector", values.integers(32, signed=False)),
)
BUILT_IN = (
    *(ColumnType(spelled, texts) for spelled, texts in SCALARS.items()),
    *(_array(spelled, texts) for spelled, texts in SCALARS.items()),
    *JSON_AND_VECTORS,
)
