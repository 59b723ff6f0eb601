"""Preconditions of GET and HEAD: whether to answer at all, and with the range asked for. Pure.

``headers`` holds field values under lower-case names, several fields of a name joined by ", ".
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from service.errors import PreconditionFailed

TAG = re.compile(r'(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")')
LIST = re.compile(rf"[ \t,]*{TAG.pattern}(?:[ \t]*,[ \t,]*{TAG.pattern})*[ \t,]*")
DATE = re.compile(  # the three spellings of RFC 9110, section 5.6.7; email's reader takes far more
    r"""
      [A-Z][a-z]{2},\ [0-9]{2}\ [A-Z][a-z]{2}\ [0-9]{4}\ [0-9:]{8}\ GMT
    | [A-Z][a-z]{5,8},\ [0-9]{2}-[A-Z][a-z]{2}-[0-9]{2}\ [0-9:]{8}\ GMT
    | [A-Z][a-z]{2}\ [A-Z][a-z]{2}\ [0-9\ ][0-9]\ [0-9:]{8}\ [0-9]{4}
    """,
    re.VERBOSE,
)


def not_modified(
    headers: Mapping[str, str], etag: str, last_modified: datetime | None = None
) -> bool:
    """Whether the client has it already, so that 304 is the answer (RFC 9110, section 13.2.2).

    ``etag`` is strong. Raises PreconditionFailed where ``If-Match`` does not name it, or where
    it has changed since ``If-Unmodified-Since``. A date that is none is ignored, and so is every
    date while ``last_modified`` is not known.
    """
    if (if_match := headers.get("if-match")) is not None:
        if not names(if_match, etag, strongly=True):
            raise PreconditionFailed(f"If-Match does not name the current ETag, {etag}.")
    elif _changed(last_modified, headers.get("if-unmodified-since")) is True:
        raise PreconditionFailed("It has changed since the date of If-Unmodified-Since.")
    if (if_none_match := headers.get("if-none-match")) is not None:
        return names(if_none_match, etag)
    return _changed(last_modified, headers.get("if-modified-since")) is False


def use_range(headers: Mapping[str, str], etag: str, last_modified: datetime | None = None) -> bool:
    """Whether ``If-Range`` lets ``Range`` apply (RFC 9110, section 13.1.5), as it does if absent.

    A tag is compared strongly, and a date must be the very one of ``Last-Modified``. That is a
    strong validator where what is served never changes twice in a second.
    """
    if (validator := headers.get("if-range")) is None:
        return True
    date = http_date(validator)
    if date is not None and last_modified is not None:
        return date == last_modified.replace(microsecond=0)
    return validator.strip(" \t") == etag


def entity_tag(body: bytes) -> str:
    """A strong validator of exactly these bytes (RFC 9110, section 8.8.3)."""
    return f'"{hashlib.sha256(body).hexdigest()}"'


def names(field: str, tag: str, *, strongly: bool = False) -> bool:
    """Whether the field's value names ``tag``, a strong one, or is ``*`` (sections 13.1.1 and 2).

    Compared ``strongly``, a weak tag names nothing. A value that does not keep to the grammar
    names nothing either: neither a whole answer nor a refused one is ever wrong.
    """
    if field.strip(" \t") == "*":
        return True
    if LIST.fullmatch(field) is None:
        return False
    return any(found[0 if strongly else 1] == tag for found in TAG.finditer(field))


def http_date(field: str) -> datetime | None:
    """The time that the field's value tells, in UTC; None if it is no HTTP-date."""
    text = field.strip(" \t")
    if DATE.fullmatch(text) is None:
        return None
    try:
        return parsedate_to_datetime(text).replace(tzinfo=UTC)
    except ValueError:
        return None


def _changed(last_modified: datetime | None, since: str | None) -> bool | None:
    """None where one of the two times is not known."""
    date = None if since is None else http_date(since)
    if date is None or last_modified is None:
        return None
    return last_modified.replace(microsecond=0) > date
