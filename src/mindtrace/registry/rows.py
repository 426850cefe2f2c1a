"""What readers of the registry give back, whichever store they read; light."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from mindtrace.registry.query import Query


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

    def aliases(self, name: str) -> dict[str, int]:
        """Every alias of a model, and the version it points at, which may be gone."""

    def versions(
        self,
        name: str | None,
        limit: int,
        *,
        query: Query | None = None,
        after: int | None = None,
    ) -> Sequence[VersionRow]:
        """The first versions, of one model or of all; newest first unless `query` says else.

        Args:
            name: of the model; None for all.
            limit: at most so many.
            query: which ones, in which order.
            after: of one model only: what follows this version in that order.

        Raises:
            UsageError: `after` is not among them any more.
        """

    def log(self, model_name: str, after: int = 0) -> Sequence[tuple[int, Mapping[str, str]]]:
        """Number and tags of what a name's companion holds behind a number, in order."""

    def params(self, run_id: str) -> dict[str, str]:
        """The parameters of a run."""

    def fetch(self, location: str, folder: Path) -> None:
        """Copy the artifact at `location` into `folder`, which does not exist yet."""
