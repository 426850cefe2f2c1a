"""Every bad input gets one clear line, its exit code, no traceback, and leaves nothing behind."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from PIL import Image
from tests.cli.conftest import documents
from tests.conftest import Mindtrace, RunCli


@pytest.mark.slow
def test_a_file_in_the_middle_of_a_folder_that_is_no_image(
    root: Path, run_cli: RunCli, tmp_path: Path
) -> None:
    folder = tmp_path / "images"
    for number, name in enumerate(("cat", "dog") * 8):
        (folder / name).mkdir(parents=True, exist_ok=True)
        Image.new("L", (12, 12), number * 9).save(folder / name / f"{number}.png")
    (folder / "dog/3.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing of the kind")
    result = run_cli("train", str(folder))
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
