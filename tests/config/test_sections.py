"""The declarations of sections and keys: whole, and in agreement with each other."""

from __future__ import annotations

import dataclasses

from mindtrace.config.schema import allowed
from mindtrace.config.sections import KEYS, PUBLISHED, SECTIONS, SYNONYMS, default_texts
from mindtrace.config.settings import Settings, load_settings, template_ini


def test_settings_have_a_field_for_each_section_and_a_request_names_keys() -> None:
    fields = [field.name for field in dataclasses.fields(Settings)]
    assert fields == ["dirs", *list(SECTIONS)[1:], "origins"]
    assert KEYS.keys() > PUBLISHED
    assert KEYS.keys() > {*SYNONYMS.values()}


def test_everything_is_described_and_defaults_are_what_their_texts_mean() -> None:
    assert all(section.__doc__ for section in SECTIONS.values())
    assert default_texts()["DIR_PATHS", "DATA"] == "${DIR_PATHS:ROOT}/data"
    settings = load_settings(environ={})
    for (section, name), declared in KEYS.items():
        assert declared.description and allowed(declared)
        if section != "DIR_PATHS" and name != "tracking_uri":
            assert getattr(getattr(settings, section), name) == declared.default


def test_the_template_holds_every_key_with_its_default() -> None:
    names = {name for _, name in KEYS}
    lines = [
        line[1:] if line.startswith("#") and line[1:].partition(" ")[0] in names else line
        for line in template_ini().splitlines()
    ]
    opened = load_settings(text="\n".join(lines), environ={})
    assert opened == load_settings(text=template_ini(), environ={}) == load_settings(environ={})
    assert {str(origin).startswith("config:") for origin in opened.origins.values()} == {True}
