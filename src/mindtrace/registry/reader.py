"""Reads registered versions by SQL over MLflow's tables (`TABLES`), without importing MLflow."""

from __future__ import annotations

import math
import shutil
import sqlite3
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mindtrace.config.settings import Settings
from mindtrace.config.urls import file_path, sqlite_path
from mindtrace.errors import NotFoundError, StoreError, UsageError
from mindtrace.registry.database import connect, making_file, revision_of, schema_error
from mindtrace.registry.names import LATEST, METRIC, PREFIX, is_log, log_name, resolve
from mindtrace.registry.query import NUMBER_FUNCTION, Field, Query, Sql

if TYPE_CHECKING:
    from mindtrace.registry.store import Store

ALL = 1_000_000  # versions: no limit

# The columns that are read of each table.
TABLES: Mapping[str, tuple[str, ...]] = {
    "registered_models": ("name",),
    "model_versions": (
        *("name", "version", "run_id", "creation_time", "source", "storage_location"),
        "current_stage",
    ),
    "model_version_tags": ("name", "version", "key", "value"),
    "registered_model_aliases": ("name", "alias", "version"),
    "latest_metrics": ("run_uuid", "key", "value", "is_nan"),
    "params": ("run_uuid", "key", "value"),
    "runs": ("run_uuid", "artifact_uri"),
}
# View: table, columns, condition. They hide what differs between schemas.
_VIEWS = {
    "models": ("registered_models", "name", "true"),
    "versions": (
        "model_versions",
        "name, version, nullif(run_id, '') as run_id, creation_time,"
        " coalesce(nullif(storage_location, ''), source) as source",
        "current_stage <> 'Deleted_Internal'",
    ),
    "version_tags": ("model_version_tags", "name, version, key, value", "true"),
    "version_aliases": ("registered_model_aliases", "name, version, alias", "true"),
}


class ModelVersion(NamedTuple):
    """One registered version; `created_at` is UTC, `metrics` and `location` are its run's."""

    name: str
    version: int
    aliases: tuple[str, ...]
    run_id: str | None
    created_at: str
    tags: Mapping[str, str]
    metrics: Mapping[str, float]
    location: str | None

    @property
    def label(self) -> str:
        """NAME/VERSION."""
        return f"{self.name}/{self.version}"

    @property
    def own_tags(self) -> dict[str, str]:
        """The tags that mindtrace wrote, without their prefix."""
        return {k.removeprefix(PREFIX): v for k, v in self.tags.items() if k.startswith(PREFIX)}

    def beside(self, name: str) -> str | None:
        """Where what its run keeps beside the bundle is; None if nobody knows."""
        return self.location and f"{self.location.rstrip('/').rpartition('/')[0]}/{name}"

    @property
    def best_metrics(self) -> dict[str, float]:
        """Metrics of the best epoch, whose weights a version has; else its run's last ones."""
        best = {
            key.removeprefix(METRIC): number(value)
            for key, value in self.own_tags.items()
            if key.startswith(METRIC)
        }
        kept = {name: value for name, value in best.items() if value is not None}
        return dict(sorted((kept if best else dict(self.metrics)).items()))


class Reader:
    """Answers questions about a registry and changes nothing; StoreError if it cannot be read."""

    def __init__(
        self, connection: sqlite3.Connection, place: str, resolved: Callable[[str], str] = str
    ) -> None:
        """Read through a prepared connection; errors name `place`, `resolved` finds locations."""
        self._connection = connection
        self._place = place
        self._resolved = resolved
        weakref.finalize(self, connection.close)

    def names(self) -> list[str]:
        """Registered models, sorted, companions left out."""
        return [name for name in self._names() if not is_log(name)]

    def orphaned_logs(self) -> list[str]:
        """Models that were deleted, whose history is still there."""
        names = self._names()
        models = (name.removesuffix(log_name("")) for name in names if is_log(name))
        return [name for name in models if name not in names]

    def version_of_alias(self, name: str, alias: str) -> int | None:
        """The version an alias points at; MLflow works `latest` out, no table has it."""
        if alias.lower() == LATEST:
            newest = self.versions(name, 1)
            return newest[0].version if newest else None
        return self.aliases(name).get(alias)

    def aliases(self, name: str) -> dict[str, int]:
        """Every alias of a model, and the version it points at, which may be gone."""
        sql = "select alias, version from version_aliases where name = ? order by alias"
        return {alias: int(version) for alias, version in self._rows(sql, name)}

    def version(self, name: str, number: int) -> ModelVersion | None:
        """One version."""
        sql = "select v.* from versions v where name = ? and version = ?"
        rows = self._rows(sql, name, number)
        return self._complete(rows[0]) if rows else None

    def versions(
        self, name: str | None, limit: int, *, query: Query | None = None, after: int | None = None
    ) -> Sequence[ModelVersion]:
        """The first versions of a model or all, newest first or as `query` says, behind `after`."""
        rows = self._select(Sql("v.*"), name, limit, query or Query(), after)
        return [self._complete(row) for row in rows]

    def count(self, name: str | None, query: Query) -> int:
        """How many versions `versions` has without a limit."""
        rows = self._select(Sql("count(*)"), name, ALL, query, None)
        return int(rows[0][0]) if rows else 0

    def columns(
        self, fields: Sequence[Field], name: str | None, limit: int, query: Query
    ) -> list[list[str | float | None]]:
        """Values of `fields`, a row for each of the first versions; None for what it has not."""
        parts = [field.sql for field in fields]
        values = tuple(value for part in parts for value in part.values)
        # The first two are for `after`, as in `versions`.
        chosen = ", ".join(["v.name", "v.version", *(part.text for part in parts)])
        query = query._replace(fields=(*query.fields, *fields))
        rows = self._select(Sql(chosen, values), name, limit, query, None)
        return [
            [_shown(value, field) for value, field in zip(row[2:], fields, strict=True)]
            for row in rows
        ]

    def log(self, model_name: str, after: int = 0) -> Sequence[tuple[int, Mapping[str, str]]]:
        """Number and tags (and run) of what a model's companion holds after a number, in order."""
        found: dict[int, dict[str, str]] = {}
        sql = (
            "select v.version, v.run_id, t.key, t.value from versions v left join version_tags t"
            " on t.name = v.name and t.version = v.version"
            " where v.name = ? and v.version > ? order by v.version"
        )
        for version, run_id, key, value in self._rows(sql, log_name(model_name), after):
            tags = found.setdefault(int(version), {PREFIX + "run_id": run_id} if run_id else {})
            if key is not None:
                tags[key] = value
        return list(found.items())

    def params(self, run_id: str | None) -> dict[str, str]:
        """The parameters of a run; none without a run."""
        return dict(self._rows("select key, value from params where run_uuid = ?", run_id))

    def fetch(self, location: str, folder: Path) -> None:
        """Copy the artifact at `location` into `folder`, which does not exist yet."""
        source = file_path(location)
        if source is None:
            raise StoreError(f"artifact {location}: only local folders are read without MLflow")
        with _errors(self._place):
            shutil.copytree(source, folder)

    def _names(self) -> list[str]:
        return sorted(name for (name,) in self._rows("select name from models"))

    def _select(
        self, chosen: Sql, name: str | None, limit: int, query: Query, after: int | None
    ) -> Sequence[tuple[Any, ...]]:
        if name is not None and is_log(name):
            return []
        if name is None:
            models = self._rows("select name from models where name not like '%~history' limit 2")
            if len(models) == 1:
                name = str(models[0][0])  # its versions are in order already
        sql = f"select {chosen.text} from versions v where {query.where.text}"
        values = [*chosen.values, *query.where.values]
        if name is None:
            sql += f" and v.name not like '%~history' order by {query.order.text}"
            sql += " v.creation_time desc, v.name, v.version desc"
        else:
            sql += " and v.name = ?"
            values.append(name)
            if after is not None and not query.order.text:
                sql += " and v.version < ?"
                values.append(after)
            sql += f" order by {query.order.text} v.version desc"
        values += query.order.values
        if after is not None and query.order.text:
            rows = self._rows(sql, *values)
            numbers = [int(row[1]) for row in rows]
            if after in numbers:
                return rows[numbers.index(after) + 1 :][:limit]
            message = f"cursor: version {after} is not among these versions any more"
            raise UsageError(message, hint="begin again without a cursor")
        return self._rows(f"{sql} limit ?", *values, limit)

    def _complete(self, row: tuple[Any, ...]) -> ModelVersion:
        name, number, run_id, created, source = row
        key = "where name = ? and version = ?"
        aliases = self._rows(f"select alias from version_aliases {key} order by 1", name, number)
        tags = self._rows(f"select key, value from version_tags {key}", name, number)
        sql = "select key, value from latest_metrics where run_uuid = ? and is_nan = 0"
        metrics = self._rows(sql, run_id)
        return ModelVersion(
            name=name,
            version=int(number),
            aliases=tuple(alias for (alias,) in aliases),
            run_id=run_id,
            created_at=iso(created),
            tags=dict(tags),
            metrics={key: float(value) for key, value in metrics},
            location=self._location(source, run_id),
        )

    def _location(self, source: str | None, run_id: str | None) -> str | None:
        """Where a version's files are now; `runs:/` means a path below its run's artifacts."""
        if source and source.startswith("runs:/"):
            rows = self._rows("select artifact_uri from runs where run_uuid = ?", run_id)
            prefix = f"runs:/{run_id}/"
            if not rows or not rows[0][0] or not source.startswith(prefix):
                return None
            source = f"{rows[0][0].rstrip('/')}/{source.removeprefix(prefix)}"
        return self._resolved(source) if source else None

    def _rows(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        with _errors(self._place):
            return self._connection.execute(sql, values).fetchall()


def open_reader(settings: Settings) -> Reader:
    """The reader of the registry that `settings` name."""
    uri, root = settings.registry.tracking_uri, settings.dirs.root
    database = sqlite_path(uri)
    if database is not None:
        return open_database(database, root)
    from mindtrace.registry.client_reader import ClientReader, opened_once

    return ClientReader(opened_once(uri, root))


def open_store(settings: Settings) -> Store:
    """The store that `settings` name, for a change; imports MLflow."""
    from mindtrace.registry.store import Store

    return Store(settings.registry.tracking_uri, settings.dirs.root)


def open_database(database: Path, root: Path | None = None) -> Reader:
    """A reader of one SQLite file, in ROOT unless said; NotFoundError until it has tables."""
    hint = "mindtrace train  # the first training makes it"
    missing = NotFoundError("registry", str(database), hint=hint)
    if not database.exists() or making_file(database).exists():
        there = next(place for place in database.parents if place.exists())
        if not there.is_dir():
            raise StoreError(f"registry {database}: {there} is a file", hint="mindtrace doctor")
        raise missing
    with _errors(database):
        connection = connect(database)
        try:
            if not connection.execute("select 1 from sqlite_master").fetchone():
                raise missing
            prepare(connection, database)
        except BaseException:
            connection.close()
            raise
        connection.execute("pragma query_only = on")
    resolved = partial(resolve, root=root or database.parent, database=database)
    return Reader(connection, str(database), resolved)


def prepare(connection: sqlite3.Connection, place: Path | str) -> None:
    """Make the views and the function that questions use; StoreError where columns lack."""
    rows = connection.execute(
        "select t.name || '.' || c.name from sqlite_master t, pragma_table_info(t.name) c"
        " where t.type = 'table'"
    )
    found = {name for (name,) in rows}
    for name in (f"{table}.{column}" for table, columns in TABLES.items() for column in columns):
        if name not in found:
            raise schema_error(place, revision_of(connection), f" and has no {name}")
    connection.execute("pragma temp_store = memory")
    for view, (table, columns, condition) in _VIEWS.items():
        own = " and workspace = 'default'" if f"{table}.workspace" in found else ""
        sql = f"create temp view {view} as select {columns} from {table} where {condition}{own}"
        connection.execute(sql)
    connection.create_function(NUMBER_FUNCTION, 1, number, deterministic=True)


def number(text: str | None) -> float | None:
    """Text as a number, None if it is none; NaN is none."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return None if math.isnan(value) else value


def iso(milliseconds: float) -> str:
    """A time of MLflow as UTC, ISO 8601."""
    moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return moment.isoformat(timespec="milliseconds")


def _shown(value: Any, field: Field) -> str | float | None:
    if field.kind == "time":
        return iso(value)
    if field.group == "tag" and isinstance(value, float) and value.is_integer():
        return int(value)  # a seed is 7, not 7.0
    found: str | float | None = value
    return found


@contextmanager
def _errors(place: Path | str) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        hint = "check [registry] tracking_uri"
        raise StoreError(f"registry {place}: {error}", hint=hint) from error
