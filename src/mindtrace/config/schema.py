"""Room core: the table of sections and keys, looked up; names go in, keys come out.

`settings.py` reads texts by it, `template.py` prints it.
"""

from __future__ import annotations

from typing import NamedTuple

from mindtrace.config.keys import Key, Section
from mindtrace.config.layers import Place, packaged_layer
from mindtrace.config.table import SECTIONS

__all__ = [
    "KNOWN",
    "PUBLISHED_KEYS",
    "SECTIONS",
    "TRAVELLING",
    "Description",
    "Key",
    "Section",
    "default_texts",
    "describe",
    "section_of",
]

#: The sections that a bundle or a run may carry; the rest belongs to a machine.
TRAVELLING = ("data", "model", "train", "compute")

#: section -> the names of its keys.
KNOWN = {section.name: tuple(key.name for key in section.keys) for section in SECTIONS}

#: `section.key` of everything that a retraining may ask for.
PUBLISHED_KEYS = frozenset(
    f"{section.name}.{name}" for section in SECTIONS for name in section.published.split()
)


def section_of(name: str) -> Section:
    """Find a section.

    Args:
        name: as in an INI, in any case, or as in `Settings`.

    Returns:
        the section.

    Raises:
        KeyError: there is none.
    """
    for section in SECTIONS:
        if name.lower() in (section.name.lower(), section.field):
            return section
    raise KeyError(name)


class Description(NamedTuple):
    """One key for people: `default` as INI text, `allowed` in words."""

    section: str
    key: str
    default: str
    allowed: str
    doc: str


def describe() -> list[Description]:
    """Every key there is, in the order of the table."""
    texts = default_texts()
    return [
        Description(
            section.name, key.name, texts[section.name, key.name], key.kind.allowed, key.doc
        )
        for section in SECTIONS
        for key in section.keys
    ]


def default_texts() -> dict[Place, str]:
    """The text that each key has if nobody sets it, before substitution."""
    packaged = packaged_layer().entries
    return {
        (section.name, key.name): packaged[section.name, key.name].text
        if key.default is None
        else key.default
        for section in SECTIONS
        for key in section.keys
    }
