"""Every bad input gets one clear line, its exit code, no traceback, and leaves nothing behind."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from PIL import Image
from tests.conftest import RunCli


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


@pytest.mark.parametrize("line", ["train --dry-run", "predict a.png", "registry list", "doctor"])
def test_a_working_directory_that_was_deleted(
    root: Path, run_cli: RunCli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    result = run_cli(*line.split())
    assert (result.exit_code, result.stdout) == (2, "")
    error, hint = result.stderr.splitlines()
    assert error == "error: the working directory was deleted" and hint.startswith("hint: go to")
