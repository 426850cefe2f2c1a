"""`model.json` is declarative, checked, and says where it is strange."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, strategies as st

from mindtrace.bundle.bundle import ModelConfig
from mindtrace.preprocess import ImageSpec

CARD = ModelConfig(
    "mlp",
    {"dim": [784, 100, 2], "dropout": 0.2},
    ImageSpec("L", 28, 28, (0.1307,), (0.3081,)),
    ("Äpfel", "日本"),
)
FIELDS = json.loads(CARD.to_json())


def said(**changes: Any) -> str:
    return json.dumps({**FIELDS, **changes})


def with_input(**changes: Any) -> str:
    return said(input={**FIELDS["input"], **changes})


def test_a_card_comes_back_as_it_went() -> None:
    spec = ImageSpec("RGB", 224, 200, (0.1, 0.2, 0.3), (1.0, 2.0, 3.0), "crop", 256)
    colour = ModelConfig("resnet18", {"channels": 3, "classes": 1}, spec, ("only",))
    photo = replace(spec, interpolation="bicubic", resize="pad")
    about = {"source": "a package", "license": "mit"}
    padded = ModelConfig("resnet18", {"in_chans": 3, "num_classes": 1}, photo, ("only",), about)
    for card in (CARD, colour, padded):
        assert ModelConfig.from_json(card.to_json()) == card
    assert "Äpfel" in CARD.to_json(), "people read it too"


def test_a_card_of_before_the_rules_of_timm_keeps_its_own() -> None:
    old = {key: value for key, value in FIELDS["input"].items() if key != "interpolation"}
    fields = {key: value for key, value in FIELDS.items() if key != "pretrained"}
    assert ModelConfig.from_json(json.dumps({**fields, "input": old})) == CARD


@pytest.mark.parametrize(
    ("change", "version"),
    [({}, 1), ({"resize": "crop"}, 1), ({"resize": "pad"}, 2), ({"interpolation": "bicubic"}, 2)],
)
def test_what_an_older_mindtrace_would_read_wrong_has_a_newer_format(
    change: dict[str, Any], version: int
) -> None:
    card = replace(CARD, spec=replace(CARD.spec, **change))
    assert json.loads(card.to_json())["format_version"] == version


@pytest.mark.parametrize("version", [0, 3, "1", None])
def test_another_format_is_refused_by_name(version: Any) -> None:
    with pytest.raises(ValueError, match="upgrade mindtrace"):
        ModelConfig.from_json(said(format_version=version))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "null",
        said(class_names=None),
        said(arguments="abc"),
        said(input=None),
        with_input(mode="CMYK"),
        with_input(resize="guess"),
        with_input(interpolation="guess"),
        said(pretrained=3),
        with_input(mean=[0.1, 0.2]),
        with_input(mean=[], std=[]),
        with_input(std=[0.0]),
        with_input(std=[-1.0]),
        with_input(mode="RGB"),
        with_input(height="tall"),
        with_input(height=float("inf")),
        with_input(std=[float("nan")]),
        with_input(mean=[float("inf")]),
        with_input(height=0),
    ],
)
def test_a_strange_card_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        ModelConfig.from_json(text)


@given(st.text() | st.dictionaries(st.sampled_from(list(FIELDS)), st.none()).map(json.dumps))
def test_whatever_it_says_the_answer_is_a_card_error(text: str) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        ModelConfig.from_json(text)
