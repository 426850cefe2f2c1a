"""What readers of the registry give back, whichever store they read; light."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class VersionRow:
    """One registered version.

    Attributes:
        name: of the registered model.
        version: its number.
        aliases: sorted.
        run_id: of the run that trained it; None for a version without one.
        created_at: UTC, ISO 8601.
        tags: all of them, with their prefixes.
        metrics: the latest value of each metric of its run.
        location: where the artifact is, a URI or a path; None if that cannot be told.
    """

    name: str
    version: int
    aliases: tuple[str, ...]
    run_id: str | None
    created_at: str
    tags: Mapping[str, str]
    metrics: Mapping[str, float]
    location: str | None


class Reader(Protocol):
    """Answers questions about a registry, and changes nothing.

    Every method raises StoreError if the store is away or of an unknown schema.
    """

    def names(self) -> list[str]:
        """Registered models, sorted, companions left out."""

    def aliased(self, name: str, alias: str) -> int | None:
        """The version an alias points at."""

    def version(self, name: str, number: int) -> VersionRow | None:
        """One version."""

    def versions(self, name: str | None, limit: int) -> Sequence[VersionRow]:
        """The newest versions, of one model or of all."""

    def params(self, run_id: str) -> dict[str, str]:
        """The parameters of a run."""

    def fetch(self, location: str, folder: Path) -> None:
        """Copy the artifact at `location` into `folder`, which does not exist yet."""
