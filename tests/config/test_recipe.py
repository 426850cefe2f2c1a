"""What a folder of photos starts from, below whatever the user says."""

from __future__ import annotations

import pytest

from mindtrace.config.networks import PHOTO_NETWORK
from mindtrace.config.settings import Settings, load_settings
from mindtrace.errors import ConfigError
from mindtrace.service.retrain_request import RetrainRequest

FOLDER = ("data.source=folder", "data.dir=/photos")
LITE = PHOTO_NETWORK


def load(*sets: str, text: str | None = None) -> Settings:
    return load_settings(text=text, sets=sets, environ={})


def chosen(settings: Settings) -> tuple[object, ...]:
    model = settings.model
    return model.name, model.weights, model.freeze, settings.data.augment


@pytest.mark.parametrize(
    ("sets", "expected"),
    [
        ([*FOLDER], (LITE, "auto", True, "none")),
        ([*FOLDER, "model.name=resnet18"], ("resnet18", "auto", True, "none")),
        ([*FOLDER, "model.freeze=false"], (LITE, "auto", False, "none")),
        ([*FOLDER, "model.name=resnet18", "model.freeze=no"], ("resnet18", "auto", False, "none")),
        ([*FOLDER, "data.augment=light"], (LITE, "auto", False, "light")),
        ([*FOLDER, "data.augment=none"], (LITE, "auto", True, "none")),
        ([*FOLDER, "model.weights=default"], (LITE, "default", True, "none")),
        ([*FOLDER, "model.weights=none"], ("cnn", "none", False, "none")),
        (
            [*FOLDER, "model.weights=none", "model.name=resnet18"],
            ("resnet18", "none", False, "none"),
        ),
        ([*FOLDER, "model.weights=/w.safetensors"], (LITE, "/w.safetensors", True, "none")),
        ([*FOLDER, "model.name=cnn"], ("cnn", "auto", False, "none")),
        ([*FOLDER, "model.name=mlp", "data.augment=light"], ("mlp", "auto", False, "light")),
        (["data.source=digits"], ("mlp", "auto", False, "none")),
        (["data.source=cifar10", "model.name=resnet18"], ("resnet18", "auto", False, "none")),
        ([], ("mlp", "auto", False, "none")),
    ],
)
def test_a_recipe_lies_key_by_key_below_what_the_user_says(
    sets: list[str], expected: tuple[object, ...]
) -> None:
    assert chosen(load(*sets)) == expected


def test_a_source_by_reference_has_its_recipe_too() -> None:
    text = "[registry]\nmodel_name = folder\n[data]\nsource = ${registry:model_name}\ndir = /p\n"
    assert chosen(load(text=text)) == (LITE, "auto", True, "none")


def test_the_origin_names_the_recipe_and_nothing_else_does() -> None:
    rows = {(row.section, row.key): row.origin for row in load(*FOLDER).rows()}
    named = {place for place, origin in rows.items() if origin == "recipe photo"}
    places = {("model", "name"), ("model", "weights"), ("model", "freeze"), ("data", "augment")}
    assert named == places
    assert not load("data.source=digits").recipe()


@pytest.mark.parametrize(
    "sets",
    [
        [*FOLDER, "model.freeze=true", "data.augment=light"],
        ["data.source=cifar10", "model.name=resnet18", "model.freeze=1", "data.augment=light"],
    ],
)
def test_frozen_and_augmented_is_one_fault(sets: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load(*sets)
    (fault,) = caught.value.faults
    assert (fault.section, fault.key) == ("model", "freeze")
    assert "[data] augment; remove one of the two" in fault.message


def test_the_whole_text_is_read_back_to_the_same_values() -> None:
    for sets in (FOLDER, (*FOLDER, "data.augment=light"), (*FOLDER, "model.name=cnn")):
        settings = load(*sets)
        for given in (False, True):
            text = settings.to_ini(["data", "model", "train"], given=given)
            again = load_settings(text=text, environ={})
            assert (again.data, again.model) == (settings.data, settings.model)


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({}, (LITE, "auto", True, "none")),
        ({"data": {"augment": "light"}}, (LITE, "auto", False, "light")),
        ({"model": {"weights": "none"}}, ("cnn", "none", False, "none")),
        ({"model": {"freeze": False}}, (LITE, "auto", False, "none")),
    ],
)
def test_a_request_lies_over_the_recipe_of_a_server(
    sections: dict[str, object], expected: tuple[object, ...]
) -> None:
    request = RetrainRequest.from_mapping(sections)
    assert chosen(request.laid_over(load(*FOLDER), {})) == expected
