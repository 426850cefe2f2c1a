from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mindtrace.data.decode import FACTS, decode_files, examine_files, read_headers, workers_for
from mindtrace.errors import ImageError
from mindtrace.preprocess import ImageSpec, decode, image_digest

SPEC = ImageSpec("RGB", 5, 4, (0.0,) * 3, (1.0,) * 3)


Arrays = tuple[NDArray[np.uint8], NDArray[np.uint8]]


def inspect(paths: list[str], workers: int = 1) -> NDArray[Any]:
    return read_headers(paths, workers, lambda done: None)


def decoded(paths: list[str], spec: ImageSpec, workers: int = 1) -> Arrays:
    """Images and digests."""
    images = np.empty((len(paths), spec.channels, spec.height, spec.width), np.uint8)
    digests = np.empty((len(paths), 32), np.uint8)
    grey = inspect(paths)["grey"].tolist()
    decode_files(paths, grey, spec, images, digests, workers, lambda done: None)
    return images, digests


@pytest.fixture
def paths(make_folder: Any) -> list[str]:
    """620 images, so that a child has more than one block."""
    make_folder("grey", count=600)
    folder = make_folder("colour", count=20, mode="RGB", size=(9, 7))
    return sorted(str(path) for path in folder.rglob("*.png"))


def test_children_give_what_this_process_gives(paths: list[str]) -> None:
    facts = inspect(paths)
    assert facts["grey"].tolist() == [False] * 20 + [True] * 600
    assert facts[["height", "width"]].tolist() == [(9, 7)] * 20 + [(6, 8)] * 600
    assert np.array_equal(inspect(paths, 2), facts)
    here, there = (decoded(paths, SPEC, workers) for workers in (1, 2))
    assert np.array_equal(here[0], there[0]) and np.array_equal(here[1], there[1])
    for path, pixels in zip(paths, here[0], strict=True):
        assert np.array_equal(pixels.transpose(1, 2, 0), decode(Path(path).read_bytes(), SPEC))


def test_digests_are_of_the_images_as_they_came(paths: list[str]) -> None:
    grey = ImageSpec("L", 6, 8, (0.0,), (1.0,))
    images, digests = decoded(paths[20:], grey)
    assert [row.tobytes() for row in digests] == [image_digest(image[0]) for image in images]
    assert np.array_equal(decoded(paths, SPEC)[1][20:], digests)


@pytest.mark.parametrize("workers", [1, 3])
def test_the_file_that_cannot_be_read_is_named(paths: list[str], workers: int) -> None:
    broken = Path(paths[400])
    whole = broken.read_bytes()
    broken.write_bytes(whole[:60])
    with pytest.raises(ImageError) as caught:
        decoded(paths, SPEC, workers)
    assert str(caught.value).startswith(f"{broken}: damaged image")
    broken.write_bytes(b"no image")
    with pytest.raises(ImageError) as caught:
        inspect(paths, workers)
    assert str(caught.value).startswith(f"{broken}: not an image")
    assert caught.value.hint == "PNG, JPEG and WebP are read"


@pytest.mark.parametrize("workers", [1, 2])
def test_who_watches_is_told_up_to_the_end(paths: list[str], workers: int) -> None:
    told: list[int] = []
    read_headers(paths, workers, told.append)
    assert told == sorted(told) and told[-1] == 620


@pytest.mark.parametrize("workers", [1, 2])
def test_a_bad_file_stops_no_examination(paths: list[str], workers: int) -> None:
    Path(paths[1]).write_bytes(Path(paths[1]).read_bytes()[:90])
    Path(paths[300]).write_bytes(b"no image")
    found = examine_files([*paths, "gone.png"], workers, lambda done: None)
    assert found.dtype == FACTS
    bad = [place for place, error in enumerate(found["error"]) if error]
    assert bad == [1, 300, 620]
    assert found["error"][300] == b"not an image: 8 bytes that begin with b'no image'"
    assert found["error"][620] == b"No such file or directory"
    good = found[[place for place in range(620) if place not in bad]]
    assert set(good["mode"].tolist()) == {b"L", b"RGB"}
    assert (found["height"][0], found["width"][0], found["mode"][0]) == (9, 7, b"RGB")
    kept = [path for place, path in enumerate(paths) if place not in bad]
    assert np.array_equal(good["digest"], decoded(kept, SPEC)[1])


def test_more_processes_than_files(paths: list[Path]) -> None:
    assert len(inspect(paths[:2], 8)) == 2
    assert len(inspect(paths[:1], 8)) == 1


def test_few_files_are_not_worth_a_process() -> None:
    assert workers_for(1_000, 28 * 28 * 1_000, 8) == 1
    assert workers_for(70_000, 28 * 28 * 70_000, 8) == 8
    assert workers_for(50, 12_000_000 * 50, 8) == 8
    assert workers_for(3, 12_000_000 * 50, 8) == 3
    assert workers_for(70_000, 0, 1) == 1


def test_a_child_needs_no_torch() -> None:
    code = "import sys, mindtrace.data.decode; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_module_of_the_working_directory_does_not_stand_in(
    paths: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "numpy.py").write_text("raise SystemExit(9)")
    monkeypatch.chdir(tmp_path)
    assert len(inspect(paths, 2)) == 620
