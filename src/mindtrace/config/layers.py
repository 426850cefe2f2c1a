"""Room core: one layer of configuration; an INI goes in, a `Layer` comes out.

A layer is entries that know where they stand, and the faults met on the way. `Config` and
`Settings` both build on it; neither meaning nor type of a value is known here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from mindtrace.config.redact import shown
from mindtrace.errors import Fault

#: The environment variable that names a user's INI.
CONFIG_VARIABLE = "MindtraceConfig"

Place = tuple[str, str]  # section and key


@dataclass(frozen=True)
class Origin:
    """Where a value stands.

    Attributes:
        file: an INI's path as it was given, or `default`, `environment TRAIN__LR`,
            `--set train.lr`, `--max-epochs`.
        line: from 1; None where there are no lines.
        literal: the text is meant as it stands, `$` included.
        base: the folder that relative paths start from.
    """

    file: str
    line: int | None = None
    literal: bool = False
    base: Path | None = None

    def __str__(self) -> str:
        return self.file if self.line is None else f"{self.file}:{self.line}"


@dataclass(frozen=True)
class Entry:
    """A value's text, before substitution, and its origin."""

    text: str
    origin: Origin


@dataclass
class Layer:
    """The entries of one layer in their order, and what was wrong while reading it."""

    entries: dict[Place, Entry] = field(default_factory=dict)
    sections: dict[str, Origin] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)

    def fault(self, origin: Origin, message: str, place: tuple[str | None, str | None]) -> None:
        """Note one fault at `origin`."""
        self.faults.append(Fault(origin.file, origin.line, *place, message))

    def put(self, section: str, key: str, entry: Entry) -> None:
        """Set a value; a section becomes known with its first one."""
        self.sections.setdefault(section, entry.origin)
        self.entries[section, key] = entry


def packaged_layer() -> Layer:
    """The lowest layer, `config.ini` of this package."""
    path = Path(__file__).with_name("config.ini")
    return read_ini(path.read_text(encoding="utf-8"), "default", path.parent)


def merged(layers: Iterable[Layer]) -> dict[Place, Entry]:
    """All entries, where a later layer replaces what an earlier one said."""
    entries: dict[Place, Entry] = {}
    for layer in layers:
        entries.update(layer.entries)
    return entries


_HEADER = re.compile(r"\[([^\]]+)\]\s*([#;].*)?$")
_DELIMITER = re.compile("[=:]")


class _IniReader:
    """Walks the lines of one INI; the dialect is that of the standard `configparser`."""

    def __init__(self, file: str, base: Path) -> None:
        self.layer = Layer()
        self.file = file
        self.base = base
        self.section: str | None = None
        self.deaf = False  # below a header that could not be read
        self.indent = 0
        self.origin: Origin | None = None  # of the value that may still go on
        self.key = ""
        self.lines: list[str] = []

    def read(self, text: str) -> Layer:
        normal = text.replace("\r\n", "\n").replace("\r", "\n")
        for number, line in enumerate(normal.split("\n"), start=1):
            self._line(line, Origin(self.file, number, base=self.base))
        self._close()
        return self.layer

    def _line(self, line: str, here: Origin) -> None:
        content = line.strip()
        if content.startswith(("#", ";")):
            return
        if not content:
            self.lines.append("")
            return
        indent = len(line) - len(line.lstrip())
        if self.origin is not None and indent > self.indent:
            self.lines.append(content)
            return
        self._close()
        self.indent = indent
        if content.startswith("["):
            self._header(content, here)
        else:
            self._option(content, here)

    def _header(self, content: str, here: Origin) -> None:
        match = _HEADER.match(content)
        self.deaf = match is None
        if match is None:
            self.section = None
            self.layer.fault(here, f"{shown(content)}: a section is written [name]", (None, None))
            return
        self.section = match[1]
        first = self.layer.sections.get(self.section)
        if first is not None:
            message = f"[{shown(self.section)}]: section given twice, first in line {first.line}"
            self.layer.fault(here, f"{message}; put both together", (self.section, None))
        self.layer.sections.setdefault(self.section, here)

    def _option(self, content: str, here: Origin) -> None:
        if self.deaf:
            return
        # Not one pattern for the line: a long run of blanks would take it for ever.
        key, *values = (part.strip() for part in _DELIMITER.split(content, maxsplit=1))
        if not key or not values:
            message = f"{shown(content)}: not a line of an INI, write key = value or # comment"
            self.layer.fault(here, message, (self.section, None))
        elif self.section is None:
            message = f"{shown(key)}: stands before any [section]; write its section above it"
            self.layer.fault(here, message, (None, key))
        else:
            self.key, self.lines, self.origin = key, values, here

    def _close(self) -> None:
        """Store the value that the last lines made up."""
        origin, section = self.origin, self.section
        self.origin = None
        if origin is None or section is None:
            return
        first = self.layer.entries.get((section, self.key))
        if first is not None:
            message = f"[{shown(section)}] {shown(self.key)}: given twice"
            message += f", first in line {first.origin.line}; keep one"
            self.layer.fault(origin, message, (section, self.key))
            return
        text = "\n".join(self.lines).rstrip()
        self.layer.put(section, self.key, Entry(text, origin))


def read_ini(text: str, file: str, base: Path) -> Layer:
    """The layer that an INI's `text` is; `file` names it, `base` anchors its paths."""
    return _IniReader(file, base).read(text)


def read_ini_file(path: Path, here: Path) -> Layer:
    """Read the INI in a file; one that is there and cannot be read is one fault.

    Args:
        path: the file, named in faults as it is given here.
        here: the folder that a relative `path` starts from.

    Returns:
        the file's layer; relative paths in it start from the file's own folder.

    Raises:
        FileNotFoundError: there is no such file.
    """
    file = located(path, here)
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        message = "not UTF-8 text; save the file as UTF-8"
        return Layer(faults=[Fault(str(path), line, None, None, message)])
    except OSError as error:
        message = f"cannot be read: {error.strerror}"
        return Layer(faults=[Fault(str(path), None, None, None, message)])
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        return Layer(faults=[Fault(str(path), line, None, None, "not a text file")])
    return read_ini(text, str(path), file.parent)


def located(path: Path | str, here: Path) -> Path:
    """A user's path as an absolute one: `~` expanded, else below `here`."""
    return here / os.path.expanduser(path)  # noqa: PTH111 - Path's own raises RuntimeError
