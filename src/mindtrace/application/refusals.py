"""Floor 10: what a connection is told when it is closed by hand.

In: what was wrong. Out: a small problem document, as an answer that says goodbye.
"""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from mindtrace.application.problems import MEDIA_TYPE, Problem

_CLOSE = {"Connection": "close"}


def raw(problem: Problem, request_id: str, default_headers: list[tuple[bytes, bytes]]) -> bytes:
    """The whole answer, as it goes over the wire."""
    body = problem.body(request_id)
    headers = {
        **{name.decode(): value.decode("latin-1") for name, value in default_headers},
        "content-type": MEDIA_TYPE,
        "content-length": str(len(body)),
        **{name.lower(): value for name, value in problem.headers.items()},
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return b"".join((STATUS_LINE[problem.status], lines.encode("latin-1"), b"\r\n", body))


def slow(part: str, seconds: float) -> Problem:
    """To a client that does not come to an end."""
    return Problem(
        408, f"the {part} did not arrive within {seconds:g} s", headers=_CLOSE, kind="too-slow"
    )


def malformed() -> Problem:
    """To what the parser cannot read."""
    return Problem(400, "this is not HTTP/1.1 as RFC 9112 has it", headers=_CLOSE, kind="malformed")


def long_head(limit: int) -> Problem:
    """To a head, trailers or padding of more than `limit` bytes."""
    return Problem(431, f"the head is longer than {limit:,} bytes", headers=_CLOSE)


def crowded() -> Problem:
    """To one connection too many."""
    return Problem(
        503,
        "there are too many connections",
        headers={**_CLOSE, "Retry-After": "1"},
        kind="too-many-connections",
    )


def too_many_at_once(limit: int) -> Problem:
    """To a client that sends and sends, and waits for no answer."""
    return Problem(
        400,
        f"more than {limit} requests were sent without waiting for an answer",
        headers=_CLOSE,
        kind="pipeline",
    )


def no_upgrade() -> Problem:
    """To a client that wants to speak something else."""
    return Problem(
        400, "this server speaks neither WebSocket nor CONNECT", headers=_CLOSE, kind="upgrade"
    )
