"""`Config`: an INI as sections of texts; it keeps whatever it reads and knows no types."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from mindtrace.config import ini
from mindtrace.config.urls import masked
from mindtrace.errors import ConfigError, listed

T = TypeVar("T")


class _Names(dict[str, T]):
    """A dict whose `keys` and `items` are lists, as they have always been here."""

    def keys(self) -> list[str]:  # type: ignore[override]
        """The names, in the order in which they were read."""
        return [*self]

    def items(self) -> list[tuple[str, T]]:  # type: ignore[override]
        """The names and what is behind them."""
        return [*super().items()]


class ConfigSection(_Names[str]):
    """One section: key -> text with references replaced; keys keep their case."""

    def __init__(self, name: str, texts: Mapping[str, str]) -> None:
        super().__init__(texts)
        self.name = name

    def __missing__(self, key: str) -> str:
        raise KeyError(f"no key '{key}' in [{self.name}]; there are: {listed([*self])}")

    def __repr__(self) -> str:
        return f"ConfigSection({self.name!r}, {_without_passwords(self)})"


class Config(_Names[ConfigSection]):
    """The user's INI over the packaged one, below the environment.

    A variable `{SECTION}__{KEY}` in capitals replaces the value of a key that exists; it is
    taken as it stands. `${SECTION:KEY}` is replaced after that, so `DIR_PATHS__ROOT` moves
    DATA as well.

    Args:
        config_path: an INI; None is the one that the variable MindtraceConfig names, and
            the packaged one alone if there is no such variable.

    Raises:
        FileNotFoundError: the user's INI does not exist.
        ConfigError: it cannot be read; all faults at once.

    Example::

        config = Config()
        config["DIR_PATHS"]["ROOT"]
    """

    def __init__(self, config_path: str | Path | None = None) -> None:
        layers = [ini.packaged_layer()]
        if path := config_path or os.environ.get(ini.CONFIG_VARIABLE):
            try:
                layers.append(ini.read_ini_file(Path(path), Path.cwd()))
            except FileNotFoundError:
                raise FileNotFoundError(f"no such configuration file: {path}") from None
        entries = {place: entry for layer in layers for place, entry in layer.entries.items()}
        for place in entries:
            if (variable := "__".join(place).upper()) in os.environ:
                origin = ini.Origin(f"environment {variable}", literal=True)
                entries[place] = ini.Entry(os.environ[variable], origin)
        texts, faults = ini.resolve(entries, lambda place, entry, text: os.path.expanduser(text))  # noqa: PTH111 - a text, not a path
        if faults := [*layers[-1].faults, *faults]:
            raise ConfigError(faults)
        for section in (name for layer in layers for name in layer.sections):
            own = {key: text for (owner, key), text in texts.items() if owner == section}
            self[section] = ConfigSection(section, own)

    def __missing__(self, section: str) -> ConfigSection:
        raise KeyError(f"no section '{section}'; there are: {listed([*self])}")

    def as_dict(self) -> dict[str, dict[str, str]]:
        """Section -> key -> text, as plain dicts."""
        return {name: {**section} for name, section in self.items()}

    def __str__(self) -> str:
        """The same as JSON; passwords in URLs are masked."""
        shown = {name: _without_passwords(section) for name, section in self.items()}
        return json.dumps(shown, indent=4, ensure_ascii=False)

    def __repr__(self) -> str:
        return f"Config({', '.join(self)})"


def _without_passwords(texts: Mapping[str, str]) -> dict[str, str]:
    return {key: masked(text) for key, text in texts.items()}
