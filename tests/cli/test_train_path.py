"""`mindtrace train PATH`: the source and the name follow from the path."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.conftest import RunCli

QUICK = ("--model=mlp", "--max-epochs=20", "--lr=0.01", "--set", "compute.threads=1")


def pets(folder: Path, *classes: str, count: int = 12) -> Path:
    rng = np.random.default_rng(5)
    lines = ["path,label,patient"]
    for place, name in enumerate(classes or ("cat", "dog")):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = (80 * place + rng.integers(0, 16, (6, 6))).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
            lines.append(f"{folder.name}/{name}/{number}.png,{name},p{number // 2}")
    folder.with_name("My labels.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.mark.parametrize(
    ("name", "model_name"),
    [
        ("pets", "pets"),
        ("2024", "2024"),
        ("my pets (new)", "my-pets-new"),
        ("süße Tiere", "sue-Tiere"),
        (".-x", "x"),
        ("図", "images"),
        ("cats@home", "cats-home"),
        ("a" * 80, "a" * 64),
        *((f"{name}{tail}", name) for name in ("0007", "v1.0") for tail in ("/", "/.", "/cat/..")),
    ],
    ids=str,
)
def test_a_model_is_named_after_its_folder(
    run_cli: RunCli, root: Path, tmp_path: Path, name: str, model_name: str
) -> None:
    pets(tmp_path / name.partition("/")[0])
    result = run_cli("train", f"{tmp_path}/{name}", "--dry-run", "--json")
    assert result.exit_code == 0, result.stderr
    plan = json.loads(result.stdout)
    assert (plan["source"], plan["model_name"]) == ("folder", model_name)


def test_a_table_by_its_stem_and_a_column_as_group(
    run_cli: RunCli, root: Path, tmp_path: Path
) -> None:
    pets(tmp_path / "pets")
    table = str(tmp_path / "My labels.csv")
    sets = ("--set", "data.group=patient")
    result = run_cli("train", table, "--dry-run", "--json", *sets)
    assert result.exit_code == 0, result.stderr
    plan = json.loads(result.stdout)
    assert (plan["source"], plan["model_name"]) == ("table", "My-labels")
    checked = run_cli("data", "check", table, *sets)
    assert checked.exit_code == 0
    assert checked.stderr.splitlines()[-1] == f"next: mindtrace train '{table}'"
    document = json.loads(run_cli("data", "check", table, "--json").stdout)
    assert (document["dir"], document["group_leakage"]) == (table, [])


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("nowhere",), 2, "no such folder"),
        (("nowhere.csv",), 2, "no such file"),
        (("pets", "--source", "digits"), 2, "both pets and --source digits name images"),
        (("My labels.csv", "--source", "table"), 0, ""),
        (("--dir", "pets"), 0, ""),
        (("--dir", "My labels.csv", "--set", "data.group=patient"), 0, ""),
        (("pets", "--dir", "pets"), 2, "both pets and --dir pets name images"),
        (
            ("--dir", "pets", "--source", "digits"),
            2,
            "is for source = folder or table, and source is",
        ),
    ],
)
def test_paths(
    run_cli: RunCli,
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    code: int,
    says: str,
) -> None:
    pets(tmp_path / "pets")
    monkeypatch.chdir(tmp_path)
    result = run_cli("train", *words, "--dry-run")
    assert result.exit_code == code, result.stderr
    assert says in result.stderr


def test_a_fault_of_a_table_is_a_line(run_cli: RunCli, root: Path, tmp_path: Path) -> None:
    pets(tmp_path / "pets")
    table = tmp_path / "My labels.csv"
    table.write_text(table.read_text().replace("cat/3.png,cat", "cat/none.png,"))
    for command in (("train",), ("train", "--dry-run"), ("data", "check")):
        result = run_cli(*command, str(table))
        assert result.exit_code == 2
        (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
        assert line == f"error: {table}:5: no label"


@pytest.mark.slow
def test_other_classes_than_the_champion_are_promoted_by_force_alone(
    run_cli: RunCli, root: Path, tmp_path: Path
) -> None:
    for folder, classes in (("a/pets", ("cat", "dog")), ("b/pets", ("cat", "dog", "emu"))):
        result = run_cli("train", str(pets(tmp_path / folder, *classes)), *QUICK)
        assert result.exit_code == 0, result.stderr
    (note,) = [line for line in result.stderr.splitlines() if "classes are not those" in line]
    assert "(added: emu; gone: none)" in note
    assert "mindtrace registry promote pets/2 --force --reason" in note
    refused = run_cli("registry", "promote", "pets/2")
    assert refused.exit_code == 2 and "different classes" in refused.stderr
    assert run_cli("registry", "show", "pets", "--json").stdout.count('"version": 1') == 1
    forced = run_cli("registry", "promote", "pets/2", "--force", "--reason", "emus came")
    assert forced.exit_code == 0, forced.stderr
