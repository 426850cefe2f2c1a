"""Reads any store through MLflow's client; `child_reader` runs it in a process aside."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from mlflow.artifacts import download_artifacts
from mlflow.entities.model_registry import ModelVersion as MlflowVersion

from mindtrace.registry.names import is_log
from mindtrace.registry.promotion import written
from mindtrace.registry.query import Query, after_cursor
from mindtrace.registry.reader import ModelVersion, iso
from mindtrace.registry.store import Store, if_there, pages, store_errors

_PAGE = 1000


class ClientReader:
    """A `Reader` of whatever MLflow can reach."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._client = store.client

    def names(self) -> list[str]:
        """See `Reader`."""
        with store_errors(self._store.uri):
            models = pages(self._client.search_registered_models, max_results=_PAGE)
            return sorted(model.name for model in models if not is_log(model.name))

    def version_of_alias(self, name: str, alias: str) -> int | None:
        """See `Reader`."""
        with store_errors(self._store.uri):
            return if_there(
                lambda: int(self._client.get_model_version_by_alias(name, alias).version)
            )

    def version(self, name: str, number: int) -> ModelVersion | None:
        """See `Reader`."""
        with store_errors(self._store.uri):
            return if_there(lambda: self._row(self._client.get_model_version(name, str(number))))

    def aliases(self, name: str) -> dict[str, int]:
        """See `Reader`."""
        with store_errors(self._store.uri):
            found = if_there(lambda: self._client.get_registered_model(name).aliases) or {}
        return {alias: int(number) for alias, number in sorted(found.items())}

    def versions(
        self,
        name: str | None,
        limit: int,
        *,
        query: Query | None = None,
        after: int | None = None,
    ) -> Sequence[ModelVersion]:
        """See `Reader`; MLflow knows no such query, so each version is judged here."""
        if name is not None and is_log(name):
            return []
        query = query or Query()
        with store_errors(self._store.uri):
            if query.sort:
                judged = list(self._judged(self._newest(name, None, _PAGE), query))
                params = {row.run_id or "": found for row, found in judged}
                rows: Sequence[ModelVersion] = query.ordered([row for row, _ in judged], params)
                if after is not None:
                    rows = after_cursor(after, rows, key=lambda row: row.version)
            else:
                size = _PAGE if query.where else min(_PAGE, limit)
                kept = self._judged(self._newest(name, after, size), query)
                rows = [row for row, _ in itertools.islice(kept, limit)]
            return [
                self._row(self._client.get_model_version(row.name, str(row.version)))
                for row in rows[:limit]
            ]

    def _newest(self, name: str | None, after: int | None, size: int) -> Iterator[MlflowVersion]:
        quote = '"' if "'" in (name or "") else "'"
        where = None if name is None else f"name = {quote}{name}{quote}"
        if where is not None and after is not None:
            where += f" and version_number < {after}"
        order = ["creation_timestamp DESC"] if name is None else ["version_number DESC"]
        search = self._client.search_model_versions
        for found in pages(search, where, max_results=size, order_by=order):
            if not is_log(found.name):
                yield found

    def _judged(
        self, versions: Iterable[MlflowVersion], query: Query
    ) -> Iterator[tuple[ModelVersion, Mapping[str, str]]]:
        """Those that the query means, each with the parameters of its run."""
        # A search returns no aliases; a model returns all of its own at once.
        aliases: dict[str, dict[str, int]] = {}
        for found in versions:
            if found.name not in aliases:
                aliases[found.name] = self.aliases(found.name)
            number = int(found.version)
            own = [alias for alias, at in aliases[found.name].items() if at == number]
            row, params = _row(found, tuple(own), {}), {}
            if row.run_id and query.wants_run(row):
                data = self._client.get_run(row.run_id).data
                row, params = _row(found, tuple(own), data.metrics), dict(data.params)
            if query.holds(row, params):
                yield row, params

    def log(self, model_name: str, after: int = 0) -> Sequence[tuple[int, Mapping[str, str]]]:
        """See `Reader`."""
        return written(self._store, model_name, after)

    def params(self, run_id: str) -> dict[str, str]:
        """See `Reader`."""
        with store_errors(self._store.uri):
            return dict(self._client.get_run(run_id).data.params)

    def fetch(self, location: str, folder: Path) -> None:
        """See `Reader`."""
        folder.mkdir(parents=True)
        with store_errors(self._store.uri):
            # MLflow puts the artifact's content into the folder, under its own name.
            written = Path(
                download_artifacts(
                    artifact_uri=location, dst_path=str(folder), tracking_uri=self._store.uri
                )
            )
        if written.resolve() != folder.resolve():
            for path in list(written.iterdir()):
                path.replace(folder / path.name)
            written.rmdir()

    def _row(self, version: MlflowVersion) -> ModelVersion:
        metrics = self._client.get_run(version.run_id).data.metrics if version.run_id else {}
        return _row(version, version.aliases, metrics)


def _row(
    version: MlflowVersion, aliases: Iterable[str], metrics: Mapping[str, float]
) -> ModelVersion:
    return ModelVersion(
        name=version.name,
        version=int(version.version),
        aliases=tuple(sorted(aliases)),
        run_id=version.run_id or None,
        created_at=iso(version.creation_timestamp),
        tags=dict(version.tags),
        metrics={key: value for key, value in metrics.items() if not math.isnan(value)},
        location=version.source or None,
    )
