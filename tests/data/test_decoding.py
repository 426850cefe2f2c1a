from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mindtrace.data.decoding import decode_files, inspect_files, processes_worth
from mindtrace.errors import ImageError
from mindtrace.preprocess import ImageSpec, decode, image_digest

SPEC = ImageSpec("RGB", 5, 4, (0.0,) * 3, (1.0,) * 3)


@pytest.fixture
def paths(make_folder: Any) -> list[Path]:
    """620 images, so that a child has more than one block."""
    make_folder("grey", count=600)
    return sorted(make_folder("colour", count=20, mode="RGB", size=(9, 7)).rglob("*.png"))


def test_children_give_what_this_process_gives(paths: list[Path]) -> None:
    facts = inspect_files(paths, 1)
    assert facts.grey.tolist() == [False] * 20 + [True] * 600
    assert facts.sizes.tolist() == [[9, 7]] * 20 + [[6, 8]] * 600
    shared = inspect_files(paths, 2)
    assert np.array_equal(shared.grey, facts.grey) and np.array_equal(shared.sizes, facts.sizes)
    here, there = (decode_files(paths, facts, SPEC, workers) for workers in (1, 2))
    assert np.array_equal(here.pixels, there.pixels)
    assert here.digests == there.digests
    for path, pixels in zip(paths, here.pixels, strict=True):
        assert np.array_equal(pixels, decode(path.read_bytes(), SPEC))


def test_digests_are_of_the_images_as_they_came(paths: list[Path]) -> None:
    facts = inspect_files(paths, 1)
    grey = ImageSpec("L", 6, 8, (0.0,), (1.0,))
    own = decode_files(paths[20:], inspect_files(paths[20:], 1), grey, 1)
    assert own.digests == [image_digest(pixels) for pixels in own.pixels]
    assert decode_files(paths, facts, SPEC, 1).digests[20:] == own.digests


@pytest.mark.parametrize("workers", [1, 3])
def test_the_file_that_cannot_be_read_is_named(paths: list[Path], workers: int) -> None:
    facts = inspect_files(paths, 1)
    broken = paths[400]
    broken.write_bytes(broken.read_bytes()[:60])
    with pytest.raises(ImageError) as caught:
        decode_files(paths, facts, SPEC, workers)
    assert str(caught.value).startswith(f"{broken}: damaged image")
    broken.write_bytes(b"no image")
    with pytest.raises(ImageError) as caught:
        inspect_files(paths, workers)
    assert str(caught.value).startswith(f"{broken}: not an image")
    assert caught.value.hint == "PNG, JPEG and WebP are read"


def test_more_processes_than_files(paths: list[Path]) -> None:
    assert len(inspect_files(paths[:2], 8).grey) == 2
    assert len(inspect_files(paths[:1], 8).grey) == 1


def test_few_files_are_not_worth_a_process() -> None:
    assert processes_worth(1_000, 28 * 28 * 1_000, 8) == 1
    assert processes_worth(70_000, 28 * 28 * 70_000, 8) == 8
    assert processes_worth(50, 12_000_000 * 50, 8) == 8
    assert processes_worth(3, 12_000_000 * 50, 8) == 3
    assert processes_worth(70_000, 0, 1) == 1


def test_a_child_needs_no_torch() -> None:
    code = "import sys, mindtrace.data.decoding; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_module_of_the_working_directory_does_not_stand_in(
    paths: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "numpy.py").write_text("raise SystemExit(9)")
    monkeypatch.chdir(tmp_path)
    assert len(inspect_files(paths, 2).grey) == 620
