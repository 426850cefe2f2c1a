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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mindtrace.config.settings import load_settings
from mindtrace.data import ImageFolder, InputRequirements, build_data
from mindtrace.errors import DataError, ImageError
from mindtrace.progress import Progress

STAGES = ("train", "val", "test")


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


def scramble(path: Path) -> None:
    """Make a file unreadable in a way that its size and its time do not show."""
    before = path.stat()
    path.write_bytes(bytes(before.st_size))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("demand", [None, InputRequirements(mode="RGB", min_side=12)])
def test_the_second_start_decodes_nothing(
    make_folder: Any, home: Path, mode: str, demand: InputRequirements | None
) -> None:
    folder = make_folder("a", "b", mode=mode)
    expected = ready(folder, None, demand=demand)
    assert same(ready(folder, home, demand=demand), expected)
    for path in folder.rglob("*.png"):
        scramble(path)
    assert same(ready(folder, home, demand=demand), expected)
    with pytest.raises(ImageError):
        ready(folder, None, demand=demand)


def test_grey_images_take_one_channel_for_a_colour_network(make_folder: Any, home: Path) -> None:
    ready(make_folder("a", "b"), home, demand=InputRequirements(mode="RGB"))
    assert np.load(entries(home)[0] / "images.npy").shape == (20, 1, 6, 8)


def test_batches_come_from_a_mapped_file(make_folder: Any, home: Path) -> None:
    folder = make_folder("a", "b")
    plain, mapped = ready(folder, None), ready(folder, home)
    assert mapped.split("train").images.data_ptr() != plain.split("train").images.data_ptr()
    for (x, y), (u, v) in zip(plain.train_dataloader(), mapped.train_dataloader(), strict=True):
        assert torch.equal(x, u) and torch.equal(y, v)
    assert torch.equal(plain.sample("test", 2)[0], mapped.sample("test", 2)[0])


def test_what_the_network_subtracts_is_not_part_of_the_key(make_folder: Any, home: Path) -> None:
    folder = make_folder("a", "b")
    ready(folder, home)
    spec = ready(folder, home, demand=InputRequirements(mean=(0.1,), std=(0.2,))).spec
    assert (spec.mean, spec.std) == ((0.1,), (0.2,))
    assert len(entries(home)) == 1


def test_other_sizes_and_splits_have_entries_of_their_own(make_folder: Any, home: Path) -> None:
    folder = make_folder("a", "b")
    for options in ({}, {"image_size": 5}, {"split_seed": 1}, {"num_val": 3}):
        assert same(ready(folder, home, **options), ready(folder, None, **options))
    assert len(entries(home)) == 4


@pytest.mark.parametrize("change", ["touched", "added", "removed", "renamed"])
def test_a_change_in_the_folder_is_seen_and_the_old_entry_goes(
    make_folder: Any, home: Path, change: str
) -> None:
    folder = make_folder("a", "b")
    ready(folder, home)
    ready(folder, home, image_size=5)
    path = folder / "a" / "0003.png"
    if change == "touched":
        shutil.copy(folder / "b" / "0001.png", path)
        os.utime(path, ns=(0, 0))
    elif change == "added":
        shutil.copy(path, folder / "a" / "new.png")
    elif change == "removed":
        path.unlink()
    else:
        path.rename(folder / "b" / "new.png")
    assert same(ready(folder, home), ready(folder, None))
    assert len(entries(home)) == 1


def test_a_folder_that_moves_keeps_its_entry(make_folder: Any, home: Path, tmp_path: Path) -> None:
    folder = make_folder("a", "b")
    before = ready(folder, home)
    assert same(ready(folder.rename(tmp_path / "moved"), home), before)
    assert len(entries(home)) == 1


def _shorten(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def _forget_about(path: Path) -> None:
    fields = json.loads(path.read_text())
    del fields["about"]
    path.write_text(json.dumps(fields))


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("images.npy", _shorten),
        ("images.npy", Path.unlink),
        ("digests.npy", _flip),
        ("manifest.json", _shorten),
        ("manifest.json", Path.unlink),
        ("manifest.json", lambda path: path.write_text("[]")),
        ("manifest.json", _forget_about),
    ],
)
def test_a_damaged_entry_is_made_anew(
    make_folder: Any, home: Path, name: str, damage: Callable[[Path], None]
) -> None:
    folder = make_folder("a", "b")
    expected = ready(folder, None)
    ready(folder, home)
    (entry,) = entries(home)
    damage(entry / name)
    assert same(ready(folder, home), expected)
    assert entries(home) == [entry]
    scramble(folder / "a" / "0003.png")
    assert same(ready(folder, home), expected)


def test_an_image_that_cannot_be_read_leaves_nothing(make_folder: Any, home: Path) -> None:
    folder = make_folder("a", "b")
    broken = folder / "b" / "0007.png"
    broken.write_bytes(broken.read_bytes()[:-40])
    with pytest.raises(ImageError, match=r"b/0007\.png: damaged image"):
        ready(folder, home)
    assert [path.name for path in home.iterdir()] == [".lock"]


def test_a_disk_without_room_is_one_line(make_folder: Any, home: Path) -> None:
    folder = make_folder("a", "b")
    with (
        _largest_file(500),
        pytest.raises(DataError, match=f"cannot keep decoded images in {home}: ") as caught,
    ):
        ready(folder, home)
    assert "DATA" in str(caught.value.hint)
    assert [path.name for path in home.iterdir()] == [".lock"]


@contextmanager
def _largest_file(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_without_a_place_to_write_the_images_are_decoded_into_memory(
    make_folder: Any, tmp_path: Path
) -> None:
    folder = make_folder("a", "b")
    (tmp_path / "file").touch()
    data = ready(folder, tmp_path / "file" / "cache")
    assert same(data, ready(folder, None))
    assert data.notes == (
        f"{tmp_path / 'file' / 'cache'} cannot be written: images are decoded anew each time",
    )


class Watcher(Progress):
    def __init__(self) -> None:
        self.waits = threading.Event()

    def stage(self, text: str) -> None:
        if text.startswith("waiting for another process"):
            self.waits.set()


def test_a_second_builder_waits_for_the_first(make_folder: Any, home: Path) -> None:
    folder = make_folder("a", "b")
    expected = ready(folder, None)
    home.mkdir()
    data = ImageFolder(folder, cache_dir=home)
    data.progress = watcher = Watcher()
    with (home / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting = threading.Thread(target=data.setup)
        waiting.start()
        assert watcher.waits.wait(60)
        assert entries(home) == []
    waiting.join()
    assert same(data, expected)


def test_builders_at_one_time_make_one_entry(make_folder: Any, home: Path) -> None:
    folder = make_folder("a", "b", count=40)
    several = [ImageFolder(folder, cache_dir=home) for _ in range(4)]
    threads = [threading.Thread(target=data.setup) for data in several]
    for thread in threads:
        thread.start()
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


@pytest.mark.slow
def test_what_a_killed_builder_left_is_swept_away(make_folder: Any, home: Path) -> None:
    folder = make_folder("a", "b")
    done = subprocess.run([sys.executable, "-c", _KILLED, str(folder), str(home)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert (home / ".new").is_dir() and entries(home) == []
    assert same(ready(folder, home), ready(folder, None))
    assert len(entries(home)) == 1 and not (home / ".new").exists()


def test_settings_keep_it_below_data(root: Path, make_folder: Any) -> None:
    sets = ("data.source=folder", f"data.dir={make_folder('a', 'b')}")
    build_data(load_settings(sets=sets)).setup()
    assert len(entries(root / "data" / "cache")) == 1
