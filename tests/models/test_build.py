"""Every network of `[model] name` is built, trained a step and asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import timm.data
import torch
from PIL import Image
from tests.models.conftest import COLOUR, GREY, TESTED, built
from torch.nn import functional

from mindtrace.config.networks import TORCHVISION, timm_names
from mindtrace.config.settings import Settings, load_settings
from mindtrace.data import build_data
from mindtrace.errors import UsageError
from mindtrace.models import ImageClassifier, build_model, input_requirements
from mindtrace.models.networks import build_network
from mindtrace.preprocess import ImageSpec, InputRequirements, normalise, resized


def settings(*sets: str) -> Settings:
    return load_settings(sets=["data.source=digits", *sets])


def losses(model: ImageClassifier, x: torch.Tensor) -> list[float]:
    """Of a batch, before and after an optimizer step on it."""
    y = torch.arange(len(x)) % len(model.model_config.class_names)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    found = []
    for _ in range(2):
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
    return found


@pytest.mark.parametrize("name", ["mlp", "cnn"])
@pytest.mark.parametrize("spec", [GREY, COLOUR])
def test_our_own_networks_learn_from_any_size_and_mode(name: str, spec: ImageSpec) -> None:
    model = built(name, spec, "model.dropout=0")
    x = torch.randn(8, spec.channels, spec.height, spec.width)
    before, after = losses(model, x)
    assert after < before
    assert model(x).shape == (8, 3)


EVERYDAY = "mobilenetv3_small_100"  # the quickest; `make proofs` tries the others


@pytest.mark.sampled(4)
@pytest.mark.parametrize(
    "name",
    [pytest.param(one, marks=pytest.mark.proof if one != EVERYDAY else ()) for one in TESTED],
)
@pytest.mark.parametrize("source", ["digits", "folder"])
def test_every_listed_network_takes_small_images_and_learns_a_step(
    name: str, source: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    draw = np.random.default_rng(0)
    for k in range(40):
        (tmp_path / "ab"[k % 2]).mkdir(exist_ok=True)
        pixels = draw.integers(0, 256, (36, 40, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "ab"[k % 2] / f"{k}.png")
    sets = ["model.weights=none"] + ([f"data.dir={tmp_path}"] if source == "folder" else [])
    what = load_settings(sets=[f"data.source={source}", f"model.name={name}", *sets])
    data = build_data(what, input_requirements(what.model))
    model = build_model(what.model, what.train, data.spec, data.class_names)
    x = data.normalise(data.split("train").images[:16])
    assert model(x).shape == (len(x), len(data.class_names))
    assert torch.isfinite(torch.tensor(losses(model, x))).all()


def test_arguments_of_the_card_build_the_same_network_again() -> None:
    for name, spec in (("mlp", GREY), ("cnn", GREY), (EVERYDAY, COLOUR)):
        model = built(name, spec)
        again = build_network(model.model_config.architecture, model.model_config.arguments)

        shapes = {key: value.shape for key, value in model.network.state_dict().items()}
        assert {key: value.shape for key, value in again.state_dict().items()} == shapes


def test_hidden_dropout_lr_and_schedule_are_those_of_the_settings() -> None:
    sets = ["model.hidden=17", "model.dropout=0.4", "train.lr=0.02", "train.schedule=one_cycle"]
    model = built("mlp", GREY, *sets)
    assert model.model_config.arguments == {"dim": [108, 17, 3], "dropout": 0.4}
    assert (model.lr, model.schedule) == (0.02, "one_cycle")


def test_the_names_read_from_timms_source_are_those_that_timm_lists() -> None:
    assert timm_names() == set(timm.list_models())
    assert set(TESTED) <= timm_names()
    assert set(TORCHVISION.values()) <= timm_names()


@pytest.mark.parametrize(
    "name", [*TESTED, "dm_nfnet_f0", "resnet18.a1_in1k", "swin_tiny_patch4_window7_224"]
)
def test_with_pretrained_weights_images_are_those_of_timms_own_transforms(name: str) -> None:
    requirements = input_requirements(settings(f"model.name={name}", "model.weights=default").model)
    spec = build_data(settings("data.source=digits"), requirements).resolve_spec(
        ImageSpec("L", 8, 8, (0.0,), (1.0,))
    )
    config = timm.data.resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(name).to_dict())
    transform = timm.data.create_transform(**config)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (301, 433, 3), np.uint8))
    found = normalise(np.asarray(resized(image, spec))[None], spec)
    np.testing.assert_allclose(found[0], transform(image).numpy(), atol=1e-5)


def test_from_scratch_a_network_of_timm_wants_colour_and_32_pixels() -> None:
    requirements = input_requirements(settings("model.name=resnet18", "model.weights=none").model)
    assert requirements == InputRequirements(
        mode="RGB", min_side=32, resize="crop", interpolation="bicubic", crop_pct=0.95
    )
    fixed = input_requirements(settings("model.name=vit_tiny_patch16_224").model)
    assert fixed is not None
    assert (fixed.height, fixed.width, fixed.mean) == (224, 224, None)
    assert input_requirements(settings("model.name=cnn").model) is None


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("auto", ("crop", 33, "bicubic")),
        ("crop", ("crop", 33, "bicubic")),
        ("stretch", ("stretch", None, "bicubic")),
        ("pad", ("pad", None, "bicubic")),
    ],
)
def test_the_rule_of_the_settings_comes_before_that_of_the_network(
    rule: str, expected: tuple[object, ...]
) -> None:
    what = settings("model.name=resnet18", "model.weights=none", f"data.resize={rule}")
    spec = build_data(what, input_requirements(what.model)).spec
    assert (spec.resize, spec.short_side, spec.interpolation) == expected


def test_what_cannot_be_built_is_refused(tmp_path: Path) -> None:
    for architecture, arguments in (
        ("resnet18", {"channels": 3, "classes": 2}),
        ("no_net", {"in_chans": 3, "num_classes": 2}),
        ("hf-hub:timm/resnet18", {"in_chans": 3, "num_classes": 2}),
        ("swin_tiny_patch4_window7_224", {"in_chans": 3, "num_classes": 2, "img_size": "tall"}),
    ):
        with pytest.raises(UsageError, match=architecture):
            build_network(architecture, arguments)
    with pytest.raises(UsageError, match="not_a_tag"):
        input_requirements(settings("model.name=resnet18.not_a_tag").model)
