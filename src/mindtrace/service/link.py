"""Floor 9: one kept connection to a running `mindtrace serve`.

In: requests. Out: replies, or the one error that says what a person can do about it.
Where a connection breaks, the request is sent once more: it may arrive twice.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlsplit

from mindtrace.errors import ConflictError, MindtraceError, UsageError

PATIENCE = 60.0  # seconds without a sign of the server
_NOTHING: Mapping[str, str] = {}


@dataclass(frozen=True)
class Reply:
    """What came back.

    Attributes:
        status: of HTTP.
        fields: the JSON object.
        retry_after: seconds after which the server wants to be asked again, or None.
    """

    status: int
    fields: Mapping[str, Any]
    retry_after: float | None = None


class Link:
    """Sends one request at a time and reads its reply; the two may lie apart."""

    def __init__(self, url: str, token: bytes | None = None, *, patience: float = PATIENCE) -> None:
        """Remember where; the connection is opened by the first request.

        Args:
            url: such as `http://127.0.0.1:8000`; a path in it is put before every other.
            token: for `Authorization: Bearer`.
            patience: seconds.

        Raises:
            UsageError: not the URL of a server, or one with credentials.
        """
        parts = _parsed(url)
        self.url = url.rstrip("/")
        self._prefix = parts.path.rstrip("/")
        secure = parts.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        self._connection = kind(parts.hostname or "", parts.port, timeout=patience)
        self._headers = {"Accept": "application/json"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token.decode('ascii')}"
        self._request: tuple[str, str, bytes | None, Mapping[str, str]] = ("GET", "/", None, {})

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] = _NOTHING,
    ) -> Reply:
        """Send a request and read its reply.

        Raises:
            MindtraceError: nobody answers, or not as mindtrace does.
        """
        self.send(method, path, body, headers)
        return self.read()

    def send(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] = _NOTHING,
    ) -> None:
        """Send a request; `read` must come before the next.

        Raises:
            MindtraceError: nobody takes it.
        """
        self._request = (method, self._prefix + path, body, {**self._headers, **headers})
        self.send_again()

    def send_again(self) -> None:
        """Send the same request once more.

        Raises:
            MindtraceError: nobody takes it.
        """
        try:
            self._connection.request(*self._request)
        except (BrokenPipeError, ConnectionResetError):
            # A refusal may be there before the body is through, or the connection was
            # idle for too long: whoever reads the reply finds out.
            return
        except (OSError, http.client.HTTPException) as error:
            raise self._silence(error) from error

    def read(self) -> Reply:
        """The reply to what was sent.

        Raises:
            MindtraceError: nobody answers, or not as mindtrace does.
        """
        try:
            return self._reply()
        except (ConnectionError, http.client.HTTPException):
            self._connection.close()
        except OSError as error:
            raise self._silence(error) from error
        self.send_again()
        try:
            return self._reply()
        except (OSError, http.client.HTTPException) as error:
            raise self._silence(error) from error

    def close(self) -> None:
        """Give the connection back."""
        self._connection.close()

    def refused(self, reply: Reply) -> MindtraceError:
        """What a reply of 300 and above means to the one who typed the command."""
        detail, hint = reply.fields.get("detail"), reply.fields.get("hint")
        if not isinstance(detail, str) or reply.status in (404, 405, 415):
            return self.stranger(f"answers {reply.status}")
        message = f"{self.url}: {detail}"
        if reply.status == 401:
            return UsageError(message, hint="--token-file FILE, the one that the server was given")
        if reply.status in (403, 421):
            return UsageError(message, hint=hint)
        if reply.status in (429, 503):
            return ConflictError(message, hint=hint or "the server is busy; try again later")
        return MindtraceError(f"{message} ({reply.status})", hint=hint)

    def stranger(self, what: str) -> MindtraceError:
        """Somebody answers, and it is not mindtrace."""
        return MindtraceError(
            f"{self.url} {what}", hint="--url is what `mindtrace serve` says when it starts"
        )

    def _reply(self) -> Reply:
        try:
            response = self._connection.getresponse()
            fields = json.loads(response.read())
        except ValueError:
            fields = None
        if not isinstance(fields, dict):
            raise self.stranger(f"answers {response.status} and no JSON object")
        after = response.headers.get("Retry-After", "")
        return Reply(response.status, fields, float(after) if after.isdecimal() else None)

    def _silence(self, error: Exception) -> MindtraceError:
        told = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return MindtraceError(
            f"no answer from {self.url}: {told}", hint="start it: mindtrace serve"
        )


def _parsed(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        right = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        right = False
    if not right or not url.isascii() or not url.isprintable() or " " in url:
        raise UsageError("--url is not the address of a server", hint="--url http://127.0.0.1:8000")
    if parts.username is not None or parts.query or parts.fragment:
        raise UsageError(
            "--url takes neither credentials nor a query",
            hint="--url http://127.0.0.1:8000 --token-file FILE",
        )
    return parts
