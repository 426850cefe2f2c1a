"""Room core: the typed configuration; layers go in, `Settings` or all faults come out.

Precedence, each over the one before: defaults, MLFLOW_TRACKING_URI, the INI, the
environment (`TRAIN__LR`), `--set train.lr=0.01`, a command's own options.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from mindtrace.config import checks
from mindtrace.config.interpolation import Resolver
from mindtrace.config.layers import (
    Entry,
    Layer,
    Origin,
    Place,
    located,
    merged,
)
from mindtrace.config.lower_layers import default_layer, ini_layer, mlflow_layer
from mindtrace.config.redact import masked
from mindtrace.config.schema import (
    KNOWN,
    PUBLISHED_KEYS,
    SECTIONS,
    TRAVELLING,
    Key,
    section_of,
)
from mindtrace.config.sections import (
    ComputeSettings,
    DataSettings,
    DirSettings,
    JobSettings,
    ModelSettings,
    RegistrySettings,
    ServeSettings,
    TrainSettings,
)
from mindtrace.config.upper_layers import from_environment, from_options, from_sets
from mindtrace.errors import ConfigError, Fault

__all__ = [
    "PUBLISHED_KEYS",
    "ComputeSettings",
    "DataSettings",
    "DirSettings",
    "JobSettings",
    "ModelSettings",
    "RegistrySettings",
    "Row",
    "ServeSettings",
    "Settings",
    "TrainSettings",
    "load_settings",
]

_NOTHING: Mapping[str, str] = MappingProxyType({})


class Row(NamedTuple):
    """One value in force: as INI text without passwords, and where it came from."""

    section: str
    key: str
    value: str
    origin: str


@dataclass(frozen=True)
class Settings:
    """Everything that mindtrace can be told, checked.

    `origins` tells where each value came from, by (section, key) as in an INI.
    """

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
        """Every value in force, in the schema's order."""
        return [
            Row(
                section.name,
                key.name,
                self._text(section.field, key),
                str(self.origins[section.name, key.name]),
            )
            for section in SECTIONS
            for key in section.keys
        ]

    def to_ini(self, sections: Sequence[str] = TRAVELLING) -> str:
        """INI text of `sections`, which `load_settings` reads back to the same values.

        The passwords of URLs stay behind: they are masked.
        """
        blocks = []
        for section in SECTIONS:
            if section.name in sections:
                texts = [(key.name, self._text(section.field, key)) for key in section.keys]
                lines = [f"{name} = {text.replace('$', '$$')}".rstrip() for name, text in texts]
                blocks.append("\n".join([f"[{section.name}]", *lines, ""]))
        return "\n".join(blocks)

    def replace(self, **values: Any) -> Settings:
        """Copy the settings with other values in some places.

        Args:
            **values: typed values by `section.key`: `replace(**{"compute.threads": 2})`.

        Returns:
            the copy; its origins call those values `resolved`.

        Raises:
            KeyError: there is no such section or key.
            ValueError: the schema does not allow the value.
        """
        parts: dict[str, Any] = {}
        origins = dict(self.origins)
        for name, value in values.items():
            section_name, _, key_name = name.partition(".")
            section = section_of(section_name)
            key = section.key(key_name)
            key.kind.parse(key.kind.render(value))
            part = parts.get(section.field, getattr(self, section.field))
            parts[section.field] = replace(part, **{key.name.lower(): value})
            origins[section.name, key.name] = Origin("resolved")
        return replace(self, **parts, origins=MappingProxyType(origins))

    def _text(self, section_field: str, key: Key) -> str:
        value = getattr(getattr(self, section_field), key.name.lower())
        return masked(key.kind.render(value))


def load_settings(
    path: Path | str | None = None,
    *,
    text: str | None = None,
    sets: Sequence[str] = (),
    overrides: Mapping[str, str] = _NOTHING,
    environ: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Settings:
    """Read every layer, check everything, build the settings.

    Args:
        path: an INI; None is the one that the variable MindtraceConfig names, if any.
        text: INI text in place of a file; faults call it `config`.
        sets: `section.key=value`.
        overrides: options of a command: `{"train.max_epochs": "3"}` is `--max-epochs 3`.
        environ: the environment; None is that of this process.
        cwd: where relative paths outside an INI start; None is the working directory.

    Returns:
        the settings in force.

    Raises:
        ConfigError: with every fault of every layer.
    """
    environ = os.environ if environ is None else environ
    here = Path.cwd() if cwd is None else cwd
    layers = [
        default_layer(),
        mlflow_layer(environ, here),
        ini_layer(path, text, environ, here),
        from_environment(environ, KNOWN, here),
        from_sets(sets, KNOWN, here),
        from_options(overrides, here),
    ]
    faults = [*(fault for layer in layers for fault in layer.faults)]
    faults += [fault for layer in layers for fault in checks.unknown_names(layer)]
    checks.without_stale_folder(layers)
    entries = {place: e for place, e in merged(layers).items() if checks.is_known(place)}
    reader = checks.ValueReader()
    resolver = Resolver(entries, reader.finish)
    resolver.resolve()
    faults += resolver.faults + reader.faults + checks.across(entries, reader.values)
    if faults:
        raise ConfigError(_in_order(faults, layers), hint=_hint(path, here))
    return _built(entries, reader.values)


def _built(entries: Mapping[Place, Entry], values: Mapping[Place, Any]) -> Settings:
    def part(name: str) -> dict[str, Any]:
        return {key.lower(): values[name, key] for key in KNOWN[name]}

    return Settings(
        dirs=DirSettings(**part("DIR_PATHS")),
        data=DataSettings(**part("data")),
        model=ModelSettings(**part("model")),
        train=TrainSettings(**part("train")),
        registry=RegistrySettings(**part("registry")),
        serve=ServeSettings(**part("serve")),
        jobs=JobSettings(**part("jobs")),
        compute=ComputeSettings(**part("compute")),
        origins=MappingProxyType({place: entry.origin for place, entry in entries.items()}),
    )


def _in_order(faults: Sequence[Fault], layers: Sequence[Layer]) -> list[Fault]:
    """By layer, then by line: the order in which a person mends them."""
    rank = {
        file: position
        for position, layer in enumerate(layers)
        for file in (
            *(fault.file for fault in layer.faults),
            *(entry.origin.file for entry in layer.entries.values()),
        )
    }
    return sorted(faults, key=lambda fault: (rank.get(fault.file, 0), fault.line or 0))


def _hint(path: Path | str | None, here: Path) -> str:
    # os.path's own test, as Path's raises where a folder may not be entered
    if path is not None and not os.path.exists(located(path, here)):  # noqa: PTH110
        return f"mindtrace config init {path}"
    return "mindtrace config init - shows every key, its default and what it takes"
