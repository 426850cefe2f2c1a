"""Packs a ROOT into `old_root.tar.xz`, and unpacks it into a folder of a test.

MLflow stores absolute paths of artifacts, so the archive holds the databases as SQL in which
the folder around ROOT is PLACEHOLDER; `unpack` writes the new folder in its place. Bundles
are left as they are: their digests would not be true any more.
"""

from __future__ import annotations

import shutil
import sqlite3
import tarfile
from dataclasses import dataclass
from pathlib import Path

ARCHIVE = Path(__file__).with_name("old_root.tar.xz")
PLACEHOLDER = "/OLD-FOLDER"
_DUMP = ".sql"


@dataclass(frozen=True)
class OldRoot:
    """The folder of an unpacked archive, and what lies in it."""

    folder: Path

    @property
    def root(self) -> Path:
        return self.folder / "root"

    @property
    def exported(self) -> Path:
        """The bundle of `digits/1`, as `registry export` wrote it."""
        return self.folder / "exported"

    @property
    def colours(self) -> Path:
        """The images of the model `colours`: a sub-folder for each class."""
        return self.folder / "colours"

    @property
    def digit(self) -> Path:
        """A picture of a handwritten 0."""
        return self.folder / "digit.png"


def unpack(folder: Path) -> OldRoot:
    """Unpack the archive into `folder`, which exists."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    for path in _files(folder):
        if path.suffix == _DUMP:
            script = path.read_text(encoding="utf-8").replace(PLACEHOLDER, str(folder))
            connection = sqlite3.connect(path.with_suffix(""))
            connection.executescript(script)
            connection.close()
            path.unlink()
        elif PLACEHOLDER.encode() in (content := path.read_bytes()):
            path.write_bytes(content.replace(PLACEHOLDER.encode(), str(folder).encode()))
    return OldRoot(folder)


def pack(folder: Path) -> None:
    """Write `folder` as the archive; every database in it becomes a file of SQL."""
    for database in [path for path in _files(folder) if path.suffix == ".db"]:
        database.with_name(database.name + _DUMP).write_text(_dump(database), encoding="utf-8")
        for rest in ("", "-wal", "-shm"):
            database.with_name(database.name + rest).unlink(missing_ok=True)
    for path in _files(folder):
        content = b"" if _in_bundle(path) else path.read_bytes()
        if str(folder).encode() in content:
            content.decode("utf-8")  # in a binary file another length would break what it says
            path.write_bytes(content.replace(str(folder).encode(), PLACEHOLDER.encode()))
    with tarfile.open(ARCHIVE, "w:xz", preset=9) as archive:
        for path in sorted(folder.iterdir()):
            archive.add(path, path.name, filter=_anonymous)
    shutil.rmtree(folder)


def _dump(database: Path) -> str:
    connection = sqlite3.connect(database)
    (version,) = connection.execute("pragma user_version").fetchone()
    (mode,) = connection.execute("pragma journal_mode").fetchone()
    lines = [f"pragma journal_mode = {mode};", f"pragma user_version = {version};"]
    lines += connection.iterdump()
    connection.close()
    return "\n".join(lines) + "\n"


def _in_bundle(path: Path) -> bool:
    return (path.parent / "manifest.json").exists() and (path.parent / "model.json").exists()


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member
