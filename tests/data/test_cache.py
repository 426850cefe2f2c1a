"""Decoded images that are kept: once decoded, whole or not there, never stale."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from mindtrace.data import ImageFolder, InputRequirements
from mindtrace.data.listing import STAGES
from mindtrace.errors import DataError, ImageError
from mindtrace.progress import Progress


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def ready(folder: Path, home: Path | None, **options: Any) -> ImageFolder:
    data = ImageFolder(folder, cache_dir=home, **options)
    data.setup()
    return data


def same(one: ImageFolder, other: ImageFolder) -> bool:
    return (
        one.digests() == other.digests()
        and one.spec == other.spec
        and all(
            torch.equal(one.split(stage).images, other.split(stage).images)
            and torch.equal(one.split(stage).labels, other.split(stage).labels)
            for stage in STAGES
        )
    )


def entries(home: Path) -> list[Path]:
    return sorted(path for path in home.iterdir() if not path.name.startswith("."))


@pytest.fixture
def decode_no_more(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From its call on, to decode an image is an error."""

    def refuse(*_: Any) -> None:
        raise ImageError("decoded")

    return lambda: monkeypatch.setattr("mindtrace.data.folder._decode", refuse)


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("requirements", [None, InputRequirements(mode="RGB", min_side=12)])
def test_the_second_start_decodes_nothing(
    make_folder: Any,
    home: Path,
    decode_no_more: Callable[[], None],
    mode: str,
    requirements: InputRequirements | None,
) -> None:
    folder = make_folder("a", "b", mode=mode)
    expected = ready(folder, None, requirements=requirements)
    mapped = ready(folder, home, requirements=requirements)
    assert same(mapped, expected)
    grey, side = mode == "L", 16 if requirements else 8
    (entry,) = entries(home)
    shape = np.load(entry / "images.npy").shape
    assert shape == (20, 1 if grey else 3, 12 if requirements else 6, side), "grey is kept once"
    decode_no_more()
    assert same(ready(folder, home, requirements=requirements), expected)
    with pytest.raises(ImageError):
        ready(folder, None, requirements=requirements)


def test_the_key(make_folder: Any, home: Path) -> None:
    """Size and split are part of it, what the network subtracts is not."""
    folder = make_folder("a", "b")
    ready(folder, home)
    spec = ready(folder, home, requirements=InputRequirements(mean=(0.1,), std=(0.2,))).spec
    assert (spec.mean, spec.std) == ((0.1,), (0.2,))
    assert len(entries(home)) == 1
    for options in ({"image_size": 5}, {"split_seed": 1}, {"num_val": 0.3}):
        assert same(ready(folder, home, **options), ready(folder, None, **options))
    assert len(entries(home)) == 4


@pytest.mark.parametrize("change", ["touched", "added", "removed", "renamed", "swapped"])
def test_a_change_in_the_folder_is_seen_and_the_old_entry_goes(
    make_folder: Any, home: Path, change: str
) -> None:
    folder = make_folder("a", "b")
    path, other = folder / "a" / "0003.png", folder / "b" / "0001.png"
    for file in (path, other):  # of one size and time, as an archive of bitmaps leaves them
        file.write_bytes(file.read_bytes().ljust(4096, b"\0"))
        os.utime(file, (1000, 1000))
    ready(folder, home)
    ready(folder, home, image_size=5)
    if change == "touched":
        shutil.copy(folder / "b" / "0001.png", path)
        os.utime(path, ns=(0, 0))
    elif change == "added":
        shutil.copy(path, folder / "a" / "new.png")
    elif change == "removed":
        path.unlink()
    elif change == "swapped":
        path.rename(folder / "aside")
        other.rename(path)
        (folder / "aside").rename(other)
    else:
        path.rename(folder / "b" / "new.png")
    before = ready(folder, home)
    assert same(before, ready(folder, None))
    assert len(entries(home)) == 1
    assert same(ready(folder.rename(folder.with_name("moved")), home), before)
    assert len(entries(home)) == 1, "a folder that moves keeps its entry"


def _forget_about(path: Path) -> None:
    fields = json.loads(path.read_text())
    del fields["about"]
    path.write_text(json.dumps(fields))


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("images.npy", lambda path: os.truncate(path, path.stat().st_size - 1)),
        ("digests.npy", Path.unlink),
        ("manifest.json", Path.unlink),
        ("manifest.json", lambda path: path.write_text("{")),
        ("manifest.json", lambda path: path.write_text("[]")),
        ("manifest.json", _forget_about),
    ],
)
def test_a_damaged_entry_is_made_anew(
    make_folder: Any,
    home: Path,
    decode_no_more: Callable[[], None],
    name: str,
    damage: Callable[[Path], None],
) -> None:
    folder = make_folder("a", "b")
    expected = ready(folder, None)
    ready(folder, home)
    (entry,) = entries(home)
    damage(entry / name)
    assert same(ready(folder, home), expected)
    assert entries(home) == [entry]
    decode_no_more()
    assert same(ready(folder, home), expected)


def test_a_failure_leaves_nothing(make_folder: Any, home: Path) -> None:
    folder = make_folder("a", "b")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, hard))  # a full disk
    try:
        with pytest.raises(DataError, match=f"cannot keep decoded images in {home}: ") as caught:
            ready(folder, home)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "DATA" in str(caught.value.hint)
    assert [path.name for path in home.iterdir()] == [".lock"]
    broken = folder / "b" / "0007.png"
    broken.write_bytes(broken.read_bytes()[:-40])
    with pytest.raises(ImageError, match=r"b/0007\.png: damaged image"):
        ready(folder, home)
    assert [path.name for path in home.iterdir()] == [".lock"]


def test_without_a_place_to_write_the_images_are_decoded_into_memory(
    make_folder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, home = make_folder("a", "b"), tmp_path / "file" / "cache"
    (tmp_path / "file").touch()
    expected = ready(folder, None)
    data = ready(folder, home)
    assert same(data, expected)
    assert data.notes == (f"{home} cannot be written: images are decoded anew each time",)
    home = tmp_path / "cache"
    ready(folder, home)
    # Not chmod: root may write anyway.
    monkeypatch.setattr("mindtrace.data.decode.os.access", lambda *_: False)
    assert ready(folder, home).notes == (), "what is there is used"
    assert ready(folder, home, image_size=5).notes != ()


class Watcher(Progress):
    def __init__(self) -> None:
        self.waits = threading.Event()
        self.heard: list[str] = []

    def note(self, text: str) -> None:
        self.heard.append(text)

    def stage(self, text: str) -> None:
        self.heard.append(text)
        if text.startswith("waiting for another process"):
            self.waits.set()


def test_the_size_is_told_and_must_fit_before_anything_is_decoded(
    make_folder: Any, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, decoding = f"decoded images are kept in {home}: 1 MB", "decoding 20 images"
    data = ImageFolder(make_folder("a", "b"), cache_dir=home)
    data.progress = watcher = Watcher()
    data.setup()
    assert watcher.heard.index(told) < watcher.heard.index(decoding)
    full = ImageFolder(data.dir, cache_dir=home, image_size=5)
    full.progress = watcher = Watcher()
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=0))
    with pytest.raises(DataError, match="1 MB are needed, 0 MB are free"):
        full.setup()
    assert decoding not in watcher.heard and len(entries(home)) == 1


def test_builders_wait_for_each_other_and_make_one_entry(make_folder: Any, home: Path) -> None:
    folder = make_folder("a", "b")
    home.mkdir()
    several = [ImageFolder(folder, cache_dir=home) for _ in range(3)]
    threads = [threading.Thread(target=data.setup) for data in several]
    with (home / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for data, thread in zip(several, threads, strict=True):
            data.progress = watcher = Watcher()
            thread.start()
            assert watcher.waits.wait(60)
        assert entries(home) == []
    for thread in threads:
        thread.join()
    assert all(same(data, ready(folder, None)) for data in several)
    assert len(entries(home)) == 1


_KILLED = """
import os, signal, sys
from mindtrace.progress import Progress
from mindtrace.data import ImageFolder

class Killer(Progress):
    def stage(self, text):
        if text.startswith("decoding"):
            os.kill(os.getpid(), signal.SIGKILL)

data = ImageFolder(sys.argv[1], cache_dir=sys.argv[2])
data.progress = Killer()
data.setup()
"""


@pytest.mark.proof
def test_what_a_killed_builder_left_is_swept_away(make_folder: Any, home: Path) -> None:
    folder = make_folder("a", "b")
    done = subprocess.run([sys.executable, "-c", _KILLED, str(folder), str(home)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert (home / ".new").is_dir() and entries(home) == []
    assert same(ready(folder, home), ready(folder, None))
    assert len(entries(home)) == 1 and not (home / ".new").exists()
