"""Every bad input gets one clear line, its exit code, no traceback, and leaves nothing behind."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

RunCli = Callable[..., Any]

PNG = b"\x89PNG\r\n\x1a\n"


def ini(folder: Path, text: str) -> str:
    file = folder / "cfg.ini"
    file.write_text(text, encoding="utf-8")
    return str(file)


def classes(folder: Path, **counts: int) -> Path:
    """A folder of classes with so many random images each."""
    random = np.random.default_rng(0)
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for index in range(count):
            pixels = random.integers(0, 256, (12, 12), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index}.png")
    return folder


def demand(result: Any, code: int, *parts: str) -> None:
    """The exit code, all parts on stderr, nothing on stdout, no traceback."""
    assert result.exit_code == code, result.output
    for part in parts:
        assert part in result.stderr
    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.output


def test_a_missing_configuration(root: Path, run_cli: RunCli, tmp_path: Path) -> None:
    missing = str(tmp_path / "nowhere.ini")
    demand(run_cli("train", "--config", missing), 2, missing)


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("[train\nlr = 1\n", 1, "[train"),
        ("[train]\nlr\n", 2, "lr"),
        ("[train]\nmax_epoch = 3\n", 2, "did you mean 'max_epochs'"),
        ("[trian]\nlr = 1\n", 1, "did you mean [train]"),
        ("[train]\nmax_epochs = -3\n", 2, "must be 1 or more"),
        ("[train]\nlr = fast\n", 2, "fast"),
        ("[data]\nsource = minst\n", 2, "did you mean 'mnist'"),
    ],
    ids=["broken", "no value", "key", "section", "range", "number", "choice"],
)
def test_a_faulty_configuration_names_its_line(
    root: Path, run_cli: RunCli, tmp_path: Path, text: str, line: int, said: str
) -> None:
    file = ini(tmp_path, text)
    demand(run_cli("train", "--config", file), 2, f"{file}:{line}:", said)
    assert list(root.iterdir()) == []


def test_all_faults_come_at_once_and_as_json_too(
    root: Path, run_cli: RunCli, tmp_path: Path
) -> None:
    file = ini(tmp_path, "[train]\nepochs = 3\nlr = -1\n\n[modle]\nname = cnn\n")
    result = run_cli("train", "--config", file, "--json")

    assert result.exit_code == 2
    faults = json.loads(result.stderr.splitlines()[-1])["error"]["faults"]
    assert [fault["line"] for fault in faults] == [2, 3, 5]
    assert all(fault["file"] == file for fault in faults)


def test_a_missing_folder(root: Path, run_cli: RunCli, tmp_path: Path) -> None:
    file = ini(tmp_path, "[data]\nsource = folder\ndir = nowhere\n")
    demand(run_cli("train", "--config", file), 2, "[data] dir", "nowhere")


@pytest.mark.slow
def test_an_empty_class(root: Path, run_cli: RunCli, tmp_path: Path) -> None:
    classes(tmp_path / "images", cat=8, dog=8)
    (tmp_path / "images" / "bird").mkdir()
    file = ini(tmp_path, "[data]\nsource = folder\ndir = images\n")
    demand(run_cli("train", "--config", file), 2, "bird")


@pytest.mark.slow
def test_a_file_in_the_middle_of_a_folder_that_is_no_image(
    root: Path, mindtrace: Callable[..., Any], tmp_path: Path
) -> None:
    classes(tmp_path / "images", cat=8, dog=8)
    (tmp_path / "images" / "dog" / "3.png").write_bytes(PNG + b"nothing of the kind")
    file = ini(tmp_path, "[data]\nsource = folder\ndir = images\n")
    result = mindtrace("train", "--config", file)

    assert result.returncode == 1, result.stderr
    assert "3.png" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (root / "mlflow.db").exists()


@pytest.mark.parametrize(
    "damage",
    [b"", b"plain text", PNG + b"\0" * 40],
    ids=["empty", "text", "header only"],
)
def test_a_file_that_is_no_image_is_a_row_and_the_others_go_on(
    trained: Path, run_cli: RunCli, tmp_path: Path, damage: bytes
) -> None:
    bad, good = tmp_path / "bad.png", tmp_path / "good.png"
    bad.write_bytes(damage)
    Image.new("L", (8, 8), 100).save(good)
    result = run_cli(
        "predict", str(bad), str(good), "--json", env={"DIR_PATHS__ROOT": str(trained)}
    )

    assert result.exit_code == 1
    first, second = (json.loads(line) for line in result.stdout.splitlines())
    assert first["path"] == str(bad)
    assert first["error"]["type"] == "ImageError"
    assert second["label"] in range(10)


def test_a_truncated_image(trained: Path, run_cli: RunCli, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole.png", tmp_path / "cut.png"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
    Image.fromarray(noise).save(whole)
    cut.write_bytes(whole.read_bytes()[:1500])
    result = run_cli("predict", str(cut), "--json", env={"DIR_PATHS__ROOT": str(trained)})

    assert result.exit_code == 1
    assert "damaged" in json.loads(result.stdout)["error"]["message"]


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("digit", "did you mean 'digits'"),
        ("digits/99", "digits/1"),
        ("digits@champoin", "did you mean 'digits@champion'"),
    ],
    ids=["model", "version", "alias"],
)
def test_what_does_not_exist_is_named_beside_what_does(
    trained: Path, run_cli: RunCli, tmp_path: Path, reference: str, said: str
) -> None:
    image = tmp_path / "image.png"
    Image.new("L", (8, 8)).save(image)
    result = run_cli(
        "predict", str(image), "--model", reference, env={"DIR_PATHS__ROOT": str(trained)}
    )
    demand(result, 4, reference, said)


def test_a_port_in_use(trained: Path, run_cli: RunCli) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = run_cli("serve", "--port", str(port), env={"DIR_PATHS__ROOT": str(trained)})
    demand(result, 5, str(port), "in use")


@pytest.mark.slow
def test_no_network(root: Path, mindtrace: Callable[..., Any]) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        mirror = f"http://127.0.0.1:{closed.getsockname()[1]}/"
    result = mindtrace("train", "--source", "mnist", "--set", f"data.mirror={mirror}")

    assert result.returncode == 1, result.stderr
    assert "Traceback" not in result.stderr
    for remedy in ("mirror", "MNIST", "digits"):
        assert remedy in result.stderr
    assert not list(root.rglob("*ubyte*"))
    assert not (root / "mlflow.db").exists()


@pytest.mark.slow
def test_a_root_that_cannot_be_written(mindtrace: Callable[..., Any], tmp_path: Path) -> None:
    # A file in its place: that stops root as well, whom no permission stops.
    (tmp_path / "root").write_text("a file")
    result = mindtrace(
        "train", "--source", "digits", env={"DIR_PATHS__ROOT": str(tmp_path / "root")}
    )

    assert result.returncode == 1, result.stderr
    assert "Traceback" not in result.stderr
    assert str(tmp_path / "root") in result.stderr


@pytest.mark.slow
def test_a_root_with_spaces_and_umlauts_simply_works(
    mindtrace: Callable[..., Any], tmp_path: Path
) -> None:
    root = tmp_path / "Wörter und Räume %20 #1"
    env = {"DIR_PATHS__ROOT": str(root)}
    trained = mindtrace("train", "--source", "digits", "--max-epochs", "2", "--json", env=env)
    assert trained.returncode == 0, trained.stderr
    image = tmp_path / "zwölf Ziffern.png"
    Image.new("L", (8, 8), 90).save(image)

    predicted = mindtrace("predict", str(image), "--json", env=env)
    shown = mindtrace("registry", "show", "digits", "--json", env=env)

    assert predicted.returncode == 0, predicted.stderr
    assert json.loads(predicted.stdout)["version"] == 1
    assert json.loads(shown.stdout)["files"]
    assert not list(Path.cwd().glob("mlruns"))
    shutil.rmtree(root)
