"""The query string as pairs of names and values (WHATWG URL, application/x-www-form-urlencoded)."""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

from starlette.requests import Request

from service.grammar.scanner import mistake

MAX_PARAMETERS = 1000


def query_parameters(request: Request) -> list[tuple[str, str]]:
    """Every parameter, percent-decoded once.

    Raises InvalidParameter for what is not UTF-8, and for more than MAX_PARAMETERS.
    """
    text: bytes = request.scope["query_string"]
    pairs = [pair for pair in text.split(b"&") if pair]
    if len(pairs) > MAX_PARAMETERS:
        end = sum(len(pair) + 1 for pair in pairs[:MAX_PARAMETERS])
        raise mistake("query", f"there are more than {MAX_PARAMETERS} parameters", end + 1)
    return [_parameter(pair) for pair in pairs]


def _parameter(pair: bytes) -> tuple[str, str]:
    name, _, value = (_unquoted(part) for part in pair.partition(b"="))
    shown = name.decode(errors="replace")
    return _decoded(shown, name), _decoded(shown, value)


def _unquoted(text: bytes) -> bytes:
    return unquote_to_bytes(text.replace(b"+", b" "))


def _decoded(parameter: str, data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        character = len(data[: error.start].decode()) + 1
        raise mistake(parameter, "this is not UTF-8", character) from error
