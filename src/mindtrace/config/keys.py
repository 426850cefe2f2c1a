"""Room core: what a key and a section of the schema are made of; the table is in `table.py`."""

from __future__ import annotations

from dataclasses import dataclass

from mindtrace.config.values import Kind


@dataclass(frozen=True)
class Key:
    """One key of one section.

    Attributes:
        name: as written in an INI.
        kind: how its text is read.
        default: the text it has if nobody sets it; None where `config.ini` says it.
        doc: one line for people.
        synonyms: names that people from other tools will try, separated by blanks.
    """

    name: str
    kind: Kind
    default: str | None
    doc: str
    synonyms: str = ""


@dataclass(frozen=True)
class Section:
    """One section.

    Attributes:
        name: as written in an INI.
        field: its name in `Settings`.
        doc: one line for people.
        keys: its keys, in the order in which they are shown.
        published: names of the keys that `POST /retrain` takes, separated by blanks.
        synonyms: names that people will try, separated by blanks.
    """

    name: str
    field: str
    doc: str
    keys: tuple[Key, ...]
    published: str = ""
    synonyms: str = ""

    def key(self, name: str) -> Key:
        """The key of that name, in any case; KeyError if there is none."""
        for key in self.keys:
            if key.name.lower() == name.lower():
                return key
        raise KeyError(name)
