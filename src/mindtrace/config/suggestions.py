"""Room core: a name that nobody knows goes in, what to write instead comes out."""

from __future__ import annotations

from mindtrace.config.schema import SECTIONS, Section
from mindtrace.errors import listed, nearest


def unknown_section(name: str) -> str:
    """The end of a fault's line about an unknown section."""
    meant = _section_meant(name)
    if meant is not None:
        return f"unknown section, did you mean [{meant}]?"
    return f"unknown section; there are: {listed([section.name for section in SECTIONS])}"


def unknown_key(section: Section, name: str) -> str:
    """The end of a fault's line about an unknown key of a known section."""
    own = _named(section, name) or _close(section, name)
    if own is not None:
        return f"unknown key, did you mean '{own}'?"
    for other in SECTIONS:
        named = None if other is section else _named(other, name)
        if named is not None:
            return f"unknown key, did you mean '{named}' in [{other.name}]?"
    names = [key.name for key in section.keys]
    return f"unknown key; [{section.name}] has: {listed(names, limit=len(names))}"


def _section_meant(name: str) -> str | None:
    folded = name.strip().lower()
    for section in SECTIONS:
        if folded == section.name.lower() or folded in section.synonyms.split():
            return section.name
    close = nearest(folded, [section.name.lower() for section in SECTIONS])
    return next((s.name for s in SECTIONS if s.name.lower() == close), None)


def _named(section: Section, name: str) -> str | None:
    """The key that is `name` but for case and dashes, or has it as a synonym."""
    folded = name.strip().lower().replace("-", "_").replace(" ", "_")
    for key in section.keys:
        if folded == key.name.lower() or folded in key.synonyms.split():
            return key.name
    return None


def _close(section: Section, name: str) -> str | None:
    close = nearest(name.lower(), [key.name.lower() for key in section.keys])
    return next((key.name for key in section.keys if key.name.lower() == close), None)
