"""Images in several splits: refused alike by `train`, its dry run and `data check`."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.conftest import RunCli

from mindtrace.data.datasets import read_digits

QUICK = ("--model=mlp", "--max-epochs=1", "--set", "compute.threads=1", "--no-register")


@pytest.fixture
def folder(tmp_path: Path, root: Path) -> Path:
    """Three splits of two classes with four images each, all different."""
    rng = np.random.default_rng(4)
    for split in ("train", "val", "test"):
        for name in ("cat", "dog"):
            home = tmp_path / "pets" / split / name
            home.mkdir(parents=True)
            for number in range(4):
                Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8)).save(home / f"{number}.png")
    return tmp_path / "pets"


def one_copy(folder: Path) -> None:
    shutil.copy(folder / "train/cat/0.png", folder / "test/cat/copy.png")


def same_files(folder: Path) -> None:
    for split in ("val", "test"):
        shutil.rmtree(folder / split)
        shutil.copytree(folder / "train", folder / split)


def compressed_anew(folder: Path) -> None:
    Image.open(folder / "val/dog/1.png").save(folder / "test/dog/x.png", compress_level=0)


def other_class(folder: Path) -> None:
    shutil.copy(folder / "train/cat/0.png", folder / "test/dog/copy.png")


def test_without_a_val_of_its_own(run_cli: RunCli, folder: Path) -> None:
    """What is drawn from train comes from train: no leak between the two, one into test."""
    shutil.rmtree(folder / "val")
    shutil.copy(folder / "train/cat/0.png", folder / "train/cat/copy.png")
    sets = ("--source", "folder", "--set", f"data.dir={folder}")
    assert run_cli("train", *sets, "--dry-run").exit_code == 0
    one_copy(folder)
    assert run_cli("train", *sets, "--dry-run").exit_code == 3


def nothing(folder: Path) -> None:
    pass


def as_table(folder: Path) -> tuple[str, ...]:
    """The same images and splits in a table."""
    rows = [path.relative_to(folder.parent) for path in sorted(folder.glob("*/*/*.png"))]
    lines = [f"{row},{row.parts[2]},{row.parts[1]}" for row in rows]
    table = folder.with_suffix(".csv")
    table.write_text("\n".join(["path,label,split", *lines]))
    return "--set", "data.source=table", "--set", f"data.dir={table}"


def as_folder(folder: Path) -> tuple[str, ...]:
    return "--set", "data.source=folder", "--set", f"data.dir={folder}"


def as_tree(folder: Path) -> tuple[str, ...]:
    """Without the splits, which are drawn."""
    tree = folder.with_name("tree")
    for path in folder.glob("*/*"):
        shutil.copytree(path, tree / path.name / path.parent.name)
    return as_folder(tree)


def as_digits(folder: Path) -> tuple[str, ...]:
    return ("--set", "data.source=digits")


BY_NUMBER = ("--set", r"data.group=(\d)\.png")
SAID = {
    "a copy": (one_copy, as_folder, (), 3, "1 image is in more than one split"),
    "all of them": (same_files, as_folder, (), 3, "8 images are in more than one split"),
    "the pixels": (compressed_anew, as_folder, (), 3, "1 image is in more than one split"),
    "another class": (other_class, as_folder, (), 3, "1 image is in more than one split"),
    "in a table": (same_files, as_table, (), 3, "8 images are in more than one split"),
    "groups": (nothing, as_folder, BY_NUMBER, 3, "4 groups are in more than one split"),
    "drawn together": (one_copy, as_tree, (), 0, None),
    "contradictory": (other_class, as_tree, (), 0, "1 image is in more than one class"),
    "the source's own": (nothing, as_digits, (), 0, "1 image is in more than one split"),
}


@pytest.mark.parametrize(("plant", "given", "sets", "code", "words"), SAID.values(), ids=SAID)
def test_all_three_say_the_same(
    run_cli: RunCli,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    plant: Callable[[Path], None],
    given: Callable[[Path], tuple[str, ...]],
    sets: tuple[str, ...],
    code: int,
    words: str | None,
) -> None:
    plant(folder)
    images, labels = read_digits()
    images[-2:] = images[:2]
    monkeypatch.setattr("mindtrace.data.datasets.read_digits", lambda: (images, labels))
    sets = (*given(folder), *sets)
    commands = (("data", "check"), ("train", "--dry-run"), ("train", *QUICK))
    ends = [run_cli(*command, *sets) for command in commands]
    assert [end.exit_code for end in ends] == [code] * 3, ends[2].stderr
    said = {tuple(re.findall(r"\d+ \w+ (?:is|are) in more than .*", end.stderr)) for end in ends}
    (lines,) = said
    heads = {line.partition(",")[0] for line in lines}
    assert words in heads if words else not heads
    if code:
        errors, hints = zip(*(end.stderr.splitlines()[-2:] for end in ends), strict=True)
        assert len(set(errors)) == 1 and errors[0].startswith("error: leakage: ")
        assert all("--allow-leakage" in hint for hint in hints)
        accepted = [run_cli(*command, *sets, "--allow-leakage") for command in commands]
        assert [one.exit_code for one in accepted] == [0, 0, 0], accepted[2].stderr


def test_a_count_is_refused_where_images_are_drawn_one_by_one(
    run_cli: RunCli, folder: Path
) -> None:
    shutil.rmtree(folder / "val")
    sets = ("--set", "data.source=folder", "--set", f"data.dir={folder}", "--set", "data.num_val=2")
    for command in (("train",), ("train", "--dry-run"), ("data", "check")):
        result = run_cli(*command, *sets)
        assert result.exit_code == 2
        assert "[data] num_val = 2: must be fractions" in result.stderr
