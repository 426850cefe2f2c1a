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

RunCli = Callable[..., Any]
FIELDS = {
    *("schema_version", "source", "dir", "images", "class_names", "counts", "sizes", "modes"),
    *("formats", "unreadable", "missing_classes", "added_classes", "leakage", "conflicts"),
    *("duplicates", "notes", "data_digest", "test_digest", "sheet"),
}


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


def plant_leakage(folder: Path) -> None:
    shutil.copy(folder / "train/cat/1.png", folder / "test/cat/planted.png")


def plant_corruption(folder: Path) -> None:
    path = folder / "train/dog/4.png"
    path.write_bytes(path.read_bytes()[:70])


def remove_a_class(folder: Path) -> None:
    shutil.rmtree(folder / "val/dog")


def as_json(result: Any) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(result.stdout)
    return document


def error_of(result: Any) -> dict[str, Any]:
    error: dict[str, Any] = json.loads(result.stderr.splitlines()[-1])["error"]
    return error


def test_a_sound_folder(run_cli: RunCli, folder: Path) -> None:
    result = run_cli("data", "check", str(folder), "--json")
    assert result.exit_code == 0
    document = as_json(result)
    assert set(document) >= FIELDS and document["schema_version"] == 1
    assert (document["source"], document["dir"]) == ("folder", str(folder))
    assert document["counts"]["train"] == {"cat": 6, "dog": 6}
    assert document["sizes"] == [{"height": 9, "width": 7, "images": 24}]
    assert (document["modes"], document["formats"]) == ({"RGB": 24}, {"PNG": 24})
    for name in ("unreadable", "missing_classes", "added_classes", "leakage", "conflicts"):
        assert document[name] == []
    assert len(document["data_digest"]) == len(document["test_digest"]) == 64


def test_leakage_is_exit_3(run_cli: RunCli, folder: Path) -> None:
    plant_leakage(folder)
    result = run_cli("data", "check", str(folder), "--json")
    assert result.exit_code == 3
    (group,) = as_json(result)["leakage"]
    assert [one["path"] for one in group["images"]] == ["train/cat/1.png", "test/cat/planted.png"]
    assert error_of(result)["type"] == "VerdictError"
    assert "train/cat/1.png = test/cat/planted.png" in error_of(result)["message"]


def test_a_corrupt_file_is_exit_1(run_cli: RunCli, folder: Path) -> None:
    plant_corruption(folder)
    (folder / "val/cat/0.png").write_bytes(b"")
    result = run_cli("data", "check", str(folder), "--json")
    assert result.exit_code == 1
    document = as_json(result)
    assert [one["path"] for one in document["unreadable"]] == ["train/dog/4.png", "val/cat/0.png"]
    assert document["unreadable"][1]["message"] == "not an image: the file is empty"
    assert document["data_digest"] is None
    assert error_of(result)["message"] == f"2 unreadable files in {folder}"


def test_a_missing_class_is_exit_1(run_cli: RunCli, folder: Path) -> None:
    remove_a_class(folder)
    result = run_cli("data", "check", str(folder), "--json")
    assert result.exit_code == 1
    assert as_json(result)["missing_classes"] == [{"split": "val", "class_name": "dog"}]
    assert error_of(result)["type"] == "DataError"


def test_one_image_with_two_class_names_is_exit_1(run_cli: RunCli, folder: Path) -> None:
    shutil.copy(folder / "train/cat/1.png", folder / "train/dog/planted.png")
    result = run_cli("data", "check", str(folder), "--json")
    assert result.exit_code == 1
    assert len(as_json(result)["conflicts"]) == 1


def test_an_image_twice_in_one_split_is_only_told(run_cli: RunCli, folder: Path) -> None:
    shutil.copy(folder / "train/cat/1.png", folder / "train/cat/again.png")
    result = run_cli("data", "check", str(folder))
    assert result.exit_code == 0
    assert "duplicate\ttrain\tcat\ttrain/cat/1.png\t" in result.stdout


def test_all_faults_are_told_at_once(run_cli: RunCli, folder: Path) -> None:
    for plant in (plant_leakage, plant_corruption, remove_a_class):
        plant(folder)
    result = run_cli("data", "check", str(folder))
    assert result.exit_code == 3
    counts, fields, findings = (part.splitlines() for part in result.stdout.split("\n\n"))
    assert counts == ["class_name\ttrain\tval\ttest", "cat\t6\t3\t4", "dog\t6\t0\t3"]
    assert f"dir\t{folder}" in fields and "images\t22" in fields
    assert findings[0] == "finding\tsplit\tclass_name\tpath\tmessage"
    assert [line.split("\t")[0] for line in findings[1:]] == ["leakage", "unreadable", "missing"]
    (error, hint) = result.stderr.splitlines()[-2:]
    assert error.startswith("error: leakage: 1 image is in more than one split")
    assert error.endswith("also 1 unreadable file, 1 missing class")
    assert hint.startswith("hint: ")


def test_a_sound_folder_leads_to_a_training(run_cli: RunCli, folder: Path) -> None:
    result = run_cli("data", "check", str(folder))
    assert result.exit_code == 0
    step = f"next: mindtrace train --source folder --set data.dir={folder}"
    assert result.stderr.splitlines()[-1] == step


def test_the_settings_name_the_source(run_cli: RunCli, root: Path, folder: Path) -> None:
    result = run_cli("data", "check", "--set", "data.source=digits", "--json")
    assert (result.exit_code, as_json(result)["images"]) == (0, 1797)
    ini = root / "my.ini"
    ini.write_text(f"[data]\nsource = folder\ndir = {folder}\nimage_size = 64\n")
    document = as_json(run_cli("data", "check", "--config", str(ini), "--json"))
    assert document["sizes"] == [{"height": 9, "width": 7, "images": 24}]


@pytest.mark.parametrize("name", ["sheet.png", "sheet.JPG", "sheet.webp"])
def test_a_sheet_is_a_picture(run_cli: RunCli, folder: Path, tmp_path: Path, name: str) -> None:
    result = run_cli("data", "check", str(folder), "--sheet", str(tmp_path / name), "--json")
    assert (result.exit_code, as_json(result)["sheet"]) == (0, str(tmp_path / name))
    with Image.open(tmp_path / name) as sheet:
        assert sheet.height == 2 * 16 + 2 * 78 - 6


def test_a_sheet_is_drawn_of_what_can_be_read(
    run_cli: RunCli, folder: Path, tmp_path: Path
) -> None:
    plant_corruption(folder)
    assert run_cli("data", "check", str(folder), "--sheet", str(tmp_path / "s.png")).exit_code == 1
    assert (tmp_path / "s.png").is_file()


def test_a_sheet_that_cannot_be_written(run_cli: RunCli, folder: Path, tmp_path: Path) -> None:
    for path in (tmp_path / "sheet.gif", tmp_path / "nowhere" / "sheet.png"):
        result = run_cli("data", "check", str(folder), "--sheet", str(path))
        assert (result.exit_code, result.stdout) == (2, "")
        assert str(path) in result.stderr


def test_a_folder_that_is_not_there(run_cli: RunCli, root: Path, tmp_path: Path) -> None:
    result = run_cli("data", "check", str(tmp_path / "nowhere"))
    assert (result.exit_code, result.stdout) == (2, "")
    assert "nowhere" in result.stderr


def test_quiet_leaves_results_and_errors(run_cli: RunCli, folder: Path) -> None:
    result = run_cli("data", "check", str(folder), "-q")
    assert (result.exit_code, result.stderr) == (0, "")
    plant_leakage(folder)
    assert run_cli("data", "check", str(folder), "-q").stderr.startswith("error: leakage")


def test_nothing_is_written_by_a_check(run_cli: RunCli, folder: Path, root: Path) -> None:
    before = sorted(folder.rglob("*"))
    run_cli("data", "check", str(folder))
    assert sorted(folder.rglob("*")) == before
    assert list(root.iterdir()) == []
