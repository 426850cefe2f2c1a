"""Room core: merged entries go in; typed values and every fault in them come out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mindtrace.config.interpolation import Unfinished
from mindtrace.config.layers import Entry, Layer, Place
from mindtrace.config.redact import shown
from mindtrace.config.schema import SECTIONS
from mindtrace.config.suggestions import unknown_key, unknown_section
from mindtrace.errors import Fault

Values = dict[Place, Any]
MANY = 100  # unknown names that are told one by one

_BY_NAME = {section.name: section for section in SECTIONS}
_KEYS = {(section.name, key.name): key for section in SECTIONS for key in section.keys}


def is_known(place: Place) -> bool:
    """Whether the schema has that section and key, in this spelling."""
    return place in _KEYS


def unknown_names(layer: Layer) -> list[Fault]:
    """One fault for each unknown section of a layer, and for each unknown key elsewhere.

    Of more than `MANY` the first are told, and how many stand beside them: to look for
    what each of thousands might mean would take seconds.
    """
    places: list[tuple[str, str | None]]
    places = [(section, None) for section in layer.sections if section not in _BY_NAME]
    places += [place for place in layer.entries if place[0] in _BY_NAME and place not in _KEYS]
    faults = [_unknown(layer, *place) for place in places[:MANY]]
    if len(places) > MANY:
        next_one = _unknown(layer, *places[MANY])
        message = f"and {len(places) - MANY:,} more unknown names from here on"
        faults.append(replace(next_one, message=message))
    return faults


def _unknown(layer: Layer, section: str, key: str | None) -> Fault:
    if key is None:
        origin = layer.sections[section]
        message = f"[{shown(section)}]: {unknown_section(section)}"
    else:
        origin = layer.entries[section, key].origin
        message = f"[{section}] {shown(key)}: {unknown_key(_BY_NAME[section], key)}"
    return Fault(origin.file, origin.line, section, key, message)


class ValueReader:
    """Reads texts as the schema says: `values`, and a fault for each that is none.

    `finish` is for a Resolver: it sees a text before anybody refers to it, so what refers
    to a bad value is not told as a second fault.
    """

    def __init__(self) -> None:
        self.values: Values = {}
        self.faults: list[Fault] = []

    def finish(self, place: Place, entry: Entry, text: str) -> str:
        """Finish a text and keep its value.

        Args:
            place: section and key.
            entry: where the text stands.
            text: the entry's, after substitution.

        Returns:
            the text without white space around it, its paths absolute.

        Raises:
            Unfinished: it is no value of that key; the fault is noted.
        """
        kind = _KEYS[place].kind
        text = text.strip()
        try:
            if kind.anchor is not None:
                text = kind.anchor(text, entry.origin.base or Path.cwd())
            self.values[place] = kind.parse(text)
        except ValueError as reason:
            self.faults.append(value_fault(place, entry, text, str(reason)))
            raise Unfinished from None
        return text


def value_fault(place: Place, entry: Entry, text: str, reason: str) -> Fault:
    """The fault of a value: `[train] max_epochs = -3: must be 1 or more`."""
    section, key = place
    what = shown(text) or "(blank)"
    message = f"[{section}] {key} = {what}: {reason}{_remark(text)}"
    return Fault(entry.origin.file, entry.origin.line, section, key, message)


def _remark(text: str) -> str:
    """What people who know other dialects of INI may have meant."""
    if "\n" in text:
        return "; an indented line belongs to the value above it"
    if " #" in text or " ;" in text:
        return "; a comment stands on a line of its own"
    if len(text) > 1 and text[0] in "\"'" and text[-1] == text[0]:
        return "; write it without quotes"
    return ""


def across(entries: Mapping[Place, Entry], values: Values) -> list[Fault]:
    """Faults of values that are right alone and wrong together."""
    faults = []
    source, folder = values.get(("data", "source")), values.get(("data", "dir"))
    if source == "folder" and folder is None and ("data", "dir") in values:
        reason = "needs the folder too; add dir = PATH to [data]"
        faults.append(value_fault(("data", "source"), entries[("data", "source")], source, reason))
    if source not in (None, "folder") and folder is not None:
        reason = f"is for source = folder, and source is {source}; change or remove one"
        faults.append(value_fault(("data", "dir"), entries[("data", "dir")], str(folder), reason))
    name, weights = values.get(("model", "name")), values.get(("model", "weights"))
    if weights == "default" and name in ("mlp", "cnn"):
        reason = f"there are none for {name}; use none, a path, or a torchvision network"
        faults.append(
            value_fault(("model", "weights"), entries[("model", "weights")], weights, reason)
        )
    return faults


def without_stale_folder(layers: list[Layer]) -> None:
    """Let go of `[data] dir` where a later layer alone chose a source that has none.

    So `--set data.source=digits` is enough over an INI that names a folder.
    """
    source, folder = ("data", "source"), ("data", "dir")
    for position, layer in enumerate(layers):
        chosen = layer.entries.get(source)
        if chosen is not None and chosen.text != "folder" and folder not in layer.entries:
            for below in layers[1:position]:
                below.entries.pop(folder, None)
