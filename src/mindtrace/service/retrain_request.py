"""What a client asks of a training: read from INI text or JSON, checked, laid over settings.

A client may set what makes a training; paths, addresses, commands and whatever else belongs
to the machine stay the server's own.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self, get_args, get_origin

from pydantic import ConfigDict, Field, create_model

from mindtrace.config.ini import Layer, Origin, Place, read_ini
from mindtrace.config.load import unknown_names
from mindtrace.config.schema import allowed, key_of
from mindtrace.config.sections import KEYS, KNOWN, PUBLISHED_KEYS, STARTS, TRAVELLING
from mindtrace.config.settings import Settings, load_settings
from mindtrace.config.urls import shown
from mindtrace.errors import ConfigError, Fault, listed

FILE = "config"
# What of the server's own configuration a training needs.
SECTIONS = ("DIR_PATHS", "data", "model", "train", "registry", "compute")
_HINT = "GET /openapi.json lists what a request may set, with examples"
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_KEYS = {(section.lower(), key.lower()): found for (section, key), found in KEYS.items()}
_PUBLISHED = {(section, key) for section, key in _KEYS if f"{section}.{key}" in PUBLISHED_KEYS}


class Value(NamedTuple):
    """One key that a client sets; `line` is None where it was not INI text."""

    section: str
    key: str
    text: str
    line: int | None = None

    @property
    def place(self) -> Place:
        """Section and key, whose case does not matter here."""
        return self.section.lower(), self.key.lower()


@dataclass(frozen=True)
class RetrainRequest:
    """What a client asks for; `faults` are of how it was written, nothing else is checked yet."""

    values: tuple[Value, ...] = ()
    faults: tuple[Fault, ...] = ()
    own: bool = False  # of the machine that trains, so it may name a file there
    base: str | None = None  # a version whose configuration is laid over the server's own
    warm_start: bool = False  # begin with that version's weights
    force: bool = False  # train even if the same was trained before

    @classmethod
    def from_ini(cls, text: str, **options: Any) -> Self:
        """Read INI text; `${...}` in it means itself. `options`: base, warm_start, force."""
        layer = read_ini(text, FILE, base=Path())
        values = tuple(
            Value(*place, entry.text, entry.origin.line) for place, entry in layer.entries.items()
        )
        empty = _unknown_without_keys(layer.sections, values)
        return cls(values, (*layer.faults, *empty), **options)

    @classmethod
    def from_mapping(cls, sections: Mapping[str, Any], **options: Any) -> Self:
        """Read `{"train": {"max_epochs": 1}}`; values are strings, numbers, true, false, null."""
        values: list[Value] = []
        faults: list[Fault] = []
        for section, keys in sections.items():
            if not isinstance(keys, Mapping):
                faults.append(_fault(section, None, f"[{shown(section)}]: must be an object"))
                continue
            for key, value in keys.items():
                text = _none_text(section, key) if value is None else _text(value)
                if text is None:
                    message = f"[{shown(section)}] {shown(key)}: must be a single value"
                    faults.append(_fault(section, key, message))
                else:
                    values.append(Value(section, key, text))
        objects = [name for name, keys in sections.items() if isinstance(keys, Mapping)]
        empty = _unknown_without_keys(dict.fromkeys(objects, Origin(FILE)), values)
        return cls(tuple(values), (*faults, *empty), **options)

    @classmethod
    def from_settings(cls, settings: Settings, **options: Any) -> Self:
        """What a user set on purpose, of that which a request may set; for jobs of our own."""
        values = tuple(value for value in _set_values(settings) if value.place in _PUBLISHED)
        return cls(values, own=True, **options)

    @classmethod
    def for_server(cls, settings: Settings, **options: Any) -> Self:
        """The same for a server elsewhere; ConfigError for what it would not take over."""
        faults = []
        for value in _set_values(settings):
            reason = _refusal(value)
            if reason is not None and value.section in TRAVELLING:
                origin = settings.origins[value.section, value.key]
                message = f"[{value.section}] {value.key}: {reason}"
                faults.append(Fault(origin.file, origin.line, value.section, value.key, message))
        if faults:
            raise ConfigError(faults, hint="train without --url, or leave these to the server")
        return cls(cls.from_settings(settings).values, **options)

    def digest(self) -> str:
        """SHA-256 over all of it, the same for INI text and JSON; 64 hexadecimal digits."""
        return _sha256([values_digest(self.values), self.base, self.warm_start, self.force])

    def document(self) -> dict[str, Any]:
        """The JSON body that asks a server for the same."""
        found: dict[str, Any] = {}
        for value in self.values:
            found.setdefault(value.section, {})[value.key] = value.text
        options = {"base": self.base, "warm_start": self.warm_start, "force": self.force}
        return found | {name: option for name, option in options.items() if option}

    def laid_over(self, settings: Settings, environ: Mapping[str, str]) -> Settings:
        """The settings of a training; `environ` holds values with passwords. ConfigError."""
        faults = [*self.faults]
        sets: list[str] = []
        lines: dict[Place, int | None] = {}
        for value in self.values:
            reason = _refusal(value, self.own)
            if reason is None and value.place in lines:
                reason = "given twice, keep one"
            lines.setdefault(value.place, value.line)
            if reason is None:
                sets.append(f"{value.section}.{value.key}={value.text}")
            else:
                message = f"[{shown(value.section)}] {shown(value.key)}: {reason}"
                faults.append(_fault(value.section, value.key, message, value.line))
        try:
            merged = load_settings(
                text=settings.to_ini(SECTIONS), sets=sets, environ=environ, cwd=settings.dirs.root
            )
        except ConfigError as error:
            for fault in error.faults:  # at the line where the client wrote it
                line = lines.get(((fault.section or "").lower(), (fault.key or "").lower()))
                faults.append(_fault(fault.section, fault.key, fault.message, line))
        if faults:
            raise ConfigError(faults, hint=_HINT)
        return merged


def values_digest(values: Iterable[Value]) -> str:
    """SHA-256 of the keys alone."""
    return _sha256(sorted([*value.place, value.text] for value in values))


def _sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def _unknown_without_keys(
    sections: Mapping[str, Origin], values: Iterable[Value]
) -> Iterable[Fault]:
    """Faults of unknown sections that hold no key; the others are found by their keys."""
    skip = {value.section for value in values}
    known = {section for section, _ in _KEYS}
    return unknown_names(
        Layer(
            sections={
                name: origin
                for name, origin in sections.items()
                if name not in skip and name.lower() not in known
            }
        )
    )


def _set_values(settings: Settings) -> Iterator[Value]:
    """All that a user set on purpose."""
    for row in settings.rows():
        if row.origin != "default":
            yield Value(row.section, row.key, row.value)


def _refusal(value: Value, own: bool = False) -> str | None:
    """Why a request may not set this; None if it may, or if nobody knows the name."""
    if not (_NAME.fullmatch(value.section) and _NAME.fullmatch(value.key)):
        return "not a name"
    if value.place in _PUBLISHED:
        is_path = value.place == ("model", "weights") and value.text.strip() not in STARTS
        return "a request may set none or default only" if is_path and not own else None
    section = value.place[0]
    settable = sorted(key for owner, key in _PUBLISHED if owner == section)
    if value.place in _KEYS or (not settable and any(owner == section for owner, _ in _KEYS)):
        instead = f"; in [{section}] it may set {listed(settable, 12)}" if settable else ""
        return f"a request may not set this{instead}"
    return None


def _fault(section: str | None, key: str | None, message: str, line: int | None = None) -> Fault:
    return Fault(FILE, line, section, key, message)


def _none_text(section: str, key: str) -> str:
    """How a key writes null; `none`, mostly a fault, where it must have a value."""
    declared = _KEYS.get((section.lower(), key.lower()))
    return next(iter(key_of(declared).none), "none") if declared else "none"


def _text(value: object) -> str | None:
    """A JSON value as INI text; None if it is no single value."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, str | int | float) else None


_OPTIONS: dict[str, Any] = {
    "base": {
        "type": ["string", "null"],
        "description": "a version to start from: NAME, NAME@ALIAS or NAME/VERSION; its "
        "configuration is laid over the server's own",
    },
    "warm_start": {"type": "boolean", "description": "begin with the weights of base"},
    "force": {"type": "boolean", "description": "train even if the same was trained before"},
}


def json_schema() -> dict[str, Any]:
    """The JSON schema of a body: the published keys by section, or all as INI text."""
    sections = {
        name: _section_schema(name)
        for name in KNOWN
        if any(key.startswith(f"{name}.") for key in PUBLISHED_KEYS)
    }
    text = {"config": {"type": "string", "description": "the same as INI text"}}
    closed = {"type": "object", "additionalProperties": False}
    return {
        "oneOf": [
            {**closed, "properties": {**sections, **_OPTIONS}},
            {**closed, "properties": {**text, **_OPTIONS}, "required": ["config"]},
        ]
    }


def _section_schema(section: str) -> dict[str, Any]:
    """From the declarations; a value may be written as INI text too, as the reader takes it."""
    fields: dict[str, Any] = {}
    for key in KNOWN[section]:
        declared = KEYS[section, key]
        if not key_of(declared).request:
            continue
        kind: Any = declared.annotation
        if (section, key) == ("model", "weights"):
            kind = Literal[STARTS]
        choices = get_args(kind) if get_origin(kind) is Literal else ()
        if declared.metadata:
            kind = Annotated[kind, *declared.metadata]
        if kind is bool:
            kind = kind | Literal[0, 1]
        elif "none" in choices:
            kind = kind | None
        elif key == "model_name":
            kind = kind | float | bool
        about = f"{declared.description}; {allowed(declared)}"
        fields[key] = kind | str, Field(declared.default, description=about)
    model = create_model(section, __config__=ConfigDict(extra="forbid"), **fields)
    schema: dict[str, Any] = model.model_json_schema()
    return schema
