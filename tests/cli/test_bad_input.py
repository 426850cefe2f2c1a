"""Every bad input gets one clear line, its exit code, no traceback, and leaves nothing behind."""

from __future__ import annotations

import socket
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.cli.conftest import documents, error_of
from tests.conftest import Mindtrace, RunCli


@pytest.fixture
def ini(tmp_path: Path) -> Path:
    """Settings that name a folder of two classes with eight random images each."""
    random = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for index in range(8):
            image = Image.fromarray(random.integers(0, 256, (12, 12), np.uint8))
            image.save(tmp_path / "images" / name / f"{index}.png")
    file = tmp_path / "cfg.ini"
    file.write_text("[data]\nsource = folder\ndir = images\n", encoding="utf-8")
    return file


def test_a_faulty_configuration_names_every_line(root: Path, run_cli: RunCli, ini: Path) -> None:
    ini.write_text("[train]\nepochs = 3\nlr = -1\n\n[modle]\nname = cnn\n")
    result = run_cli("train", "--config", str(ini))
    assert (result.exit_code, result.stdout) == (2, "")
    assert [line.partition(": ")[2].partition(": ")[0] for line in result.stderr.splitlines()] == [
        *(f"{ini}:{number}" for number in (2, 3, 5)),
        "mindtrace config init - shows every key, its default and what it takes",
    ]
    faults = error_of(run_cli("train", "--config", str(ini), "--json"))["faults"]
    assert [(fault["file"], fault["line"]) for fault in faults] == [
        (str(ini), n) for n in (2, 3, 5)
    ]
    assert list(root.iterdir()) == []


def test_a_missing_folder(root: Path, run_cli: RunCli, ini: Path) -> None:
    result = run_cli("train", "--config", str(ini), "--set", "data.dir=nowhere")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("error: [data] dir = ") and "nowhere" in result.stderr


@pytest.mark.slow
def test_a_file_in_the_middle_of_a_folder_that_is_no_image(
    root: Path, run_cli: RunCli, ini: Path
) -> None:
    (ini.parent / "images/dog/3.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing of the kind")
    result = run_cli("train", "--config", str(ini))
    assert (result.exit_code, result.stdout, "3.png" in result.stderr) == (1, "", True)
    assert not (root / "mlflow.db").exists()


@pytest.mark.slow
def test_no_network(root: Path, run_cli: RunCli) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        mirror = f"http://127.0.0.1:{closed.getsockname()[1]}/"
    result = run_cli("train", "--source", "mnist", "--set", f"data.mirror={mirror}")
    assert (result.exit_code, "Traceback" in result.stderr) == (1, False)
    assert all(remedy in result.stderr for remedy in ("mirror", "MNIST", "digits"))
    assert not list(root.rglob("*ubyte*"))
    assert not (root / "mlflow.db").exists()


@pytest.mark.slow
def test_a_root_that_cannot_be_written(run_cli: RunCli, tmp_path: Path) -> None:
    # A file in its place: that stops root as well, whom no permission stops.
    (tmp_path / "root").write_text("a file")
    result = run_cli("train", "--source", "digits", "--set", f"DIR_PATHS.ROOT={tmp_path / 'root'}")
    assert (result.exit_code, "Traceback" in result.stderr) == (1, False)
    assert str(tmp_path / "root") in result.stderr


@pytest.mark.proof
def test_a_root_with_spaces_and_umlauts_simply_works(mindtrace: Mindtrace, tmp_path: Path) -> None:
    env = {"DIR_PATHS__ROOT": str(tmp_path / "Wörter und Räume %20 #1")}
    trained = mindtrace("train", "--source", "digits", "--max-epochs", "2", "--json", env=env)
    assert trained.returncode == 0, trained.stderr
    image = tmp_path / "zwölf Ziffern.png"
    Image.new("L", (8, 8), 90).save(image)
    predicted = mindtrace("predict", str(image), "--json", env=env)
    assert predicted.returncode == 0, predicted.stderr
    assert documents(predicted.stdout)[0]["version"] == 1
    shown = mindtrace("registry", "show", "digits", "--json", env=env)
    assert documents(shown.stdout)[0]["files"]
    assert not list(Path.cwd().glob("mlruns"))
