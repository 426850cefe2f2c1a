"""A client's request for a training: read from INI text or JSON, checked, laid over settings.

A client may set what makes a training; paths, addresses, commands and whatever else belongs
to the machine stay the server's own.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args, get_origin

from pydantic import ConfigDict, Field, create_model

from mindtrace.config.ini import Layer, Origin, read_ini
from mindtrace.config.schema import allowed, key_of
from mindtrace.config.sections import KEYS, KNOWN, PUBLISHED, STARTS, TRAVELLING
from mindtrace.config.settings import Settings, load_settings, own_spelling
from mindtrace.config.urls import shown
from mindtrace.errors import ConfigError, Fault, listed

FILE = "config"
# The sections of the server's own configuration that a training needs.
TRAINED_WITH = ("DIR_PATHS", "data", "model", "train", "registry", "compute")
_HINT = "GET /openapi.json lists what a request may set, with examples"
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True)
class RetrainRequest:
    """What a client asks for; `layer.faults` are those of its form, nothing else is checked yet."""

    layer: Layer = field(default_factory=Layer)
    own: bool = False  # of the machine that trains, so it may name a file there
    base: str | None = None  # a version whose configuration is laid over the server's own
    warm_start: bool = False  # begin with that version's weights
    force: bool = False  # train even if the same was trained before
    allow_leakage: bool = False  # accept images in more than one split

    @classmethod
    def from_ini(cls, text: str | bytes, **options: Any) -> Self:
        """Read INI text; `${...}` is not replaced. `options`: base and the flags."""
        return cls(read_ini(text, FILE, base=Path()), **options)

    @classmethod
    def from_mapping(cls, sections: Mapping[str, Any], **options: Any) -> Self:
        """Read `{"train": {"max_epochs": 1}}`; values are strings, numbers, true, false, null."""
        layer, origin = Layer(), Origin(FILE)
        for section, keys in sections.items():
            if not isinstance(keys, Mapping):
                layer.fault(origin, f"[{shown(section)}]: must be an object", (section, None))
                continue
            layer.sections[section] = origin
            for key, value in keys.items():
                text = _none_text(section, key) if value is None else _text(value)
                if text is None:
                    message = f"[{shown(section)}] {shown(key)}: must be a single value"
                    layer.fault(origin, message, (section, key))
                else:
                    layer.put(section, key, text, origin)
        return cls(layer, **options)

    @classmethod
    def from_settings(cls, settings: Settings, **options: Any) -> Self:
        """All that a user set and a request may set; for jobs of this machine."""
        layer = Layer()
        for row in settings.rows():
            if settings.given(row.section, row.key) and (row.section, row.key) in PUBLISHED:
                layer.put(row.section, row.key, row.value, Origin(FILE))
        return cls(layer, own=True, **options)

    @classmethod
    def for_server(cls, settings: Settings, **options: Any) -> Self:
        """The same for a server elsewhere; ConfigError for what it would not accept."""
        faults = []
        for row in settings.rows():
            place = row.section, row.key
            if settings.given(*place) and row.section in TRAVELLING:
                reason = _refusal(*place, row.value)
                if reason is not None:
                    origin = settings.origins[place]
                    message = f"[{row.section}] {row.key}: {reason}"
                    faults.append(Fault(origin.file, origin.line, *place, message))
        if faults:
            raise ConfigError(faults, hint="leave these to the server, or train here")
        return cls(cls.from_settings(settings).layer, **options)

    def digest(self) -> str:
        """SHA-256 over all of it, the same for INI text and JSON; 64 hexadecimal digits."""
        values = sorted(
            [section.lower(), key.lower(), entry.text]
            for (section, key), entry in self.layer.entries.items()
        )
        # As older releases had it, which did not know the last one.
        flags = [self.warm_start, self.force, *[True] * self.allow_leakage]
        return _sha256([_sha256(values), self.base, *flags])

    def document(self) -> dict[str, Any]:
        """The JSON body that asks a server for the same."""
        found: dict[str, Any] = {}
        for (section, key), entry in self.layer.entries.items():
            found.setdefault(section, {})[key] = entry.text
        return found | {name: given for name in OPTIONS if (given := getattr(self, name))}

    def laid_over(self, settings: Settings, environ: Mapping[str, str]) -> Settings:
        """The settings of a training; `environ` holds values with passwords. ConfigError."""
        faults, layer = [*self.layer.faults], Layer()
        for (section, key), entry in self.layer.entries.items():
            place, line = own_spelling(section, key), entry.origin.line
            reason = _refusal(section, key, entry.text, self.own)
            if reason is None and place in layer.entries:
                reason = "given twice, keep one"
            if reason is None:
                layer.put(*place, entry.text, Origin(FILE, line, literal=True))
            else:
                message = f"[{shown(section)}] {shown(key)}: {reason}"
                faults.append(Fault(FILE, line, section, key, message))
        for section, origin in self.layer.sections.items():
            layer.sections[own_spelling(section, "")[0]] = origin
        try:
            text = settings.to_ini(TRAINED_WITH, given=True)
            root = settings.dirs.root
            merged = load_settings(text=text, environ=environ, cwd=root, above=[layer])
        except ConfigError as error:
            for fault in error.faults:  # the lines of our own text say nothing to a client
                own = (fault.section or "", fault.key or "") not in layer.entries
                faults.append(replace(fault, line=None) if own and fault.key else fault)
        if faults:
            raise ConfigError(faults, hint=_HINT)
        return merged


def _sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def _refusal(section: str, key: str, text: str, own: bool = False) -> str | None:
    """Why a request may not set this; None if it may, or if the name is unknown."""
    if not (_NAME.fullmatch(section) and _NAME.fullmatch(key)):
        return "not a name"
    section, key = place = own_spelling(section, key)
    if place in PUBLISHED:
        is_path = place == ("model", "weights") and text.strip() not in STARTS
        return "a request may set auto, none or default only" if is_path and not own else None
    settable = sorted(name for owner, name in PUBLISHED if owner == section)
    if place in KEYS or (not settable and section in KNOWN):
        instead = f"; in [{section}] it may set {listed(settable, 12)}" if settable else ""
        return f"a request may not set this{instead}"
    return None


def _none_text(section: str, key: str) -> str:
    """How a key writes null; `none`, mostly a fault, where it must have a value."""
    declared = KEYS.get(own_spelling(section, key))
    return next(iter(key_of(declared).none), "none") if declared else "none"


def _text(value: object) -> str | None:
    """A JSON value as INI text; None if it is no single value."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, str | int | float) else None


OPTIONS: dict[str, Any] = {
    "base": {
        "type": ["string", "null"],
        "description": "a version to start from: NAME, NAME@ALIAS or NAME/VERSION; its "
        "configuration is laid over the server's own",
    },
    "warm_start": {"type": "boolean", "description": "begin with the weights of base"},
    "force": {"type": "boolean", "description": "train even if the same was trained before"},
    "allow_leakage": {"type": "boolean", "description": "accept images in more than one split"},
}


def json_schema() -> dict[str, Any]:
    """The JSON schema of a body: the published keys by section, or all as INI text."""
    published = {section for section, _ in PUBLISHED}
    sections = {name: _section_schema(name) for name in KNOWN if name in published}
    text = {"config": {"type": "string", "description": "the same as INI text"}}
    closed = {"type": "object", "additionalProperties": False}
    by_section = {**closed, "properties": {**sections, **OPTIONS}}
    as_text = {**closed, "properties": {**text, **OPTIONS}, "required": ["config"]}
    return {"oneOf": [by_section, as_text]}


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
