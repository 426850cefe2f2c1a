"""Floor 9: what a client may ask of a training, read and checked.

In: INI text or sections and keys, and the settings of the server. Out: the settings of a
training, or every fault at once. A client may set what makes a training; paths, addresses,
commands and whatever else belongs to the machine stay the server's own.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mindtrace.config.ini import Layer, Origin, read_ini
from mindtrace.config.load import unknown_names
from mindtrace.config.schema import key_of
from mindtrace.config.sections import KEYS, KNOWN, PUBLISHED_KEYS, TRAVELLING
from mindtrace.config.settings import Settings, load_settings
from mindtrace.config.urls import shown
from mindtrace.errors import ConfigError, Fault, listed
from mindtrace.service.jobs import secrets

FILE = "config"
# What of the server's own configuration a training needs.
SECTIONS = ("DIR_PATHS", "data", "model", "train", "registry", "compute")
_HINT = "GET /openapi.json lists what a request may set, with examples"
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_KNOWN = {section.lower(): {key.lower() for key in keys} for section, keys in KNOWN.items()}
_PUBLISHED = {name.lower() for name in PUBLISHED_KEYS}
#: What a request may say of the weights that a training starts from.
STARTS = ("none", "default")


@dataclass(frozen=True)
class Wish:
    """One key that a client sets; `line` is None where it was not INI text."""

    section: str
    key: str
    text: str
    line: int | None = None


@dataclass(frozen=True)
class Overlay:
    """All that a client sets.

    Attributes:
        wishes: key by key.
        faults: what was wrong with how it was written.
        own: whether it is of the machine that trains, and so may name a file there.
    """

    wishes: tuple[Wish, ...] = ()
    faults: tuple[Fault, ...] = ()
    own: bool = False

    @classmethod
    def from_ini(cls, text: str) -> Overlay:
        """Read INI text; `${...}` in it means itself."""
        layer = read_ini(text, FILE, base=Path())
        wishes = tuple(
            Wish(section, key, entry.text, entry.origin.line)
            for (section, key), entry in layer.entries.items()
        )
        return cls(wishes, (*layer.faults, *_empty(layer.sections, wishes)))

    @classmethod
    def from_mapping(cls, sections: Mapping[str, Any]) -> Overlay:
        """Read `{"train": {"max_epochs": 1}}`; values are strings, numbers, true, false, null."""
        wishes: list[Wish] = []
        faults: list[Fault] = []
        for section, keys in sections.items():
            if not isinstance(keys, Mapping):
                faults.append(_fault(section, None, f"[{shown(section)}]: must be an object"))
                continue
            for key, value in keys.items():
                text = _nothing(section, key) if value is None else _text(value)
                if text is None:
                    message = f"[{shown(section)}] {shown(key)}: must be a single value"
                    faults.append(_fault(section, key, message))
                else:
                    wishes.append(Wish(section, key, text))
        objects = [name for name, keys in sections.items() if isinstance(keys, Mapping)]
        empty = _empty(dict.fromkeys(objects, Origin(FILE)), wishes)
        return cls(tuple(wishes), (*faults, *empty))

    @classmethod
    def from_settings(cls, settings: Settings) -> Overlay:
        """What a user set on purpose, of that which a request may set; for jobs of our own."""
        return cls(tuple(wish for wish in _wishes(settings) if _is_published(wish)), own=True)

    @classmethod
    def for_server(cls, settings: Settings) -> Overlay:
        """The same for a server elsewhere, which has folders and devices of its own.

        Raises:
            ConfigError: with what else was set of a training: it would be another one there.
        """
        faults = []
        for wish in _wishes(settings):
            reason = _refusal(wish)
            if reason is not None and wish.section in TRAVELLING:
                origin = settings.origins[wish.section, wish.key]
                message = f"[{wish.section}] {wish.key}: {reason}"
                faults.append(Fault(origin.file, origin.line, wish.section, wish.key, message))
        if faults:
            raise ConfigError(faults, hint="train without --url, or leave these to the server")
        return cls(cls.from_settings(settings).wishes)

    def digest(self) -> str:
        """SHA-256 over what is set, the same for INI text and JSON; 64 hexadecimal digits."""
        rows = sorted([w.section.lower(), w.key.lower(), w.text] for w in self.wishes)
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()

    def sections(self) -> dict[str, dict[str, str]]:
        """What is set, as the JSON of a request."""
        found: dict[str, dict[str, str]] = {}
        for wish in self.wishes:
            found.setdefault(wish.section, {})[wish.key] = wish.text
        return found


def laid_over(settings: Settings, overlay: Overlay) -> Settings:
    """The settings of a training: those given, and the client's over them.

    Raises:
        ConfigError: with every fault, and the names of keys that no request may set.
    """
    faults = [*overlay.faults]
    sets: list[str] = []
    lines: dict[tuple[str, str], int | None] = {}
    for wish in overlay.wishes:
        place = (wish.section.lower(), wish.key.lower())
        reason = _refusal(wish, overlay.own) or (
            "given twice, keep one" if place in lines else None
        )
        lines.setdefault(place, wish.line)
        if reason is None:
            sets.append(f"{wish.section}.{wish.key}={wish.text}")
        else:
            message = f"[{shown(wish.section)}] {shown(wish.key)}: {reason}"
            faults.append(_fault(wish.section, wish.key, message, wish.line))
    try:
        merged = load_settings(
            text=settings.to_ini(SECTIONS),
            sets=sets,
            environ=secrets(settings),
            cwd=settings.dirs.root,
        )
    except ConfigError as error:
        faults += [_placed(fault, lines) for fault in error.faults]
    if faults:
        raise ConfigError(faults, hint=_HINT)
    return merged


def _empty(sections: Mapping[str, Origin], wishes: Sequence[Wish]) -> list[Fault]:
    """The unknown sections without a key, which no wish tells of."""
    filled = {wish.section for wish in wishes}
    unknown = {
        section: origin
        for section, origin in sections.items()
        if section not in filled and section.lower() not in _KNOWN
    }
    return unknown_names(Layer(sections=unknown))


def _wishes(settings: Settings) -> Iterator[Wish]:
    """All that a user set on purpose."""
    for row in settings.rows():
        if row.origin != "default":
            yield Wish(row.section, row.key, row.value)


def _is_published(wish: Wish) -> bool:
    return f"{wish.section}.{wish.key}".lower() in _PUBLISHED


def _refusal(wish: Wish, own: bool = False) -> str | None:
    """Why a request may not set this; None if it may, or if nobody knows the name."""
    if not (_NAME.fullmatch(wish.section) and _NAME.fullmatch(wish.key)):
        return "not a name"
    section, key = wish.section.lower(), wish.key.lower()
    if _is_published(wish):
        is_path = (section, key) == ("model", "weights") and wish.text.strip() not in STARTS
        return "a request may set none or default only" if is_path and not own else None
    settable = sorted(
        name.partition(".")[2] for name in _PUBLISHED if name.startswith(f"{section}.")
    )
    if section in _KNOWN and (key in _KNOWN[section] or not settable):
        instead = f"; in [{section}] it may set {listed(settable, 12)}" if settable else ""
        return f"a request may not set this{instead}"
    return None


def _placed(fault: Fault, lines: Mapping[tuple[str, str], int | None]) -> Fault:
    """A fault at the line where the client wrote it."""
    place = ((fault.section or "").lower(), (fault.key or "").lower())
    return _fault(fault.section, fault.key, fault.message, lines.get(place))


def _fault(section: str | None, key: str | None, message: str, line: int | None = None) -> Fault:
    return Fault(FILE, line, section, key, message)


def _nothing(section: str, key: str) -> str:
    """How a key says that it has no value; `none`, mostly a fault, where it must have one."""
    for place, declared in KEYS.items():
        if (section.lower(), key.lower()) == (place[0].lower(), place[1].lower()):
            return next(iter(key_of(declared).none), "none")
    return "none"  # a name that is refused anyway


def _text(value: object) -> str | None:
    """A JSON value as INI text; None if it is no single value."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, str | int | float) else None
