"""`old_root.tar.xz`: a ROOT that commit 4d86ddf wrote, before the restructuring.

It holds `digits` with four versions (an mlp; version 4 was made by a job), a history with a
promotion, a rollback and a refusal, the alias `staging`; `colours/1`, a cnn of generated
images; a job that succeeded and one that waits; a training stopped in its third epoch.
Commit 53d2be1 has the program that made it, `tests/contract/make_old_root.py`.

MLflow stores absolute paths of artifacts, so the archive holds the databases as SQL in which
the folder around ROOT is a placeholder. Bundles are left as they are: their digests would not
be true any more.
"""

from __future__ import annotations

import sqlite3
import tarfile
from pathlib import Path

import pytest

_PLACEHOLDER = b"/OLD-FOLDER"


class OldRoot:
    """The folder of an unpacked archive, and what lies in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "root"
        self.exported = folder / "exported"  # the bundle of `digits/1`
        self.colours = folder / "colours"  # images of the model `colours`, a folder for a class
        self.digit = folder / "digit.png"  # a handwritten 0


def unpack(folder: Path) -> OldRoot:
    with tarfile.open(Path(__file__).with_name("old_root.tar.xz")) as archive:
        archive.extractall(folder, filter="data")
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        content = path.read_bytes()
        if _PLACEHOLDER in content:
            path.write_bytes(content.replace(_PLACEHOLDER, str(folder).encode()))
        if path.suffix == ".sql":
            connection = sqlite3.connect(path.with_suffix(""))
            connection.executescript(path.read_text(encoding="utf-8"))
            connection.close()
            path.unlink()
    return OldRoot(folder)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> OldRoot:
    """For tests that change nothing."""
    return unpack(tmp_path_factory.mktemp("old"))


@pytest.fixture
def old(tmp_path: Path) -> OldRoot:
    return unpack(tmp_path)
