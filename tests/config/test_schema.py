"""The table of sections and keys: whole, and in agreement with itself and with Settings."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest

from mindtrace.config import settings
from mindtrace.config.schema import (
    KNOWN,
    PUBLISHED_KEYS,
    SECTIONS,
    TRAVELLING,
    Section,
    describe,
    section_of,
)
from mindtrace.config.settings import Settings, load_settings
from mindtrace.config.template import template_ini


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.name)
def test_settings_have_a_field_for_each_key(section: Section) -> None:
    part = getattr(load_settings(environ={}), section.field)
    fields = [field.name for field in dataclasses.fields(part)]
    assert fields == [key.name.lower() for key in section.keys]
    assert type(part).__name__ in settings.__all__


def test_settings_have_a_field_for_each_section() -> None:
    fields = [field.name for field in dataclasses.fields(Settings)]
    assert fields == [*(section.field for section in SECTIONS), "origins"]


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.name)
def test_a_synonym_means_one_key_and_is_none_itself(section: Section) -> None:
    names = [key.name.lower() for key in section.keys]
    synonyms = [word for key in section.keys for word in key.synonyms.split()]
    assert len({*names, *synonyms}) == len(names) + len(synonyms)


def test_a_synonym_means_one_section() -> None:
    names = [section.name.lower() for section in SECTIONS]
    synonyms = [word for section in SECTIONS for word in section.synonyms.split()]
    assert len({*names, *synonyms}) == len(names) + len(synonyms)


def test_everything_is_described() -> None:
    rows = describe()
    assert [(row.section, row.key) for row in rows] == [
        (section, key) for section, keys in KNOWN.items() for key in keys
    ]
    assert all(row.allowed and row.doc for row in rows)
    defaults = {(row.section, row.key): row.default for row in rows}
    assert defaults["DIR_PATHS", "DATA"] == "${DIR_PATHS:ROOT}/data"
    assert defaults["train", "lr"] == "0.001"


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


def test_every_published_key_exists() -> None:
    known = {f"{section}.{key}" for section, keys in KNOWN.items() for key in keys}
    assert known >= PUBLISHED_KEYS
    assert set(KNOWN) >= set(TRAVELLING)


def test_a_section_is_found_by_its_ini_name_and_its_field() -> None:
    assert section_of("DIR_PATHS") is section_of("dirs") is section_of("dir_paths")
    assert section_of("DIR_PATHS").key("root").name == "ROOT"
    with pytest.raises(KeyError, match="nothing"):
        section_of("nothing")


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
    heavy = {"asyncio", "pydantic", "importlib.metadata", "urllib.request", "configparser"}
    heavy |= {"numpy", "torch", "mlflow", "PIL", "logging", "json", "tempfile", "subprocess"}
    code = (
        "import sys; from mindtrace.config.settings import load_settings; load_settings();"
        f"print(sorted({heavy!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
