"""Every network of `[model] name` is built, trained a step and asked."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision
from torch.nn import functional

from mindtrace.config.sections import VISION_NAMES
from mindtrace.config.settings import Settings, load_settings
from mindtrace.data import build_data
from mindtrace.errors import UsageError
from mindtrace.models import ImageClassifier, build_model, input_requirements
from mindtrace.models.networks import build_network
from mindtrace.preprocess import ImageSpec, InputRequirements

NAMES = ("a", "b", "c")
GREY = ImageSpec("L", 12, 9, (0.5,), (0.5,))
COLOUR = ImageSpec("RGB", 32, 32, (0.5,) * 3, (0.5,) * 3)


def settings(*sets: str) -> Settings:
    return load_settings(sets=["data.source=digits", *sets])


def built(name: str, spec: ImageSpec, *sets: str) -> ImageClassifier:
    what = settings(f"model.name={name}", *sets)
    return build_model(what.model, what.train, spec, NAMES)


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
    torch.manual_seed(0)
    model = built(name, spec, "model.dropout=0")
    x = torch.randn(8, spec.channels, spec.height, spec.width)
    before, after = losses(model, x)
    assert after < before
    assert model(x).shape == (8, 3)


EVERYDAY = "shufflenet_v2_x1_0"  # the smallest; `make proofs` tries the others


@pytest.mark.parametrize(
    "name",
    [pytest.param(one, marks=pytest.mark.proof if one != EVERYDAY else ()) for one in VISION_NAMES],
)
def test_every_torchvision_network_takes_grey_digits_and_learns_a_step(name: str) -> None:
    torch.manual_seed(0)
    what = settings(f"model.name={name}")
    data = build_data(what, input_requirements(what.model))
    model = build_model(what.model, what.train, data.spec, data.class_names)
    x = data.normalise(data.split("train").images[:16])
    assert model(x).shape == (16, 10)
    assert torch.isfinite(torch.tensor(losses(model, x))).all()


def test_arguments_of_the_card_build_the_same_network_again() -> None:
    for name, spec in (("mlp", GREY), ("cnn", GREY), (EVERYDAY, COLOUR)):
        model = built(name, spec)
        again = build_network(model.model_config.architecture, model.model_config.arguments)

        shapes = {key: value.shape for key, value in model.network.state_dict().items()}
        assert {key: value.shape for key, value in again.state_dict().items()} == shapes


def test_the_seed_alone_makes_the_weights() -> None:
    def weights(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return built("mlp", GREY).network[1].weight.detach()

    assert torch.equal(weights(3), weights(3))
    assert not torch.equal(weights(3), weights(4))


def test_hidden_dropout_lr_and_schedule_are_those_of_the_settings() -> None:
    sets = ["model.hidden=17", "model.dropout=0.4", "train.lr=0.02", "train.schedule=one_cycle"]
    model = built("mlp", GREY, *sets)
    assert model.model_config.arguments == {"dim": [108, 17, 3], "dropout": 0.4}
    assert (model.lr, model.schedule) == (0.02, "one_cycle")


def test_a_torchvision_network_wants_colour_and_32_pixels() -> None:
    demand = input_requirements(settings("model.name=resnet18").model)
    assert demand == InputRequirements(mode="RGB", min_side=32)
    assert input_requirements(settings("model.name=cnn").model) is None


@pytest.mark.parametrize("name", VISION_NAMES)
def test_with_given_weights_the_input_is_that_of_their_own_transforms(name: str) -> None:
    demand = input_requirements(settings(f"model.name={name}", "model.weights=default").model)
    transform = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    assert demand is not None
    assert (demand.height, demand.width) == (transform.crop_size[0],) * 2
    assert demand.short_side == transform.resize_size[0]
    assert demand.mean == pytest.approx(transform.mean)
    assert demand.std == pytest.approx(transform.std)
    assert demand.resize == "crop"


def test_what_cannot_be_built_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "no.pt"
    with pytest.raises(UsageError, match=str(path)):
        input_requirements(settings("model.name=resnet18", f"model.weights={path}").model)
    for architecture, channels in (("resnet18", 1), ("no_net", 3)):
        with pytest.raises(UsageError, match=architecture):
            build_network(architecture, {"channels": channels, "classes": 2})
