"""What a training cannot do is reported before its work, by `--dry-run` too, in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import save_file
from tests.cli.conftest import documents
from tests.conftest import RunCli

from mindtrace.config.settings import load_settings
from mindtrace.data.batches import batch_sizes
from mindtrace.training import fit as fitting

DIGITS = ("train", "--source", "digits")
RESNET = ("--model", "resnet18", "--set", "data.image_size=32", "--batch-size")


@pytest.fixture
def folder(tmp_path: Path) -> tuple[str, ...]:
    """The command for 13 training images in two classes of 12 x 12 pixels."""
    random = np.random.default_rng(0)
    for split, count in (("train", 13), ("val", 4), ("test", 4)):
        for index in range(count):
            path = tmp_path / "images" / split / ("cat", "dog")[index % 2] / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.integers(0, 256, (12, 12, 3), np.uint8)).save(path)
    return ("train", "--source", "folder", "--set", f"data.dir={tmp_path / 'images'}")


@pytest.mark.parametrize("dry", [(), ("--dry-run",)], ids=["train", "dry"])
@pytest.mark.parametrize(
    ("words", "says"),
    [
        *(
            (("--device", name), f"device = {name}: torch finds cpu here")
            for name in ("cuda", "cuda:0", "cuda:9", "mps")
        ),
        *(
            (("--device", name), f"device = {name}: must be auto, cpu, mps, cuda or cuda:N")
            for name in ("tpu", "gpu", "cpu:0", "cuda:-1", "0")
        ),
        (
            ("--model", "cnn", "--set", "data.image_size=1"),
            "cnn cannot learn from images of 1x1 in",
        ),
        (
            ("--model", "cnn", "--set", "data.image_size=2"),
            "cnn cannot learn from images of 2x2 in",
        ),
        (("--model", "resnet18", "--set", "data.image_size=31"), "this network needs 32"),
        ((*RESNET, "1"), "images of 32x32 in batches of 1: Expected more than 1"),
        (("--set", "model.weights=nowhere.safetensors"), "nowhere.safetensors: cannot be read"),
        (("--set", "model.weights={}/other.safetensors"), "not of a mlp for these images"),
        (("--resume", "last"), "no checkpoint 'last'"),
    ],
    ids=lambda value: " ".join(value[:4]) if isinstance(value, tuple) else "",
)
def test_what_cannot_work_is_refused_before_the_work(
    root: Path,
    tmp_path: Path,
    run_cli: RunCli,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    says: str,
    dry: tuple[str, ...],
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    save_file({"0.weight": np.zeros((3, 3), np.float32)}, tmp_path / "other.safetensors")
    result = run_cli(*DIGITS, *(word.format(tmp_path) for word in words), *dry)
    # Nothing is there: no checkpoint, no weights.
    code = 4 if "--resume" in words else 1 if "nowhere" in words[-1] else 2
    assert (result.exit_code, result.stdout) == (code, "")
    lines = result.stderr.splitlines()
    assert says in lines[0] and len(lines) <= 2, result.stderr
    assert list(root.iterdir()) == []


@pytest.mark.slow
def test_a_last_batch_of_one_image_is_joined_to_the_one_before(
    root: Path, run_cli: RunCli, folder: tuple[str, ...]
) -> None:
    words = (*folder, *RESNET, "4", "--max-epochs", "1", "--no-register", "--json")
    result = run_cli(*words)
    assert result.exit_code == 0, result.stderr
    assert documents(result.stdout)[0]["steps"] == 3


@pytest.mark.parametrize(
    ("images", "size", "expected"),
    [
        (13, 4, [4, 4, 5]),
        (12, 4, [4, 4, 4]),
        (14, 4, [4, 4, 4, 2]),
        (1, 4, [1]),
        (5, 4, [5]),
        (3, 1, [1, 1, 1]),
        (3, 2, [3]),
    ],
)
def test_batch_sizes(images: int, size: int, expected: list[int]) -> None:
    assert batch_sizes(images, size) == expected


@pytest.mark.parametrize(
    ("device", "accelerator", "devices"),
    [("cuda:1", "cuda", [1]), ("cuda:0", "cuda", [0]), ("cuda", "cuda", 1), ("cpu", "cpu", 1)],
)
def test_a_gpu_reaches_lightning_by_its_index(
    monkeypatch: pytest.MonkeyPatch, device: str, accelerator: str, devices: Any
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    sets = [f"compute.device={device}", "compute.precision=32"]
    settings = load_settings(sets=sets, environ={})
    monkeypatch.setattr(fitting.pl, "Trainer", lambda **given: given)
    given: Any = fitting._trainer(fitting.resolve_compute(settings), [])
    assert (given["accelerator"], given["devices"]) == (accelerator, devices)


def test_a_dry_run_prints_the_notes_and_reads_the_store(
    digits: Path, run_cli: RunCli, tmp_path: Path
) -> None:
    broken = tmp_path / "mlflow.db"
    broken.write_bytes(b"no database" * 100)
    uri = f"registry.tracking_uri=sqlite:///{broken}"
    result = run_cli(*DIGITS, "--dry-run", "--set", uri)
    assert (result.exit_code, result.stdout) == (1, "")
    network, error, *_ = result.stderr.splitlines()
    assert network == "network mlp, weights none, 8 x 8 px, stretch (bilinear)"
    assert str(broken) in error


@pytest.mark.parametrize("dry", [(), ("--dry-run",)], ids=["train", "dry"])
@pytest.mark.parametrize("place", ["ROOT", "CHECKPOINTS"])
def test_a_folder_that_is_a_file(
    root: Path, run_cli: RunCli, tmp_path: Path, place: str, dry: tuple[str, ...]
) -> None:
    (tmp_path / "file").write_text("")
    for below in ("", "/below"):
        given = f"DIR_PATHS.{place}={tmp_path / 'file'}{below}"
        result = run_cli(*DIGITS, "--set", given, *dry)
        assert (result.exit_code, result.stdout) == (1, "")
        assert (
            f"{tmp_path / 'file'} cannot be written: it is no folder"
            in result.stderr.splitlines()[0]
        )
        assert list(root.iterdir()) == []


@pytest.mark.parametrize(
    "line", ["registry list", "registry show m/1", "predict image.png", "registry promote m/1"]
)
def test_a_root_that_is_a_file_is_no_empty_registry(
    tmp_path: Path, run_cli: RunCli, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("L", (8, 8)).save(tmp_path / "image.png")
    (tmp_path / "file").write_text("")
    result = run_cli(*line.split(), "--set", f"DIR_PATHS.ROOT={tmp_path / 'file'}")
    assert result.exit_code == 1
    error, hint = result.stderr.splitlines()
    assert f"{tmp_path / 'file'} is a file" in error and hint == "hint: mindtrace doctor"
