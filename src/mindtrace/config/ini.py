"""INI text as entries that know their file and line, and `${SECTION:KEY}` between them."""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mindtrace.config.urls import shown
from mindtrace.errors import Fault, meant

#: The environment variable that names a user's INI.
CONFIG_VARIABLE = "MindtraceConfig"

Place = tuple[str, str]  # section and key


@dataclass(frozen=True)
class Origin:
    """Where a value stands; a `literal` text has no references, relative paths start at `base`."""

    file: str
    line: int | None = None
    literal: bool = False
    base: Path | None = None

    def __str__(self) -> str:
        return self.file if self.line is None else f"{self.file}:{self.line}"


#: Of values that no user gave.
DEFAULT, RECIPE = Origin("default"), Origin("recipe photo")


@dataclass(frozen=True)
class Entry:
    """A value's text, before references are replaced, and its origin."""

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

    def put(self, section: str, key: str, text: str, origin: Origin) -> None:
        """Set a value; a section becomes known with its first one."""
        self.sections.setdefault(section, origin)
        self.entries[section, key] = Entry(text, origin)


def packaged_layer() -> Layer:
    """`config.ini` of this package, the lowest layer of all."""
    path = Path(__file__).with_name("config.ini")
    return read_ini(path.read_text(encoding="utf-8"), "default", path.parent)


_NEW_LINE = re.compile("\r\n|\r|\n")
_HEADER = re.compile(r"\[([^\]]+)\]\s*([#;].*)?$")
_DELIMITER = re.compile("[=:]")


def read_ini(text: str | bytes, file: str, base: Path) -> Layer:
    """Read INI text; `file` names it in origins and faults, relative paths start at `base`."""
    if isinstance(text, bytes):
        try:
            text = text.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            number = error.object[: error.start].count(b"\n") + 1
            return _unreadable(file, number, "not UTF-8 text; save the file as UTF-8")
    # The dialect is that of the standard configparser (a test compares them), which stops
    # at a missing header, and keeps no line of what it reads.
    layer = Layer()
    values: dict[Place, tuple[Origin, list[str]]] = {}
    section: str | None = None
    lines: list[str] | None = None  # of the value that may still go on
    indent = 0
    for number, line in enumerate(_NEW_LINE.split(text), start=1):
        content = line.strip()
        own_indent = len(line) - len(line.lstrip())
        if content.startswith(("#", ";")):
            continue
        if not content or (lines is not None and own_indent > indent):
            if lines is not None:
                lines.append(content)
            continue
        here = Origin(file, number, base=base)
        lines, indent = None, own_indent
        if content.startswith("["):
            match = _HEADER.match(content)
            section = match[1] if match else ""  # the keys below are not judged
            if match:
                layer.sections.setdefault(section, here)
            else:
                layer.fault(here, f"{shown(content)}: a section is written [name]", (None, None))
            continue
        # Not one pattern for the line: a long run of blanks would take it for ever.
        key, *rest = (part.strip() for part in _DELIMITER.split(content, maxsplit=1))
        if not key or not rest:
            message = f"{shown(content)}: not a line of an INI, write key = value or # comment"
            layer.fault(here, message, (section, None))
        elif section is None:
            message = f"{shown(key)}: stands before any [section]; write its section above it"
            layer.fault(here, message, (None, key))
        else:
            lines = rest
            first, _ = values.setdefault((section, key), (here, lines))
            if first is not here:
                message = f"[{shown(section)}] {shown(key)}: given twice"
                message += f", first in line {first.line}; keep one"
                layer.fault(here, message, (section, key))
    for (owner, key), (origin, parts) in values.items():
        if owner:
            layer.put(owner, key, "\n".join(parts).rstrip(), origin)
    return layer


def values_of(text: str) -> dict[str, str]:
    """The values of INI text by `section.key`, as they stand there."""
    entries = read_ini(text, "", Path()).entries
    return {f"{section}.{key}": entry.text for (section, key), entry in entries.items()}


def _unreadable(file: str, line: int | None, message: str) -> Layer:
    return Layer(faults=[Fault(file, line, None, None, message)])


def located(path: Path | str, here: Path) -> Path:
    """A user's path as an absolute one: `~` expanded, else below `here`."""
    return here / os.path.expanduser(path)  # noqa: PTH111 - Path's own raises RuntimeError


def read_ini_file(path: Path, here: Path) -> Layer:
    """Read an INI file, relative to `here`; what cannot be read is one fault, absence is raised."""
    file = located(path, here)
    try:
        return read_ini(file.read_bytes(), str(path), file.parent)
    except FileNotFoundError:
        raise
    except OSError as error:
        return _unreadable(str(path), None, f"cannot be read: {error.strerror}")


_REFERENCE = re.compile(r"\$(?:\$|\{([^{}$\n]*)\})?")


class _Resolver:
    def __init__(
        self, entries: Mapping[Place, Entry], finish: Callable[[Place, Entry, str], str]
    ) -> None:
        self.entries = entries
        self.finish = finish
        self.faults: list[Fault] = []
        self.texts: dict[Place, str | None] = {}  # None while it is open, or if it has a fault
        self.open: list[Place] = []

    def resolved(self, place: Place) -> str | None:
        if place in self.texts:
            return self.texts[place]
        entry, text = self.entries[place], self.entries[place].text
        self.texts[place] = None
        self.open.append(place)
        try:
            if not entry.origin.literal:
                text = _REFERENCE.sub(lambda match: self.replacement(place[0], match), text)
            self.texts[place] = self.finish(place, entry, text)
        except ValueError as reason:
            if reason.args:
                self.faults.append(value_fault(place, entry, str(reason), text))
        self.open.pop()
        return self.texts[place]

    def replacement(self, section: str, match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        if match[1] is None:
            raise ValueError("a reference is ${SECTION:KEY}, and a plain $ is written $$")
        name = match[1] if ":" in match[1] else f"{section}:{match[1]}"
        owner, _, key = name.partition(":")
        if (owner, key) not in self.entries:
            known = meant(name, map(":".join, self.entries), "${{{}}}")
            raise ValueError(f"there is no [{owner}] {key}{known}")
        if (owner, key) in self.open:
            raise ValueError(f"refers to [{owner}] {key}, which refers to it")
        text = self.resolved((owner, key))
        if text is None:
            raise ValueError  # its fault has been noted
        return text


def resolve(
    entries: Mapping[Place, Entry], finish: Callable[[Place, Entry, str], str]
) -> tuple[dict[Place, str], list[Fault]]:
    """Replace `${SECTION:KEY}`, `${KEY}` and `$$`; `finish` gets each text before its users."""
    resolver = _Resolver(entries, finish)
    texts = {place: resolver.resolved(place) for place in entries}
    return {place: text for place, text in texts.items() if text is not None}, resolver.faults


def value_fault(place: Place, entry: Entry, reason: str, text: str) -> Fault:
    """The fault of a value: `[train] lr = fast: must be a number, above 0`."""
    (section, key), origin = place, entry.origin
    if re.search("\n| [#;]|^[\"']", text):
        reason += "; a value has no comment or quotes, and takes in the indented lines below it"
    message = f"[{section}] {key} = {shown(text) or '(blank)'}: {reason}"
    return Fault(origin.file, origin.line, section, key, message)
