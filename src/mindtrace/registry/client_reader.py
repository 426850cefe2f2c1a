"""Reads PostgreSQL, an MLflow server or any other store through MLflow's client."""

import functools
import itertools
import math
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeVar

from mlflow.entities.model_registry import ModelVersion as MlflowVersion
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from mindtrace.config.urls import file_path, masked
from mindtrace.registry.names import METRIC, PREFIX, is_log, log_name
from mindtrace.registry.query import Query, Sql
from mindtrace.registry.reader import TABLES, ModelVersion, Reader, prepare
from mindtrace.registry.store import Store, if_there, pages, store_errors

T = TypeVar("T")

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

    def __init__(self, store: Store) -> None:
        self._store = store
        self._client = store.client
        connection = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
        for table, columns in TABLES.items():
            connection.execute(f"create table {table} ({', '.join(columns)})")
        for table, key in _KEYS.items():
            connection.execute(f"create unique index by_{table} on {table} ({key})")
        place = masked(store.uri)
        prepare(connection, place)
        super().__init__(connection, place)

    def version_of_alias(self, name: str, alias: str) -> int | None:
        found = self._ask(lambda: self._client.get_model_version_by_alias(name, alias))
        return None if found is None else int(found.version)

    def aliases(self, name: str) -> dict[str, int]:
        found = self._ask(lambda: self._client.get_registered_model(name).aliases) or {}
        return {alias: int(number) for alias, number in sorted(found.items())}

    def version(self, name: str, number: int) -> ModelVersion | None:
        found = self._ask(lambda: self._client.get_model_version(name, str(number)))
        if found is None:
            return None
        self._clear()
        self._insert_version(found)
        aliases = ((name, alias, number) for alias in found.aliases)
        self._insert("registered_model_aliases", aliases)
        return super().version(name, number)

    def log(self, model_name: str, after: int = 0) -> Sequence[tuple[int, Mapping[str, str]]]:
        name, search = log_name(model_name), self._client.search_model_versions
        where, order = f"name = '{name}' and version_number > {after}", ["version_number ASC"]
        with store_errors(self._store.uri):
            found = list(pages(search, where, max_results=_PAGE, order_by=order))
        rows = []
        for one in found:
            run = {PREFIX + "run_id": one.run_id} if one.run_id else {}
            rows.append((int(one.version), {**run, **one.tags}))
        return sorted(rows, key=itemgetter(0))

    def params(self, run_id: str | None) -> dict[str, str]:
        run = run_id and self._ask(lambda: self._client.get_run(run_id))
        return dict(run.data.params) if run else {}

    def fetch(self, location: str, folder: Path) -> None:
        here = self._store.resolved(location)
        if file_path(here) is not None:
            super().fetch(here, folder)
            return
        folder.mkdir(parents=True)
        with store_errors(self._store.uri):
            repository = get_artifact_repository(here, tracking_uri=self._store.uri)
            repository.download_artifacts("", str(folder))

    def _names(self) -> list[str]:
        with store_errors(self._store.uri):
            models = pages(self._client.search_registered_models, max_results=_PAGE)
            return sorted(model.name for model in models)

    def _select(
        self, chosen: Sql, name: str | None, limit: int, query: Query, after: int | None
    ) -> Sequence[tuple[Any, ...]]:
        """Copies versions, the newest first, until `limit` of them meet the query."""
        self._clear()
        with_aliases, groups = set[str](), {field.group for field in query.fields}
        # A sorted query needs all versions, and its cursor may be any of them.
        is_sorted = bool(query.order.text)
        size = _PAGE if is_sorted or query.where != Query().where else min(_PAGE, limit)
        newest = self._newest(name, None if is_sorted else after, size)
        while page := list(itertools.islice(newest, size)):
            for version in page:
                self._insert_version(version)
                told = any(key.startswith(PREFIX + METRIC) for key in version.tags)
                if version.run_id and ("param" in groups or ("metric" in groups and not told)):
                    self._insert_run(version.run_id)
            for model in {version.name for version in page} - with_aliases:
                rows = ((model, alias, number) for alias, number in self.aliases(model).items())
                self._insert("registered_model_aliases", rows)
                with_aliases.add(model)
            if not is_sorted:
                found = super()._select(chosen, name, limit, query, after)
                if len(found) == limit:
                    return found
        return super()._select(chosen, name, limit, query, after)

    def _complete(self, row: tuple[Any, ...]) -> ModelVersion:
        run_id = row[2]
        if run_id:
            self._insert_run(run_id)
        return super()._complete(row)

    def _location(self, source: str | None, run_id: str | None) -> str | None:
        return source or None  # `fetch` gives it to MLflow, which knows the artifacts of a run

    def _ask(self, ask: Callable[[], T]) -> T | None:
        with store_errors(self._store.uri):
            return if_there(ask)

    def _clear(self) -> None:
        for table in TABLES:
            self._connection.execute(f"delete from {table}")

    def _newest(self, name: str | None, after: int | None, size: int) -> Iterator[MlflowVersion]:
        if name is not None and is_log(name):
            return
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
        run = self._ask(lambda: self._client.get_run(run_id))
        if run is None:
            return  # `mlflow gc` removed it; the version is still there
        data = run.data
        self._insert("params", ((run_id, *param) for param in data.params.items()))
        rows = ((run_id, *metric, math.isnan(metric[1])) for metric in data.metrics.items())
        self._insert("latest_metrics", rows)

    def _insert(self, table: str, rows: Iterable[tuple[Any, ...]]) -> None:
        marks = ", ".join("?" * len(TABLES[table]))
        self._connection.executemany(f"insert or ignore into {table} values ({marks})", rows)


@functools.lru_cache(maxsize=2)
def opened_once(uri: str, root: Path) -> Store:
    """The store of a URI; to open one takes a while."""
    return Store(uri, root)
