"""The layers of a configuration, read and merged: sections and origins, or every fault at once."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from mindtrace.config.ini import (
    CONFIG_VARIABLE,
    DEFAULT,
    RECIPE,
    Entry,
    Layer,
    Origin,
    Place,
    Resolver,
    located,
    merged,
    read_ini,
    read_ini_file,
    value_fault,
)
from mindtrace.config.rules import conflicts, recipe
from mindtrace.config.schema import Section, key_of, reasons
from mindtrace.config.sections import (
    KEYS,
    KNOWN,
    PHOTO_SOURCES,
    SECTIONS,
    default_texts,
    ini_name,
)
from mindtrace.config.urls import shown
from mindtrace.errors import ConfigError, Fault, listed, nearest

MANY = 100  # unknown names that are reported one by one


def read(
    path: Path | str | None,
    text: str | None,
    sets: Sequence[str],
    overrides: Mapping[str, str],
    environ: Mapping[str, str],
    here: Path,
) -> tuple[dict[str, Section], dict[Place, Origin]]:
    """Every section by its name in an INI, and where each value comes from."""
    defaults = {place: Entry(text, DEFAULT) for place, text in default_texts().items()}
    layers = [
        Layer(defaults),
        _mlflow(environ, here),
        _ini(path, text, environ, here),
        _environment(environ, here),
        _sets(sets, here),
        _options(overrides, here),
    ]
    faults = [fault for layer in layers for fault in (*layer.faults, *unknown_names(layer))]
    _drop_stale_folder(layers)
    entries = {place: entry for place, entry in merged(layers).items() if place in KEYS}
    resolver = Resolver(entries, _finished)
    texts = resolver.resolve()
    starts = recipe(texts, {place for layer in layers[1:] for place in layer.entries})
    entries |= {place: Entry(text, RECIPE) for place, text in starts.items()}
    sections, bad_values = _validated(texts | starts, entries)
    faults += resolver.faults + bad_values
    if faults:
        raise ConfigError(_in_order(faults, layers), hint=_hint(path, here))
    return sections, {place: entry.origin for place, entry in entries.items()}


def _finished(place: Place, entry: Entry, text: str) -> str:
    """A text without white space around it, its paths absolute."""
    own = key_of(KEYS[place])
    text = text.strip()
    if own.kind is None or own.kind.anchor is None or text in own.none:
        return text
    return own.kind.anchor(text, entry.origin.base or Path.cwd())


def _validated(
    texts: Mapping[Place, str], entries: Mapping[Place, Entry]
) -> tuple[dict[str, Section], list[Fault]]:
    """The sections, and a fault for each bad value."""
    sections: dict[str, Section] = {}
    bad = [*conflicts(texts)]
    for section, model in SECTIONS.items():
        own = {name.lower(): text for (owner, name), text in texts.items() if owner == section}
        try:
            sections[section] = model.model_validate(own)
        except ValidationError as error:
            found = reasons(model, error)
            bad += [((section, ini_name(section, name)), reason) for name, reason in found]
    return sections, [
        value_fault(place, entries[place].origin, texts[place], reason) for place, reason in bad
    ]


def _mlflow(environ: Mapping[str, str], here: Path) -> Layer:
    """MLflow's own variable, honoured below everything that is meant for us."""
    uri = environ.get("MLFLOW_TRACKING_URI")
    origin = Origin("environment MLFLOW_TRACKING_URI", literal=True, base=here)
    return Layer({("registry", "tracking_uri"): Entry(uri, origin)}) if uri else Layer()


def _ini(
    path: Path | str | None, text: str | None, environ: Mapping[str, str], here: Path
) -> Layer:
    if text is not None:
        return read_ini(text, "config", here)
    named = path if path is not None else environ.get(CONFIG_VARIABLE) or None
    if named is None:
        return Layer()
    try:
        return read_ini_file(Path(named), here)
    except FileNotFoundError:
        message = _missing(located(named, here))
        if path is None:
            message += f" (the variable {CONFIG_VARIABLE} names it)"
        return Layer(faults=[Fault(str(named), None, None, None, message)])


def _missing(file: Path) -> str:
    if not file.parent.is_dir():
        return f"no such file; there is no folder {file.parent}"
    others = sorted(other.name for other in file.parent.glob("*.ini"))
    close = nearest(file.name, others)
    meant = f", did you mean '{close}'?" if close else ";"
    return f"no such file{meant} INIs beside it: {listed(others)}"


def _own_spelling(section: str, key: str) -> Place:
    """A section and a key in any case as the schema spells them; unknown ones as they are."""
    for known in (name for name in KNOWN if name.casefold() == section.casefold()):
        own = (name for name in KNOWN[known] if name.casefold() == key.casefold())
        return known, next(own, key)
    return section, key


def _environment(environ: Mapping[str, str], here: Path) -> Layer:
    """The variables `SECTION__KEY`, in any case; those of unknown sections are not ours."""
    layer = Layer()
    for name in sorted(environ):
        head, _, tail = name.partition("__")
        section, key = _own_spelling(head, tail)
        if not tail or section not in KNOWN:
            continue
        origin = Origin(f"environment {name}", literal=True, base=here)
        first = layer.entries.get((section, key))
        if first is not None and first.text != environ[name]:
            message = f"[{section}] {key}: also given by {first.origin.file}; unset one"
            layer.fault(origin, message, (section, key))
        else:
            layer.put(section, key, environ[name], origin)
    return layer


def _sets(sets: Sequence[str], here: Path) -> Layer:
    """`section.key=value`; of two for one key the later counts."""
    layer = Layer()
    for argument in sets:
        name, equals, value = argument.partition("=")
        head, dot, tail = (part.strip() for part in name.partition("."))
        origin = Origin(f"--set {shown(name.strip())}", literal=True, base=here)
        if equals and dot and head and tail:
            layer.put(*_own_spelling(head, tail), value.strip(), origin)
        else:
            message = "write it as section.key=value, such as train.lr=0.01"
            layer.fault(origin, message, (None, None))
    return layer


def _options(overrides: Mapping[str, str], here: Path) -> Layer:
    layer = Layer()
    for name, value in overrides.items():
        section, _, key = name.partition(".")
        # The network's name is chosen by `--model`; a `--name` alone would say nothing.
        flag = section if key == "name" else key
        origin = Origin(f"--{flag.replace('_', '-').lower()}", literal=True, base=here)
        layer.put(section, key, value, origin)
    return layer


def _drop_stale_folder(layers: Sequence[Layer]) -> None:
    """`--set data.source=digits` is enough over an INI that names a folder."""
    source, folder = ("data", "source"), ("data", "dir")
    for position, layer in enumerate(layers):
        chosen = layer.entries.get(source)
        if chosen is not None and chosen.text not in PHOTO_SOURCES and folder not in layer.entries:
            for below in layers[1:position]:
                below.entries.pop(folder, None)


def unknown_names(layer: Layer) -> list[Fault]:
    """One fault for each unknown section, and for each unknown key of a known one."""
    places: list[tuple[str, str | None]]
    places = [(section, None) for section in layer.sections if section not in SECTIONS]
    places += [place for place in layer.entries if place[0] in SECTIONS and place not in KEYS]
    faults: list[Fault] = []
    for section, key in places[: MANY + 1]:
        origin = layer.sections[section] if key is None else layer.entries[section, key].origin
        if len(faults) == MANY:  # to look for what thousands might mean would take seconds
            message = f"and {len(places) - MANY:,} more unknown names from here on"
        elif key is None:
            message = f"[{shown(section)}]: unknown section{_section_meant(section)}"
        else:
            message = f"[{section}] {shown(key)}: unknown key{_key_meant(section, key)}"
        faults.append(Fault(origin.file, origin.line, section, key, message))
    return faults


def _section_meant(name: str) -> str:
    meant = _closest(name, {section: model.synonyms.split() for section, model in SECTIONS.items()})
    return f", did you mean [{meant}]?" if meant else f"; there are: {listed([*SECTIONS])}"


def _key_meant(section: str, name: str) -> str:
    names = KNOWN[section]
    if meant := _closest(name, names):
        return f", did you mean '{meant}'?"
    for other, others in KNOWN.items():
        if meant := _named(name, others):
            return f", did you mean '{meant}' in [{other}]?"
    return f"; [{section}] has: {listed([*names], limit=len(names))}"


def _closest(name: str, known: Mapping[str, Sequence[str]]) -> str | None:
    close = {own.lower(): own for own in known}
    return _named(name, known) or close.get(nearest(name.lower(), close) or "")


def _named(name: str, known: Mapping[str, Sequence[str]]) -> str | None:
    """The one of `known` that is `name` but for case and dashes, or has it as a synonym."""
    folded = name.strip().lower().replace("-", "_").replace(" ", "_")
    return next((own for own in known if folded in (own.lower(), *known[own])), None)


def _in_order(faults: Sequence[Fault], layers: Sequence[Layer]) -> list[Fault]:
    """By layer, then by line: the order in which a person mends them."""
    rank: dict[str, int] = {}
    for position, layer in enumerate(layers):
        rank |= {fault.file: position for fault in layer.faults}
        rank |= {entry.origin.file: position for entry in layer.entries.values()}
    return sorted(faults, key=lambda fault: (rank.get(fault.file, 0), fault.line or 0))


def _hint(path: Path | str | None, here: Path) -> str:
    # os.path's own test, as Path's raises where a folder may not be entered
    if path is not None and not os.path.exists(located(path, here)):  # noqa: PTH110
        return f"mindtrace config init {path}"
    return "mindtrace config init - shows every key, its default and what it takes"
