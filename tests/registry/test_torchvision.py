"""Versions whose network was torchvision's: all goes on but training them again."""

from __future__ import annotations

import dataclasses

import pytest
from tests.registry.conftest import Publish
from tests.registry.test_compare import worse

from mindtrace.bundle.bundle import Contents
from mindtrace.bundle.predictor import Predictor
from mindtrace.config.networks import TORCHVISION
from mindtrace.config.settings import Settings
from mindtrace.errors import UsageError
from mindtrace.registry.maintenance import verify
from mindtrace.registry.reference import locate
from mindtrace.registry.reproduce import reproduce
from mindtrace.service import jobs, promotion
from mindtrace.service.retrain_request import RetrainRequest


def torchvisions(packed: Contents, name: str) -> Contents:
    """What an earlier mindtrace left: its card and configuration, before `resize` was a key."""
    card = dataclasses.replace(
        packed.model_config, architecture=name, arguments={"channels": 1, "classes": 10}
    )
    lines = [line for line in packed.config.splitlines(True) if not line.startswith("resize")]
    config = "".join(lines).replace("name = mlp", f"name = {name}")
    assert f"name = {name}" in config
    return dataclasses.replace(worse(packed, 5), model_config=card, config=config)


@pytest.mark.parametrize("name", sorted(TORCHVISION))
def test_an_old_version_is_used_as_before_and_training_on_says_what_replaces_it(
    name: str, register: Publish, packed: Contents, settings: Settings
) -> None:
    register()
    register(contents=torchvisions(packed, name))
    located = locate(settings, "digits/2")
    predictor = Predictor.open(located.folder, located.digest)
    assert predictor.predict(packed.golden[0].image).argmax() == (
        packed.golden[0].probabilities.argmax()
    )
    assert verify(settings, "digits/2")[0].state == "verified"
    comparison, page_of = promotion.compare_with_page(settings, "digits/1", "2")
    assert comparison.right_to_wrong == 5
    assert page_of().count("data:image/png;base64,") == 5
    promotion.promote(settings, "digits/2", force=True, reason="a test")
    assert locate(settings, "digits").folder == located.folder

    with pytest.raises(UsageError, match=f"timm's {TORCHVISION[name]} replaces it"):
        reproduce(settings, "digits/2")
    merged, _ = jobs.job_settings(settings, RetrainRequest(base="digits/2"))
    assert merged.model.name == TORCHVISION[name]
