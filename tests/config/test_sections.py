"""The declarations of sections and keys: whole, and in agreement with each other."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest

from mindtrace.config.schema import allowed, key_of
from mindtrace.config.sections import KEYS, KNOWN, PUBLISHED_KEYS, SECTIONS, default_texts
from mindtrace.config.settings import Settings, load_settings, template_ini


def test_settings_have_a_field_for_each_section() -> None:
    fields = [field.name for field in dataclasses.fields(Settings)]
    assert fields == ["dirs", *list(SECTIONS)[1:], "origins"]


@pytest.mark.parametrize("section", SECTIONS)
def test_a_synonym_means_one_key_and_is_none_itself(section: str) -> None:
    names = [name.lower() for name in KNOWN[section]]
    synonyms = [word for name in KNOWN[section] for word in key_of(KEYS[section, name]).synonyms]
    assert len({*names, *synonyms}) == len(names) + len(synonyms)


def test_a_synonym_means_one_section() -> None:
    names = [name.lower() for name in SECTIONS]
    synonyms = [word for section in SECTIONS.values() for word in section.synonyms.split()]
    assert len({*names, *synonyms}) == len(names) + len(synonyms)


def test_everything_is_described() -> None:
    assert all(section.__doc__ for section in SECTIONS.values())
    assert all(declared.description and allowed(declared) for declared in KEYS.values())
    assert default_texts()["DIR_PATHS", "DATA"] == "${DIR_PATHS:ROOT}/data"
    assert default_texts()["train", "lr"] == "0.001"


def test_declared_defaults_are_what_their_texts_mean() -> None:
    settings = load_settings(environ={})
    for (section, name), declared in KEYS.items():
        if section != "DIR_PATHS" and name != "tracking_uri":
            assert getattr(getattr(settings, section), name) == declared.default


def test_a_retraining_may_ask_for_a_closed_list_of_keys() -> None:
    assert sorted(PUBLISHED_KEYS) == sorted(
        [
            *("data.source", "data.batch_size", "data.num_workers", "data.num_val"),
            *("data.test_fraction", "data.split_seed", "data.image_size", "data.augment"),
            *("model.name", "model.hidden", "model.dropout", "model.freeze", "model.weights"),
            *("train.max_epochs", "train.lr", "train.schedule", "train.monitor"),
            *("train.patience", "train.seed", "train.max_minutes"),
            *("compute.precision", "compute.threads", "registry.model_name"),
        ]
    )


def test_the_template_changes_nothing_as_it_is() -> None:
    assert load_settings(text=template_ini(), environ={}) == load_settings(environ={})


def test_the_template_holds_every_key_with_its_default_ready_to_be_used() -> None:
    names = {name for keys in KNOWN.values() for name in keys}
    lines = [
        line[1:] if line.startswith("#") and line[1:].partition(" ")[0] in names else line
        for line in template_ini().splitlines()
    ]
    opened = load_settings(text="\n".join(lines), environ={})
    assert opened == load_settings(environ={})
    assert {str(origin).startswith("config:") for origin in opened.origins.values()} == {True}


def test_reading_settings_loads_nothing_heavy() -> None:
    heavy = {"fastapi", "asyncio", "urllib.request", "configparser", "numpy", "torch", "mlflow"}
    heavy |= {"PIL", "logging", "subprocess"}
    code = (
        "import sys; from mindtrace.config.settings import load_settings; load_settings();"
        f"print(sorted({heavy!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_config_alone_needs_no_pydantic() -> None:
    code = "import sys; from mindtrace import Config; Config(); print('pydantic' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
