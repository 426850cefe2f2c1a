"""Reads PostgreSQL, an MLflow server or any other store through MLflow's client."""

from __future__ import annotations

import functools
import itertools
import math
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow.artifacts import download_artifacts
from mlflow.entities.model_registry import ModelVersion as MlflowVersion

from mindtrace.config.urls import file_path, masked
from mindtrace.registry.champions import written
from mindtrace.registry.names import METRIC, PREFIX, is_log
from mindtrace.registry.query import Field, Query
from mindtrace.registry.reader import TABLES, ModelVersion, Reader, prepare
from mindtrace.registry.store import Store, if_there, pages, store_errors

_PAGE = 1000
_KEYS = {
    "model_versions": "name, version",
    "model_version_tags": "name, version, key",
    "registered_model_aliases": "name, version, alias",
    "latest_metrics": "run_uuid, key",
    "params": "run_uuid, key",
}


class ClientReader(Reader):
    """Copies versions from MLflow into tables in memory and queries these."""

    def __init__(self, uri: str, root: Path) -> None:
        self._store = _store(uri, root, os.getpid())
        self._client = self._store.client
        connection = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
        for table, columns in TABLES.items():
            connection.execute(f"create table {table} ({', '.join(columns)})")
        for table, key in _KEYS.items():
            connection.execute(f"create unique index by_{table} on {table} ({key})")
        place = masked(uri)
        prepare(connection, place)
        super().__init__(connection, place)

    def _names(self) -> list[str]:
        with store_errors(self._store.uri):
            models = pages(self._client.search_registered_models, max_results=_PAGE)
            return sorted(model.name for model in models)

    def version_of_alias(self, name: str, alias: str) -> int | None:
        with store_errors(self._store.uri):
            return if_there(
                lambda: int(self._client.get_model_version_by_alias(name, alias).version)
            )

    def aliases(self, name: str) -> dict[str, int]:
        with store_errors(self._store.uri):
            found = if_there(lambda: self._client.get_registered_model(name).aliases) or {}
        return {alias: int(number) for alias, number in sorted(found.items())}

    def version(self, name: str, number: int) -> ModelVersion | None:
        with store_errors(self._store.uri):
            found = if_there(lambda: self._client.get_model_version(name, str(number)))
        if found is None:
            return None
        self._clear()
        self._insert_version(found)
        aliases = ((name, alias, number) for alias in found.aliases)
        self._insert("registered_model_aliases", aliases)
        return super().version(name, number)

    def versions(
        self, name: str | None, limit: int, *, query: Query | None = None, after: int | None = None
    ) -> Sequence[ModelVersion]:
        query = query or Query()
        self._copy(name, limit, query, (), after)
        return super().versions(name, limit, query=query, after=after)

    def columns(
        self, fields: Sequence[Field], name: str | None, limit: int, query: Query
    ) -> list[list[str | float | None]]:
        self._copy(name, limit, query, fields, None)
        return super().columns(fields, name, limit, query)

    def log(self, model_name: str, after: int = 0) -> Sequence[tuple[int, Mapping[str, str]]]:
        return written(self._store, model_name, after)

    def params(self, run_id: str | None) -> dict[str, str]:
        if run_id is None:
            return {}
        with store_errors(self._store.uri):
            run = if_there(lambda: self._client.get_run(run_id))
        return {} if run is None else dict(run.data.params)

    def fetch(self, location: str, folder: Path) -> None:
        here = self._store.resolved(location)
        if file_path(here) is not None:
            super().fetch(here, folder)
            return
        folder.mkdir(parents=True)
        with store_errors(self._store.uri):
            # MLflow puts the artifact's content into the folder, under its own name.
            copied = Path(
                download_artifacts(
                    artifact_uri=location, dst_path=str(folder), tracking_uri=self._store.uri
                )
            )
        if copied.resolve() != folder.resolve():
            for path in list(copied.iterdir()):
                path.replace(folder / path.name)
            copied.rmdir()

    def _copy(
        self,
        name: str | None,
        limit: int,
        query: Query,
        columns: Sequence[Field],
        after: int | None,
    ) -> None:
        """Copy versions into memory, the newest first, until `limit` of them meet the query."""
        self._clear()
        if name is not None and is_log(name):
            return
        with_aliases: set[str] = set()
        size = _PAGE if query.fields else min(_PAGE, limit)
        # A sorted query needs all versions, and its cursor may be any of them.
        newest = self._newest(name, None if query.order.text else after, size)
        while page := list(itertools.islice(newest, size)):
            for version in page:
                self._insert_version(version)
                if version.run_id and _wants_run(version.tags, (*query.fields, *columns)):
                    self._insert_run(version.run_id)
            for model in {version.name for version in page} - with_aliases:
                rows = ((model, alias, number) for alias, number in self.aliases(model).items())
                self._insert("registered_model_aliases", rows)
                with_aliases.add(model)
            if query.order.text:
                continue
            if len(self._select("v.version", (), name, limit, query, after)) == limit:
                return

    def _complete(self, row: tuple[Any, ...]) -> ModelVersion:
        run_id = row[2]
        if run_id:
            self._insert_run(run_id)
        return super()._complete(row)

    def _location(self, source: str | None, run_id: str | None) -> str | None:
        return source or None  # `fetch` gives it to MLflow, which knows the artifacts of a run

    def _clear(self) -> None:
        for table in TABLES:
            self._connection.execute(f"delete from {table}")

    def _newest(self, name: str | None, after: int | None, size: int) -> Iterator[MlflowVersion]:
        quote = '"' if "'" in (name or "") else "'"
        where = None if name is None else f"name = {quote}{name}{quote}"
        if where is not None and after is not None:
            where += f" and version_number < {after}"
        order = ["creation_timestamp DESC"] if name is None else ["version_number DESC"]
        search = self._client.search_model_versions
        with store_errors(self._store.uri):
            for found in pages(search, where, max_results=size, order_by=order):
                if not is_log(found.name):
                    yield found

    def _insert_version(self, version: MlflowVersion) -> None:
        key = (version.name, int(version.version))
        row = (*key, version.run_id, version.creation_timestamp, version.source, "", "None")
        self._insert("model_versions", [row])
        self._insert("model_version_tags", ((*key, *tag) for tag in version.tags.items()))

    def _insert_run(self, run_id: str) -> None:
        with store_errors(self._store.uri):
            run = if_there(lambda: self._client.get_run(run_id))
        if run is None:
            return  # `mlflow gc` removed it; the version is still there
        data = run.data
        self._insert("params", ((run_id, *param) for param in data.params.items()))
        rows = ((run_id, *metric, math.isnan(metric[1])) for metric in data.metrics.items())
        self._insert("latest_metrics", rows)

    def _insert(self, table: str, rows: Iterable[tuple[Any, ...]]) -> None:
        marks = ", ".join("?" * len(TABLES[table]))
        self._connection.executemany(f"insert or ignore into {table} values ({marks})", rows)


# By process: a forked one must not use the database connections of its parent.
@functools.lru_cache(maxsize=2)
def _store(uri: str, root: Path, _pid: int) -> Store:
    return Store(uri, root)


def _wants_run(tags: Iterable[str], fields: Iterable[Field]) -> bool:
    """Whether the run of a version with these tags must be read to know these fields."""
    groups = {field.group for field in fields}
    has_metrics = any(key.startswith(PREFIX + METRIC) for key in tags)
    return "param" in groups or ("metric" in groups and not has_metrics)
