"""Room core: `${SECTION:KEY}` and `${KEY}`; merged entries go in, finished texts come out.

The dialect is `configparser.ExtendedInterpolation`: `$$` is a dollar. What is substituted
is not looked at again, so a `$` in a literal value stays a `$`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from mindtrace.config.layers import Entry, Place
from mindtrace.config.redact import shown
from mindtrace.errors import Fault, nearest

_TOKEN = re.compile(r"\$(?:\$|\{([^{}$\n]*)\})?")

Finish = Callable[[Place, Entry, str], str]


class Unfinished(Exception):  # noqa: N818 - no error: its fault has been noted
    """A text that cannot be had; whoever refers to it has no fault of his own."""


class _BadReference(Exception):  # noqa: N818 - becomes a fault a few lines below
    """Why a reference cannot be followed."""


class Resolver:
    """Finishes texts, each once.

    Args:
        entries: the merged layers.
        finish: what a text goes through before anyone refers to it, such as a path made
            absolute; raises Unfinished if it noted a fault.
    """

    def __init__(self, entries: Mapping[Place, Entry], finish: Finish) -> None:
        self.entries = entries
        self.finish = finish
        self.texts: dict[Place, str] = {}
        self.faults: list[Fault] = []
        self._failed: set[Place] = set()
        self._open: list[Place] = []

    def resolve(self) -> dict[Place, str]:
        """The finished text of every entry that has one; the rest are in `faults`."""
        for place in self.entries:
            if place not in self.texts and place not in self._failed:
                self._finish(place)
        return self.texts

    def _finish(self, place: Place) -> None:
        entry = self.entries[place]
        self._open.append(place)
        try:
            text = entry.text if entry.origin.literal else self._substitute(place, entry.text)
            self.texts[place] = self.finish(place, entry, text)
        except Unfinished:
            self._failed.add(place)
        except _BadReference as reason:
            self._failed.add(place)
            self._fault(place, entry, str(reason))
        finally:
            self._open.pop()

    def _fault(self, place: Place, entry: Entry, reason: str) -> None:
        section, key = place
        message = f"[{section}] {key} = {shown(entry.text)}: {reason}"
        self.faults.append(Fault(entry.origin.file, entry.origin.line, section, key, message))

    def _substitute(self, place: Place, text: str) -> str:
        def replacement(match: re.Match[str]) -> str:
            if match[0] == "$$":
                return "$"
            if match[1] is None:
                raise _BadReference("a reference is ${SECTION:KEY}, and a plain $ is written $$")
            return self._lookup(place, match[1])

        return _TOKEN.sub(replacement, text)

    def _lookup(self, place: Place, reference: str) -> str:
        section, colon, key = reference.partition(":")
        target = (section, key) if colon else (place[0], reference)
        if target not in self.entries:
            raise _BadReference(self._unknown(target))
        if target in self._open:
            circle = [*self._open[self._open.index(target) :], target]
            self._failed.update(circle)
            steps = " -> ".join(f"[{section}] {key}" for section, key in circle)
            raise _BadReference(f"refers to itself: {steps}")
        if target not in self.texts and target not in self._failed:
            self._finish(target)
        if target in self._failed:
            raise Unfinished
        return self.texts[target]

    def _unknown(self, target: Place) -> str:
        section, key = target
        sections = list(dict.fromkeys(known for known, _ in self.entries))
        if section not in sections:
            close = nearest(section, sections)
            meant = f", did you mean [{close}]?" if close else ""
            return f"there is no section [{section}]{meant}"
        close = nearest(key, [name for owner, name in self.entries if owner == section])
        meant = f", did you mean '{close}'?" if close else ""
        return f"there is no key '{key}' in [{section}]{meant}"
