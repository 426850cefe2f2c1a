"""`Settings`: every value of the configuration, typed, or every fault of all its layers at once."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from mindtrace.config import ini
from mindtrace.config.networks import conflicts, recipe
from mindtrace.config.schema import allowed, ini_text, key_of, reasons
from mindtrace.config.sections import (
    KEYS,
    KNOWN,
    PHOTO_SOURCES,
    SECTIONS,
    SYNONYMS,
    TRAVELLING,
    Sections,
    default_texts,
)
from mindtrace.config.urls import masked, shown
from mindtrace.errors import ConfigError, Fault, UsageError, listed, meant

MANY = 100  # unknown names that are reported: to look for what thousands mean takes seconds


class Row(NamedTuple):
    """One value in force: as INI text without passwords, and where it came from."""

    section: str
    key: str
    value: str
    origin: str


@dataclass(frozen=True)
class Settings(Sections):
    """Every value of the configuration, checked; `origins` by (section, key) of the INI."""

    origins: Mapping[ini.Place, ini.Origin] = field(repr=False, compare=False)

    def rows(self) -> list[Row]:
        """Every value in force, in the order of declaration."""
        return [Row(*place, self._text(place), str(self.origins[place])) for place in KEYS]

    def given(self, section: str, key: str) -> bool:
        """Whether a user set it, in whatever layer."""
        return self.origins[section, key] not in (ini.DEFAULT, ini.RECIPE)

    def recipe(self) -> list[tuple[str, str, Any]]:
        """Section, key and default of what a recipe set."""
        own = [place for place in KEYS if self.origins[place] == ini.RECIPE]
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
            section, key = place = _PLACES[name.lower().replace("dir_paths", "dirs")]
            attribute = _attribute(section)
            part = parts.get(attribute, getattr(self, attribute))
            try:
                parts[attribute] = type(part)(**dict(part) | {key.lower(): value})
            except ValidationError as error:
                reason = reasons(type(part), error)[key.lower()]
                raise ValueError(f"[{section}] {key}: {reason}") from None
            origins[place] = ini.Origin("resolved")
        return dataclasses.replace(self, **parts, origins=origins)

    def _text(self, place: ini.Place) -> str:
        section, name = place
        value = getattr(getattr(self, _attribute(section)), name.lower())
        return masked(ini_text(KEYS[place], value))


def _attribute(section: str) -> str:
    """The attribute of `Settings` that holds a section."""
    return "dirs" if section == "DIR_PATHS" else section


_PLACES = {f"{_attribute(section)}.{key.lower()}": (section, key) for section, key in KEYS}


def load_settings(
    path: Path | str | None = None,
    *,
    text: str | None = None,
    sets: Sequence[str] = (),
    overrides: Mapping[str, str] = {},
    environ: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    above: Sequence[ini.Layer] = (),
) -> Settings:
    """Read every layer and check everything; ConfigError has every fault.

    Precedence, each over the one before: defaults, MLFLOW_TRACKING_URI, the INI (`text`, else
    the file at `path`, else the one that the variable MindtraceConfig names), the environment
    (`TRAIN__LR`), `sets` (`train.lr=0.01`), `overrides` (`{"train.max_epochs": "3"}` is
    `--max-epochs 3`), `above`. Relative paths outside an INI start at `cwd`.
    """
    try:
        here = Path.cwd() if cwd is None else cwd
    except FileNotFoundError as error:
        hint = "go to a folder that is there, then the same command"
        raise UsageError("the working directory was deleted", hint=hint) from error
    environ = os.environ if environ is None else environ
    defaults = ini.Layer()
    for place, default in default_texts().items():
        defaults.put(*place, default, ini.DEFAULT)
    if uri := environ.get("MLFLOW_TRACKING_URI"):  # MLflow's own, below all of ours
        origin = ini.Origin("environment MLFLOW_TRACKING_URI", literal=True, base=here)
        defaults.put("registry", "tracking_uri", uri, origin)
    layers = [defaults, _ini(path, text, environ, here), _environment(environ, here)]
    layers += [_sets(sets, here), _options(overrides, here), *above]
    faults = [fault for layer in layers for fault in (*layer.faults, *unknown_names(layer))]
    folder, entries = ("data", "dir"), dict[ini.Place, ini.Entry]()
    for layer in layers:
        source = layer.entries.get(("data", "source"))
        if source is not None and source.text not in PHOTO_SOURCES:
            # `--set data.source=digits` is enough over an INI that names a folder.
            entries[folder] = defaults.entries[folder]
        entries |= {place: entry for place, entry in layer.entries.items() if place in KEYS}
    texts, unresolved = ini.resolve(entries, _finished)
    given = {place for place, entry in entries.items() if entry.origin != ini.DEFAULT}
    starts = recipe(texts, given)
    entries |= {place: ini.Entry(start, ini.RECIPE) for place, start in starts.items()}
    sections, bad = _checked(texts | starts)
    faults += unresolved
    faults += (ini.value_fault(one, entries[one], reason, texts[one]) for one, reason in bad)
    if faults:
        faults.sort(key=lambda fault: (fault.line is None, fault.line))
        hint = "mindtrace config init -  # shows every key, its default and what it takes"
        raise ConfigError(faults, hint=hint)
    origins = {place: entry.origin for place, entry in entries.items()}
    return Settings(**sections, origins=origins)


def _finished(place: ini.Place, entry: ini.Entry, text: str) -> str:
    """A text without white space around it, its paths absolute."""
    own = key_of(KEYS[place])
    text = text.strip()
    if own.kind is None or own.kind.anchor is None or text in own.none:
        return text
    return own.kind.anchor(text, entry.origin.base or Path.cwd())


def _checked(texts: Mapping[ini.Place, str]) -> tuple[dict[str, Any], list[tuple[ini.Place, str]]]:
    """The sections by their attributes; and each place of a bad value, with the reason."""
    sections: dict[str, Any] = {}
    bad = [*conflicts(texts)]
    for section, model in SECTIONS.items():
        own = {name.lower(): text for (owner, name), text in texts.items() if owner == section}
        try:
            sections[_attribute(section)] = model.model_validate(own)
        except ValidationError as error:
            found = reasons(model, error).items()
            bad += [(own_spelling(section, name), reason) for name, reason in found]
    return sections, bad


def _ini(
    path: Path | str | None, text: str | None, environ: Mapping[str, str], here: Path
) -> ini.Layer:
    if text is not None:
        return ini.read_ini(text, "config", here)
    named = path if path is not None else environ.get(ini.CONFIG_VARIABLE) or None
    if named is None:
        return ini.Layer()
    try:
        return ini.read_ini_file(Path(named), here)
    except FileNotFoundError:
        file = ini.located(named, here)
        others = sorted(other.name for other in file.parent.glob("*.ini"))
        suggestion = meant(file.name, others, otherwise=";")
        message = f"no such file{suggestion} INIs beside it: {listed(others)}"
        if path is None:
            message += f" (the variable {ini.CONFIG_VARIABLE} names it)"
        return ini.Layer(faults=[Fault(str(named), None, None, None, message)])


def own_spelling(section: str, key: str) -> ini.Place:
    """A section and a key in any case as the schema spells them; unknown ones as they are."""
    for known in (name for name in KNOWN if name.casefold() == section.casefold()):
        own = (name for name in KNOWN[known] if name.casefold() == key.casefold())
        return known, next(own, key)
    return section, key


def _environment(environ: Mapping[str, str], here: Path) -> ini.Layer:
    """The variables `SECTION__KEY`, in any case; those of unknown sections are not ours."""
    layer = ini.Layer()
    for name in sorted(environ):
        head, _, tail = name.partition("__")
        section, key = own_spelling(head, tail)
        if tail and section in KNOWN:
            origin = ini.Origin(f"environment {name}", literal=True, base=here)
            first = layer.entries.get((section, key))
            if first is not None and first.text != environ[name]:
                message = f"[{section}] {key}: also given by {first.origin}; unset one"
                layer.fault(origin, message, (section, key))
            layer.put(section, key, environ[name], origin)
    return layer


def _sets(sets: Sequence[str], here: Path) -> ini.Layer:
    """`section.key=value`; of two for one key the later counts."""
    layer = ini.Layer()
    for argument in sets:
        name, equals, value = argument.partition("=")
        head, dot, tail = (part.strip() for part in name.partition("."))
        origin = ini.Origin(f"--set {shown(name.strip())}", literal=True, base=here)
        if equals and dot and head and tail:
            layer.put(*own_spelling(head, tail), value.strip(), origin)
        else:
            message = "write it as section.key=value, such as train.lr=0.01"
            layer.fault(origin, message, (None, None))
    return layer


def _options(overrides: Mapping[str, str], here: Path) -> ini.Layer:
    layer = ini.Layer()
    for name, value in overrides.items():
        section, _, key = name.partition(".")
        # The network's name is chosen by `--model`; a `--name` alone would say nothing.
        flag = section if key == "name" else key
        origin = ini.Origin(f"--{flag.replace('_', '-').lower()}", literal=True, base=here)
        layer.put(section, key, value, origin)
    return layer


def unknown_names(layer: ini.Layer) -> list[Fault]:
    """One fault for each unknown section, and for each unknown key of a known one."""
    places: list[tuple[str, str | None]]
    places = [(section, None) for section in layer.sections if section not in SECTIONS]
    places += [place for place in layer.entries if place[0] in SECTIONS and place not in KEYS]
    faults: list[Fault] = []
    for section, key in places[:MANY]:
        if key is None:
            origin = layer.sections[section]
            there_are = f"; there are: {listed([*SECTIONS])}"
            like = meant(own_spelling(section, "")[0], SECTIONS, "[{}]", there_are)
            message = f"[{shown(section)}]: unknown section{like}"
        else:
            origin = layer.entries[section, key].origin
            message = f"[{section}] {shown(key)}: unknown key{_key_meant(section, key)}"
        faults.append(Fault(origin.file, origin.line, section, key, message))
    return faults


def _key_meant(section: str, name: str) -> str:
    word = name.strip().lower().replace("-", "_")
    own, names = own_spelling(section, word), KNOWN[section]
    others = [place for place in KEYS if place[1] == word]
    place = own if own in KEYS else SYNONYMS.get(word) or next(iter(others), None)
    if place is None:
        return meant(word, names, otherwise=f"; [{section}] has: {listed(names, len(names))}")
    return f", did you mean '{place[1]}'" + (f" in [{place[0]}]?" if place[0] != section else "?")


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
