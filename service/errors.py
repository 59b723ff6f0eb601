"""Everything that Tailrace refuses or fails at, and how it is said over HTTP.

The tree::

    TailraceError                    status 500, code "internal"
    ├── ConfigurationError           the operator's: printed by the command line, never sent
    ├── RequestError                 400: the caller can mend it
    │   ├── InvalidParameter         400 invalid_parameter: a parameter, operator or value
    │   ├── UnknownColumn            400 unknown_column
    │   ├── Unsupported              400 unsupported: known grammar that is not offered
    │   ├── Forbidden                403 forbidden
    │   ├── AddressRefused           403 address_refused: a free relay may not go there
    │   ├── NotFound                 404 not_found
    │   ├── NotAcceptable            406 not_acceptable
    │   ├── Conflict                 409 conflict: not in this state
    │   ├── Gone                     410 gone: it was there and will not come back
    │   ├── PreconditionFailed       412 precondition_failed: If-Match, If-Unmodified-Since
    │   ├── BodyTooLarge             413 body_too_large
    │   ├── NotJson                  415 unsupported_media_type
    │   ├── RangeNotSatisfiable      416 range_not_satisfiable: nothing is at these bytes
    │   ├── KeyReused                422 idempotency_key_reused: the same key, another body
    │   └── TooManyQueued            429 too_many_queued: the caller has enough exports waiting
    ├── SourceError                  502 source_error: the source database answered with an error
    │   ├── SourceUnavailable        503 source_unavailable: it cannot be reached
    │   └── DeadlineExceeded         504 deadline_exceeded: max_duration is over
    ├── UpstreamError                502 upstream_error: what it answered cannot be relayed
    │   ├── UpstreamUnavailable      502 upstream_unavailable: it cannot be reached, or broke off
    │   ├── UpstreamTimeout          504 upstream_timeout: it did not connect, answer or go on
    │   ├── RedirectRefused          502 redirect_refused: it leads where a relay may not follow
    │   └── BadLine                  502 bad_line: a line is not JSON, or too long
    ├── ProviderMissing              503 provider_missing: a language model that cannot be asked
    ├── TooLarge                     413 too_large: a download is over the relay's limit
    ├── FileChanged                  503 file_changed: while it was read
    ├── StorageFailed                507 storage_failed: an artifact cannot be written
    │   └── StorageFull              507 storage_full: no room on the disk, or a quota is reached
    ├── Cancelled                    409 cancelled: somebody stopped it
    ├── AttemptLost                  503 attempt_lost: another attempt took over
    ├── RecordsUnavailable           503 records_unavailable: Tailrace's own database is away
    ├── QueueFull                    503 queue_full: enough exports are waiting
    ├── NotYet                       503 not_yet: the first byte has not been made
    ├── Busy                         503 busy: every slot is taken
    └── Draining                     503 draining: the process is about to stop
    StreamBroken                     never sent: it tells the server to break the connection

Problem documents follow RFC 9457; ``type`` is ``urn:tailrace:problem:<code>``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

PROBLEM_MEDIA_TYPE = "application/problem+json"


class TailraceError(Exception):
    """The root: ``detail`` is a sentence for the person who caused or meets the error."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"
    title: ClassVar[str] = "Internal error"

    def __init__(
        self,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        members: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.headers = dict(headers or {})
        self.members = dict(members or {})

    def problem(self, request_id: str | None) -> dict[str, Any]:
        """The problem document (RFC 9457) with our extension members."""
        return problem(self.status, self.code, self.title, self.detail, request_id, self.members)


class ConfigurationError(TailraceError):
    code = "configuration"
    title = "The configuration is wrong"


class RequestError(TailraceError):
    status = 400
    code = "bad_request"
    title = "The request cannot be understood"


class InvalidParameter(RequestError):
    """``parameter`` names the query parameter or body field that is wrong."""

    code = "invalid_parameter"
    title = "A parameter is not valid"

    def __init__(self, parameter: str, detail: str, **members: Any) -> None:
        super().__init__(detail, members={"parameter": parameter, **members})


class UnknownColumn(InvalidParameter):
    code = "unknown_column"
    title = "The dataset has no such column"


class Unsupported(InvalidParameter):
    code = "unsupported"
    title = "This part of the grammar is not offered"


class Forbidden(RequestError):
    status = 403
    code = "forbidden"
    title = "Not allowed"


class AddressRefused(RequestError):
    status = 403
    code = "address_refused"
    title = "A relay may not go to this address"


class NotFound(RequestError):
    status = 404
    code = "not_found"
    title = "Not found"


class NotAcceptable(RequestError):
    status = 406
    code = "not_acceptable"
    title = "No offered format is acceptable"


class Conflict(RequestError):
    status = 409
    code = "conflict"
    title = "Not possible in this state"


class Gone(RequestError):
    status = 410
    code = "gone"
    title = "No longer there"


class PreconditionFailed(RequestError):
    status = 412
    code = "precondition_failed"
    title = "A precondition does not hold"


class BodyTooLarge(RequestError):
    status = 413
    code = "body_too_large"
    title = "The body is too large"


class NotJson(RequestError):
    status = 415
    code = "unsupported_media_type"
    title = "The body has to be application/json"


class RangeNotSatisfiable(RequestError):
    """``size`` is the length in bytes of the whole (RFC 9110, section 15.5.17)."""

    status = 416
    code = "range_not_satisfiable"
    title = "Nothing is at these bytes"

    def __init__(self, size: int, headers: Mapping[str, str] | None = None) -> None:
        told = {**(headers or {}), "Content-Range": f"bytes */{size}"}
        super().__init__(f"There are {size} bytes, and none of those asked for.", headers=told)


class KeyReused(RequestError):
    status = 422
    code = "idempotency_key_reused"
    title = "The Idempotency-Key came with another body"


class TooManyQueued(RequestError):
    status = 429
    code = "too_many_queued"
    title = "Too many exports of yours are waiting"


class SourceError(TailraceError):
    """The query failed in the source database; ``sqlstate`` is its five-character code."""

    status = 502
    code = "source_error"
    title = "The source database answered with an error"


class SourceUnavailable(SourceError):
    status = 503
    code = "source_unavailable"
    title = "The source database cannot be reached"

    def __init__(self, detail: str) -> None:
        super().__init__(detail, headers={"Retry-After": "5"})


class DeadlineExceeded(SourceError):
    status = 504
    code = "deadline_exceeded"
    title = "The export took longer than it may"


class UpstreamError(TailraceError):
    status = 502
    code = "upstream_error"
    title = "The upstream's answer cannot be relayed"


class UpstreamUnavailable(UpstreamError):
    code = "upstream_unavailable"
    title = "The upstream cannot be reached, or broke off"


class UpstreamTimeout(UpstreamError):
    status = 504
    code = "upstream_timeout"
    title = "The upstream took too long"


class RedirectRefused(UpstreamError):
    code = "redirect_refused"
    title = "The upstream redirects to where the relay may not follow"


class BadLine(UpstreamError):
    code = "bad_line"
    title = "A line of the upstream cannot be passed on"


class ProviderMissing(TailraceError):
    status = 503
    code = "provider_missing"
    title = "The provider of language models cannot be used"


class TooLarge(TailraceError):
    status = 413
    code = "too_large"
    title = "The download is larger than the relay may pass on"


class FileChanged(TailraceError):
    status = 503
    code = "file_changed"
    title = "The file changed while it was read"

    def __init__(self) -> None:
        super().__init__(
            "The file was written to or cut while it was read.", headers={"Retry-After": "1"}
        )


class StorageFailed(TailraceError):
    status = 507
    code = "storage_failed"
    title = "The artifact cannot be written"


class StorageFull(StorageFailed):
    code = "storage_full"
    title = "There is no room for the artifact"


class Cancelled(TailraceError):
    status = 409
    code = "cancelled"
    title = "The export was cancelled"


class AttemptLost(TailraceError):
    status = 503
    code = "attempt_lost"
    title = "Another attempt has taken over"


class RecordsUnavailable(TailraceError):
    status = 503
    code = "records_unavailable"
    title = "The records of exports cannot be read"

    def __init__(self) -> None:
        super().__init__(
            "Tailrace's own database does not answer; streams go on without it.",
            headers={"Retry-After": "5"},
        )


class QueueFull(TailraceError):
    status = 503
    code = "queue_full"
    title = "Too many exports are waiting"


class NotYet(TailraceError):
    status = 503
    code = "not_yet"
    title = "Nothing has been made yet"


class Busy(TailraceError):
    status = 503
    code = "busy"
    title = "Every slot is taken"

    def __init__(self, detail: str, *, retry_after: int = 5) -> None:
        super().__init__(detail, headers={"Retry-After": str(retry_after)})


class Draining(TailraceError):
    status = 503
    code = "draining"
    title = "The service is stopping"

    def __init__(self) -> None:
        super().__init__(
            "This process is stopping and takes no new streams.", headers={"Retry-After": "5"}
        )


class StreamBroken(Exception):
    """Raised out of the ASGI application after the response has started.

    The server closes the connection without the last chunk, so that every client sees a
    truncated transfer. It carries the cause for the log; nothing of it reaches the wire. It is
    no TailraceError, so that no exception handler takes it for one that can be answered.
    """


def problem(
    status: int,
    code: str,
    title: str,
    detail: str,
    request_id: str | None,
    members: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """A problem document as plain data (RFC 9457, section 3)."""
    return {
        "type": f"urn:tailrace:problem:{code}",
        "title": title,
        "status": status,
        "detail": detail,
        "code": code,
        "request_id": request_id,
        **(members or {}),
    }
