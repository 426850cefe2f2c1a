"""Room data: decoded images come in once; later trainings map them into memory instead.

An entry is a folder: arrays as .npy files and a manifest with the size of each and the
digest of its beginning. It is written aside, flushed to the disk and renamed, so it is
whole or not there. Entries may be removed at any time; who has one mapped keeps it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mindtrace.data.columns import FileShelf
from mindtrace.errors import DataError
from mindtrace.system import sync

# Part of every key: another format or another way to decode makes other entries.
FORMAT = 1
MANIFEST = "manifest.json"
_LOCK = ".lock"
_ASIDE = ".new"
# So much of a file is compared with its digest when it is opened, from its beginning on.
_COMPARED_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Entry:
    """What the cache has under a key.

    Attributes:
        shelf: the arrays.
        about: what was said of them when they were kept.
    """

    shelf: FileShelf
    about: Mapping[str, Any]


class ImageCache:
    """Entries by key in a folder of their own; any number of processes may share it.

    Args:
        home: the folder; made when it is needed.
    """

    def __init__(self, home: Path) -> None:
        self.home = home

    def writable(self) -> bool:
        """Whether an entry could be made, as far as one can tell without trying."""
        try:
            self.home.mkdir(parents=True, exist_ok=True)
        except OSError:
            return False
        return os.access(self.home, os.W_OK)

    def find(self, key: str) -> Entry | None:
        """The entry of a key.

        Args:
            key: the name of its folder.

        Returns:
            None if there is none, or if it is damaged.
        """
        folder = self.home / key
        try:
            manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            files: dict[str, dict[str, Any]] = manifest["files"]
            whole = all(_described(folder / name) == files[name] for name in files)
            return Entry(FileShelf(folder), manifest["about"]) if whole else None
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None  # not there, or broken: it will be made anew

    def make(
        self,
        key: str,
        origin: tuple[str, str],
        fill: Callable[[FileShelf], Mapping[str, Any]],
        waiting: Callable[[], None],
    ) -> Entry:
        """The entry of a key; one that is missing or damaged is made.

        Args:
            key: the name of its folder.
            origin: where the images are and the digest of their listing; entries of the
                same place with another listing are of no use any more, and are removed.
            fill: puts arrays on a shelf and returns what to say about them.
            waiting: called before a wait for another process that makes an entry.

        Returns:
            The entry, whole.

        Raises:
            DataError: it could not be written.
        """
        try:
            with _locked(self.home / _LOCK, waiting):
                return self.find(key) or self._made(key, origin, fill)
        except OSError as error:
            raise DataError(
                f"cannot keep decoded images in {self.home}: {error.strerror or error}",
                hint="free some space, or set [DIR_PATHS] DATA to a folder elsewhere",
            ) from error

    def _made(
        self, key: str, origin: tuple[str, str], fill: Callable[[FileShelf], Mapping[str, Any]]
    ) -> Entry:
        # Whoever left it was killed: a living one would hold the lock.
        aside = self.home / _ASIDE
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        try:
            about = fill(FileShelf(aside))
            _seal(aside, origin, about)
            self._remove_stale(key, origin)
            aside.rename(self.home / key)
            sync(self.home)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        return Entry(FileShelf(self.home / key), about)

    def _remove_stale(self, key: str, origin: tuple[str, str]) -> None:
        shutil.rmtree(self.home / key, ignore_errors=True)
        place, listing = origin
        for path in self.home.glob(f"*/{MANIFEST}"):
            try:
                of_place, of_listing = json.loads(path.read_text(encoding="utf-8"))["origin"]
            except (OSError, ValueError, KeyError, TypeError):
                continue  # it cannot be told whose it is
            if of_place == place and of_listing != listing:
                shutil.rmtree(path.parent, ignore_errors=True)


def _seal(folder: Path, origin: tuple[str, str], about: Mapping[str, Any]) -> None:
    """Write the manifest and flush everything to the disk."""
    files = {path.name: _described(path) for path in sorted(folder.iterdir())}
    manifest = {"format_version": FORMAT, "origin": origin, "about": about, "files": files}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    for path in (*folder.iterdir(), folder):
        sync(path)


def _described(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        digest, left = hashlib.sha256(), _COMPARED_BYTES
        while left and (data := file.read(min(left, 2**20))):
            digest.update(data)
            left -= len(data)
    return {"size": size, "sha256": digest.hexdigest()}


@contextmanager
def _locked(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold the lock of a file; the system frees it when its holder dies."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
