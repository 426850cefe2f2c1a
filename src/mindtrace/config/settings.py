"""`Settings`: every value of the configuration, typed and checked."""

from __future__ import annotations

import dataclasses
import os
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from mindtrace.config import load
from mindtrace.config.ini import DEFAULT, RECIPE, Origin, Place
from mindtrace.config.schema import allowed, ini_text, reasons
from mindtrace.config.sections import (
    KEYS,
    KNOWN,
    SECTIONS,
    TRAVELLING,
    ComputeSettings,
    DataSettings,
    DirSettings,
    JobSettings,
    ModelSettings,
    RegistrySettings,
    ServeSettings,
    TrainSettings,
    default_texts,
)
from mindtrace.config.urls import masked


class Row(NamedTuple):
    """One value in force: as INI text without passwords, and where it came from."""

    section: str
    key: str
    value: str
    origin: str


@dataclass(frozen=True)
class Settings:
    """Every value of the configuration, checked; `origins` by (section, key) of the INI."""

    dirs: DirSettings
    data: DataSettings
    model: ModelSettings
    train: TrainSettings
    registry: RegistrySettings
    serve: ServeSettings
    jobs: JobSettings
    compute: ComputeSettings
    origins: Mapping[Place, Origin] = field(repr=False, compare=False)

    def rows(self) -> list[Row]:
        """Every value in force, in the order of declaration."""
        return [Row(*place, self._text(place), str(self.origins[place])) for place in KEYS]

    def given(self, section: str, key: str) -> bool:
        """Whether a user set it, in whatever layer."""
        return self.origins[section, key] not in (DEFAULT, RECIPE)

    def recipe(self) -> list[tuple[str, str, Any]]:
        """Section, key and default of what a recipe set."""
        own = [place for place in KEYS if self.origins[place] == RECIPE]
        return [(*place, KEYS[place].default) for place in own]

    def to_ini(self, sections: Sequence[str] = TRAVELLING, *, given: bool = False) -> str:
        """INI text that is read back to the same values but for passwords; or of the given ones."""
        blocks = []
        for section in (name for name in SECTIONS if name in sections):
            keys = [key for key in KNOWN[section] if not given or self.given(section, key)]
            texts = {key: self._text((section, key)).replace("$", "$$") for key in keys}
            lines = [f"{key} = {text}".rstrip() for key, text in texts.items()]
            blocks.append("\n".join([f"[{section}]", *lines, ""]))
        return "\n".join(blocks)

    def replace(self, **values: Any) -> Settings:
        """Copy with typed values: `replace(**{"compute.threads": 2})`; KeyError, ValueError."""
        parts: dict[str, Any] = {}
        origins = dict(self.origins)
        for name, value in values.items():
            section, key = place = _found(name)
            attribute = attribute_of(section)
            part = parts.get(attribute, getattr(self, attribute))
            try:
                parts[attribute] = type(part)(**dict(part) | {key.lower(): value})
            except ValidationError as error:
                _, reason = next(reasons(type(part), error))
                raise ValueError(f"[{section}] {key}: {reason}") from None
            origins[place] = Origin("resolved")
        return dataclasses.replace(self, **parts, origins=types.MappingProxyType(origins))

    def _text(self, place: Place) -> str:
        section, name = place
        value = getattr(getattr(self, attribute_of(section)), name.lower())
        return masked(ini_text(KEYS[place], value))


def attribute_of(section: str) -> str:
    """The attribute of `Settings` that holds a section."""
    return "dirs" if section == "DIR_PATHS" else section


def _found(name: str) -> Place:
    """The place that `section.key` names, in any case; `dirs` is a name of DIR_PATHS too."""
    section, _, own = name.lower().partition(".")
    for place in KEYS:
        if own == place[1].lower() and section in (place[0].lower(), attribute_of(place[0])):
            return place
    raise KeyError(name)


def load_settings(
    path: Path | str | None = None,
    *,
    text: str | None = None,
    sets: Sequence[str] = (),
    overrides: Mapping[str, str] = types.MappingProxyType({}),
    environ: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Settings:
    """Read every layer and check everything; ConfigError has every fault.

    Precedence, each over the one before: defaults, MLFLOW_TRACKING_URI, the INI (`text`, else
    the file at `path`, else the one that the variable MindtraceConfig names), the environment
    (`TRAIN__LR`), `sets` (`train.lr=0.01`), `overrides` (`{"train.max_epochs": "3"}` is
    `--max-epochs 3`). Relative paths outside an INI start at `cwd`.
    """
    environ = os.environ if environ is None else environ
    here = Path.cwd() if cwd is None else cwd
    sections, origins = load.read(path, text, sets, overrides, environ, here)
    parts: dict[str, Any] = {attribute_of(name): part for name, part in sections.items()}
    return Settings(**parts, origins=types.MappingProxyType(origins))


def template_ini() -> str:
    """The commented INI of `mindtrace config init`: every key at its default."""
    lines = [_TEMPLATE_HEAD]
    for section, model in SECTIONS.items():
        lines += [f"# {model.__doc__}", f"[{section}]"]
        for name in KNOWN[section]:
            declared = KEYS[section, name]
            lines += ["", f"# {declared.description}", f"#   {allowed(declared)}"]
            lines.append(f"#{name} = {default_texts()[section, name]}".rstrip())
        lines.append("")
    return "\n".join(lines)


_TEMPLATE_HEAD = """\
# Configuration of mindtrace. Every key stands here with its default, commented out:
# take the '#' away to change one. Comments stand on lines of their own.
#
# The environment (TRAIN__LR=0.01), --set train.lr=0.01 and a command's own options come
# before this file. Relative paths start at this file's folder, ~ is your home folder,
# ${SECTION:KEY} is another value and $$ a dollar.
"""
