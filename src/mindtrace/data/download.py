"""Room data: a file's name and checksum and some mirrors come in, its whole content goes out.

A file appears under its name only when it is complete, verified and on the disk, so
processes that fetch at the same time do not hurt each other and a kill leaves no half.
Checksums are those of the uncompressed content: a recompressed copy is as good.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import http.client
import io
import os
import secrets
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from mindtrace.config.urls import masked
from mindtrace.errors import DownloadError

_GZIP = b"\x1f\x8b"
_SCHEMES = ("http", "https")


@dataclass(frozen=True)
class RemoteFile:
    """A file as it must be: `name` and `size` and `sha256` without compression."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Patience:
    """How long and how often a mirror is asked.

    Attributes:
        attempts: times a mirror is asked for one file.
        pause: seconds before the second attempt; doubled before each further one.
        timeout: seconds without a byte.
        deadline: seconds for one attempt as a whole.
        sleep: waits.
        clock: seconds, monotonic.
    """

    attempts: int = 3
    pause: float = 0.5
    timeout: float = 20.0
    deadline: float = 600.0
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic


class _Refused(Exception):  # noqa: N818 - they do not leave this file
    """This mirror does not have the file as it must be; asking again is of no use."""


class _BrokenOff(Exception):  # noqa: N818
    """The connection failed; another attempt may succeed."""


def stored(remote: RemoteFile, folder: Path) -> tuple[bytes | None, str | None]:
    """Look for a file that somebody put there or that was downloaded before.

    Args:
        remote: the file as it must be.
        folder: has it under its name, gzipped or not, or has it not.

    Returns:
        The verified content and None; or None and why what lies there cannot be used,
        None where nothing does.
    """
    reason = None
    for path in (folder / remote.name, folder / f"{remote.name}.gz"):
        try:
            return _verified(path.read_bytes(), remote), None
        except FileNotFoundError:
            continue
        except OSError as error:
            reason = reason or f"{path}: {error.strerror}"
        except (_Refused, _BrokenOff) as error:
            reason = reason or f"{path}: {error}"
    return None, reason


def fetch(
    remote: RemoteFile, folder: Path, mirrors: Sequence[str], patience: Patience | None = None
) -> bytes:
    """Download a file from the first mirror that has it, into `folder`.

    Args:
        remote: what to fetch; the mirrors have it as `<name>.gz`.
        folder: made if it is missing; gets the uncompressed file.
        mirrors: URLs of folders, http or https.
        patience: how long to try.

    Returns:
        The file's uncompressed, verified content.

    Raises:
        DownloadError: no mirror gave it, or the folder cannot be written; nothing
            partial is left.
    """
    patience = patience or Patience()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from error
    reasons = []
    for mirror in mirrors:
        url = f"{mirror.rstrip('/')}/{remote.name}.gz"
        try:
            content = _ask(url, remote, patience)
        except (_Refused, _BrokenOff) as error:
            reasons.append(f"{masked(url)}: {error}")
            continue
        try:
            _store(content, folder / remote.name, patience.deadline)
        except OSError as error:
            raise _unwritable(folder, error) from error
        return content
    raise DownloadError(
        f"cannot download {remote.name}: {'; '.join(reasons)}", hint=_what_to_do(folder)
    )


def _unwritable(folder: Path, error: OSError) -> DownloadError:
    return DownloadError(
        f"cannot write into {folder}: {error.strerror}",
        hint="choose another folder: --set dir_paths.data=DIR",
    )


def _what_to_do(folder: Path) -> str:
    return (
        f"set [data] mirror to an address that has the files, put them into {folder} by hand "
        "(gzipped or not), or use source = digits, which needs no network"
    )


def _ask(url: str, remote: RemoteFile, patience: Patience) -> bytes:
    for attempt in range(patience.attempts):
        if attempt:
            patience.sleep(patience.pause * 2 ** (attempt - 1))
        try:
            # Compression that adds more than a sixteenth is not compression.
            data = b"".join(_received(url, remote.size + remote.size // 16 + 4096, patience))
            return _verified(data, remote)
        except _BrokenOff:
            if attempt + 1 == patience.attempts:
                raise
    raise _Refused("asked 0 times")


def _received(url: str, limit: int, patience: Patience) -> Iterator[bytes]:
    """The answer's body in pieces, at most `limit` bytes of it."""
    deadline = patience.clock() + patience.deadline
    received = 0
    try:
        with closing(urllib.request.urlopen(_request(url), timeout=patience.timeout)) as answer:
            announced = answer.headers.get("Content-Length")
            # read1 returns what one packet brought: a dripping server meets the deadline.
            while piece := answer.read1(1 << 16):
                received += len(piece)
                if received > limit:
                    raise _Refused(f"more than the {limit:,} bytes it can have")
                if patience.clock() > deadline:
                    raise _BrokenOff(f"not done after {patience.deadline:g} s")
                yield piece
    except urllib.error.HTTPError as error:
        error.close()
        kind = _BrokenOff if error.code >= 500 or error.code in (408, 429) else _Refused
        raise kind(f"HTTP {error.code} {error.reason}") from error
    except urllib.error.URLError as error:
        raise _BrokenOff(str(error.reason)) from error
    except (OSError, http.client.HTTPException) as error:
        raise _BrokenOff(f"{type(error).__name__}: {error}") from error
    if announced is not None and received != int(announced):
        raise _BrokenOff(f"broke off after {received:,} of {int(announced):,} bytes")


def _request(url: str) -> urllib.request.Request:
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise _Refused(str(error)) from error
    if parts.scheme not in _SCHEMES:
        raise _Refused("not an http or https address")
    # urllib takes `user:password@` for a part of the host's name.
    login, _, host = parts.netloc.rpartition("@")
    request = urllib.request.Request(
        urlunsplit(parts._replace(netloc=host)), headers={"User-Agent": "mindtrace"}
    )
    if login:
        token = base64.b64encode(unquote(login).encode()).decode()
        # Unredirected: another host that we are sent to does not get the password.
        request.add_unredirected_header("Authorization", f"Basic {token}")
    return request


def _verified(data: bytes, remote: RemoteFile) -> bytes:
    """The uncompressed content of `data` if it is that of `remote`."""
    if data.startswith(_GZIP):
        try:
            # One byte more than there must be: enough to see that it is too much.
            data = gzip.GzipFile(fileobj=io.BytesIO(data)).read(remote.size + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise _BrokenOff(f"incomplete or damaged: {error}") from error
    if len(data) != remote.size:
        raise _Refused(f"not {remote.name}: {len(data):,} bytes, expected {remote.size:,}")
    found = hashlib.sha256(data).hexdigest()
    if found != remote.sha256:
        raise _Refused(f"checksum differs: SHA-256 {found}, expected {remote.sha256}")
    return data


def _store(content: bytes, path: Path, deadline: float) -> None:
    """Old or new, never half: write beside, flush to the disk, rename."""
    _sweep(path.parent, deadline)
    part = path.parent / f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.part"
    try:
        with part.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _sweep(folder: Path, deadline: float) -> None:
    """Remove what a killed process left; nobody writes for as long as a deadline."""
    for part in folder.glob(".*.part"):
        with suppress(FileNotFoundError):
            if time.time() - part.stat().st_mtime > deadline:
                part.unlink()
