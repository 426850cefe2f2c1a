"""`mindtrace data check`: folders with planted faults, and the exit code of each."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.cli.conftest import error_of
from tests.conftest import RunCli


@pytest.fixture
def folder(tmp_path: Path, root: Path) -> Path:
    """6 images a class in train, 3 in val and in test, without a fault."""
    rng = np.random.default_rng(3)
    for split, count in (("train", 6), ("val", 3), ("test", 3)):
        for name in ("cat", "dog"):
            home = tmp_path / "pets" / split / name
            home.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (9, 7, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(home / f"{number}.png")
    return tmp_path / "pets"


def leak(folder: Path) -> None:
    shutil.copy(folder / "train/cat/1.png", folder / "test/cat/planted.png")


def corrupt(folder: Path) -> None:
    path = folder / "train/dog/4.png"
    path.write_bytes(path.read_bytes()[:70])


def corrupt_two(folder: Path) -> None:
    corrupt(folder)
    (folder / "val/cat/0.png").write_bytes(b"")


def remove_a_class(folder: Path) -> None:
    shutil.rmtree(folder / "val/dog")


def contradict(folder: Path) -> None:
    shutil.copy(folder / "train/cat/1.png", folder / "train/dog/planted.png")


def test_a_sound_folder(run_cli: RunCli, folder: Path, root: Path) -> None:
    before = sorted(folder.rglob("*"))
    result = run_cli("data", "check", str(folder), "--json")
    document = json.loads(result.stdout)
    assert result.exit_code == 0
    assert (document["source"], document["dir"]) == ("folder", str(folder))
    assert document["counts"]["train"] == {"cat": 6, "dog": 6}
    assert document["sizes"] == [{"height": 9, "width": 7, "images": 24}]
    assert (document["modes"], document["formats"]) == ({"RGB": 24}, {"PNG": 24})
    faults = ("unreadable", "missing_classes", "added_classes", "leakage", "conflicts")
    assert [document[name] for name in (*faults, "duplicates")] == [[]] * 6
    assert len(document["data_digest"]) == len(document["test_digest"]) == 64

    step = f"next: mindtrace train {folder}"
    assert run_cli("data", "check", str(folder)).stderr.splitlines()[-1] == step
    assert run_cli("data", "check", str(folder), "-q").stderr == ""
    assert sorted(folder.rglob("*")) == before
    assert list(root.iterdir()) == []


@pytest.mark.parametrize(
    ("plant", "code", "kind", "message", "found"),
    [
        (
            *(leak, 3, "VerdictError", "train/cat/1.png = test/cat/planted.png"),
            {"leakage": [["train/cat/1.png", "test/cat/planted.png"]]},
        ),
        (
            *(corrupt_two, 1, "DataError", "2 unreadable files in "),
            {
                "unreadable": ["train/dog/4.png", "val/cat/0.png"],
                "sizes": [{"height": 9, "width": 7, "images": 22}],
                "duplicates": [],
                "leakage": [],
                "data_digest": None,
                "test_digest": None,
            },
        ),
        (
            *(remove_a_class, 1, "DataError", "1 missing class"),
            {"missing_classes": [{"split": "val", "class_name": "dog"}]},
        ),
    ],
)
def test_a_fault(
    run_cli: RunCli,
    folder: Path,
    plant: Callable[[Path], None],
    code: int,
    kind: str,
    message: str,
    found: dict[str, Any],
) -> None:
    plant(folder)
    result = run_cli("data", "check", str(folder), "--json")
    document, error = json.loads(result.stdout), error_of(result)
    document["unreadable"] = [one["path"] for one in document["unreadable"]]
    for name in ("leakage", "conflicts"):
        document[name] = [[one["path"] for one in group["images"]] for group in document[name]]
    assert (result.exit_code, error["type"]) == (code, kind)
    assert message in error["message"]
    assert {name: document[name] for name in found} == found


def test_an_image_with_two_class_names_is_a_row_and_a_line(run_cli: RunCli, folder: Path) -> None:
    contradict(folder)
    result = run_cli("data", "check", str(folder), "--json")
    (row,) = json.loads(result.stdout)["conflicts"]
    paths = ["train/cat/1.png", "train/dog/planted.png"]
    assert (result.exit_code, [one["path"] for one in row["images"]]) == (0, paths)
    line = "note: 1 image is in more than one class, train/cat/1.png = train/dog/planted.png"
    assert line in run_cli("data", "check", str(folder)).stderr.splitlines()


def test_all_faults_are_reported_at_once(run_cli: RunCli, folder: Path) -> None:
    shutil.copy(folder / "train/cat/2.png", folder / "train/cat/again.png")
    alone = run_cli("data", "check", str(folder))
    assert alone.exit_code == 0, "twice in one split is no fault"
    assert "duplicate\ttrain\tcat\ttrain/cat/2.png\t" in alone.stdout

    for plant in (leak, corrupt, remove_a_class):
        plant(folder)
    result = run_cli("data", "check", str(folder))
    assert result.exit_code == 3
    counts, fields, findings = (part.splitlines() for part in result.stdout.split("\n\n"))
    assert counts == ["class_name\ttrain\tval\ttest", "cat\t7\t3\t4", "dog\t6\t0\t3"]
    assert f"dir\t{folder}" in fields and "images\t23" in fields
    assert findings[0] == "finding\tsplit\tclass_name\tpath\tmessage"
    kinds = [line.split("\t")[0] for line in findings[1:]]
    assert kinds == ["leakage", "unreadable", "missing", "duplicate"]
    (error, hint) = result.stderr.splitlines()[-2:]
    assert error.startswith("error: leakage: 1 image is in more than one split")
    assert error.endswith("also 1 unreadable file, 1 missing class")
    assert hint.startswith("hint: ")
    assert run_cli("data", "check", str(folder), "-q").stderr.startswith("error: leakage")


def test_the_settings_name_the_source(run_cli: RunCli, root: Path, folder: Path) -> None:
    result = run_cli("data", "check", "--set", "data.source=digits", "--json")
    assert (result.exit_code, json.loads(result.stdout)["images"]) == (0, 1797)
    ini = root / "my.ini"
    ini.write_text(f"[data]\nsource = folder\ndir = {folder}\nimage_size = 64\n")
    document = json.loads(run_cli("data", "check", "--config", str(ini), "--json").stdout)
    assert document["sizes"] == [{"height": 9, "width": 7, "images": 24}]
    missing = run_cli("data", "check", str(folder / "nowhere"))
    assert (missing.exit_code, missing.stdout, "nowhere" in missing.stderr) == (2, "", True)


@pytest.mark.parametrize("name", ["sheet.png", "sheet.JPG", "sheet.webp"])
def test_a_sheet_is_a_picture(run_cli: RunCli, folder: Path, tmp_path: Path, name: str) -> None:
    sheet = str(tmp_path / name)
    result = run_cli("data", "check", str(folder), "--sheet", sheet, "--json")
    assert (result.exit_code, json.loads(result.stdout)["sheet"]) == (0, sheet)
    with Image.open(sheet) as image:
        assert image.height == 2 * 16 + 2 * 78 - 6


def test_a_sheet_of_what_can_be_read_where_it_can_be_written(
    run_cli: RunCli, folder: Path, tmp_path: Path
) -> None:
    corrupt(folder)
    assert run_cli("data", "check", str(folder), "--sheet", str(tmp_path / "s.png")).exit_code == 1
    assert (tmp_path / "s.png").is_file()
    for path in (tmp_path / "sheet.gif", tmp_path / "nowhere" / "sheet.png"):
        result = run_cli("data", "check", str(folder), "--sheet", str(path))
        assert (result.exit_code, result.stdout, str(path) in result.stderr) == (2, "", True)
