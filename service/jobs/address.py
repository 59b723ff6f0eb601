"""An export request as the address of a direct stream, and as a line for a shell. Pure."""

from __future__ import annotations

import re
import shlex
from urllib.parse import quote

from service.export.encode import FORMATS
from service.jobs.request import ExportRequest, choices, parameters
from service.representation import PARAMETERS, Representation, safe_filename

# Plain in a query (RFC 3986, section 3.4), and to curl, which takes [] and {} for patterns.
PLAIN = ",:*()"
CONDITION = re.compile(r"(?:not\.)?(?P<operator>[a-z]+)\.")
UNQUOTED = frozenset({"in", "is"})  # operators whose values are spelt alike inside groups
QUOTABLE = re.compile(r'["\\]')


def address(request: ExportRequest, base: str) -> str:
    """Where ``GET /v1/rows`` gives the same file; ``base`` is the address up to ``/v1``.

    Raises InvalidParameter where no query string can say it.
    """
    rows = f"{base}/v1/rows/{quote(request.dataset, safe='')}.{request.format}"
    query = query_string(request)
    return f"{rows}?{query}" if query else rows


def curl_line(request: ExportRequest, base: str) -> str:
    """A line for a POSIX shell that saves the file under its name in the current folder."""
    as_what = Representation(FORMATS[request.format], request.compression)
    name = safe_filename(request.filename or as_what.filename(request.dataset))
    file = f"./{name}" if name.startswith("-") else name
    return shlex.join(["curl", "-sSf", "-o", file, address(request, base)])


def query_string(request: ExportRequest) -> str:
    """The parameters of the address; "" for a whole dataset as it is."""
    spelt = [_condition(name, text) for name, text in parameters(request)]
    pairs = [*spelt, *choices(request)]
    return "&".join(f"{quote(name, safe=PLAIN)}={quote(text, safe=PLAIN)}" for name, text in pairs)


def _condition(name: str, text: str) -> tuple[str, str]:
    """In a group where the column is called as a parameter of the representation."""
    return ("and", f"({name}.{_grouped(text)})") if name in PARAMETERS else (name, text)


def _grouped(text: str) -> str:
    """``operator.value`` as it stands in a group, where a bare value ends at a comma."""
    found = CONDITION.match(text)
    if found is None or found["operator"] in UNQUOTED:
        return text
    value = QUOTABLE.sub(r"\\\g<0>", text[found.end() :])
    return f'{found[0]}"{value}"'
