"""Reads registered versions; MLflow's own tables in a SQLite file without importing MLflow."""

from __future__ import annotations

import functools
import os
import shutil
import sqlite3
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from mindtrace.config.settings import Settings
from mindtrace.config.urls import file_path, sqlite_path
from mindtrace.errors import NotFoundError, StoreError
from mindtrace.registry import fields, query_sql
from mindtrace.registry.names import LATEST, is_log, log_name
from mindtrace.registry.query import Query, after_cursor

if TYPE_CHECKING:
    from mindtrace.registry.child_reader import ChildReader
# alembic_version of MLflow 3.17.
KNOWN_REVISIONS = frozenset({"dc11669786a5"})
BUSY_TIMEOUT = 5.0  # seconds

_VERSIONS = """
    select v.name, v.version, v.run_id, v.creation_time, v.source, v.storage_location
    from model_versions v
    where v.workspace = 'default' and v.current_stage <> 'Deleted_Internal'
"""


@dataclass(frozen=True)
class ModelVersion:
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

    def version_of_alias(self, name: str, alias: str) -> int | None:
        """The version an alias points at."""

    def version(self, name: str, number: int) -> ModelVersion | None:
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
    ) -> Sequence[ModelVersion]:
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


class UnknownSchemaError(StoreError):
    """The tables are of a revision that this reader does not know."""


class SqliteReader:
    """A `Reader` of one SQLite file."""

    def __init__(self, database: Path) -> None:
        """Open the file.

        Raises:
            UnknownSchemaError: a revision that is not among `KNOWN_REVISIONS`.
            StoreError: it cannot be read.
        """
        self._database = database
        with _errors(database):
            self._connection = _open(database)
            weakref.finalize(self, self._connection.close)
            self._connection.create_function(query_sql.NUMBER, 1, fields.number, deterministic=True)
            revision = self._revision()
        if revision not in KNOWN_REVISIONS:
            raise UnknownSchemaError(
                f"registry {database}: schema revision {revision} is not known",
                hint="upgrade mindtrace, or run `mlflow db upgrade` on a database of an old MLflow",
            )

    def names(self) -> list[str]:
        """See `Reader`."""
        rows = self._rows("select name from registered_models where workspace = 'default'")
        return sorted(name for (name,) in rows if not is_log(name))

    def version_of_alias(self, name: str, alias: str) -> int | None:
        """See `Reader`; `latest` is no row, MLflow works it out."""
        if alias.lower() == LATEST:
            newest = self.versions(name, 1)
            return newest[0].version if newest else None
        rows = self._rows(
            "select version from registered_model_aliases"
            " where workspace = 'default' and name = ? and alias = ?",
            name,
            alias,
        )
        return int(rows[0][0]) if rows else None

    def version(self, name: str, number: int) -> ModelVersion | None:
        """See `Reader`."""
        rows = self._rows(_VERSIONS + " and v.name = ? and v.version = ?", name, number)
        return self._complete(rows[0]) if rows else None

    def aliases(self, name: str) -> dict[str, int]:
        """See `Reader`."""
        rows = self._rows(
            "select alias, version from registered_model_aliases"
            " where workspace = 'default' and name = ? order by alias",
            name,
        )
        return {alias: int(number) for alias, number in rows}

    def versions(
        self,
        name: str | None,
        limit: int,
        *,
        query: Query | None = None,
        after: int | None = None,
    ) -> Sequence[ModelVersion]:
        """See `Reader`."""
        if name is not None and is_log(name):
            return []
        query = query or Query()
        if name is None and len(names := self.names()) == 1:
            name = names[0]  # its versions are in order already
        where, order = query_sql.condition(query), query_sql.order(query)
        text = f"{_VERSIONS} and {where.text}"
        values = list(where.values)
        if name is None:
            text += f" and v.name not like '%~history' order by {order.text}"
            text += "v.creation_time desc, v.name, v.version desc"
        else:
            text += " and v.name = ?"
            values.append(name)
            if after is not None and not query.sort:
                text += " and v.version < ?"
                values.append(after)
            text += f" order by {order.text} v.version desc"
        rows: Sequence[tuple[Any, ...]]
        if after is not None and query.sort:
            rows = self._rows(text, *values, *order.values)
            rows = after_cursor(after, rows, key=lambda row: int(row[1]))[:limit]
        else:
            rows = self._rows(f"{text} limit ?", *values, *order.values, limit)
        return [self._complete(row) for row in rows]

    def log(self, model_name: str, after: int = 0) -> Sequence[tuple[int, Mapping[str, str]]]:
        """See `Reader`."""
        found: dict[int, dict[str, str]] = {}
        for version, key, value in self._rows(
            "select v.version, t.key, t.value from model_versions v"
            " left join model_version_tags t"
            " on t.workspace = v.workspace and t.name = v.name and t.version = v.version"
            " where v.workspace = 'default' and v.name = ? and v.version > ?"
            " and v.current_stage <> 'Deleted_Internal' order by v.version",
            log_name(model_name),
            after,
        ):
            tags = found.setdefault(int(version), {})
            if key is not None:
                tags[key] = value
        return list(found.items())

    def params(self, run_id: str) -> dict[str, str]:
        """See `Reader`."""
        return dict(self._rows("select key, value from params where run_uuid = ?", run_id))

    def fetch(self, location: str, folder: Path) -> None:
        """See `Reader`; here an artifact that is no local folder cannot be had."""
        source = file_path(location)
        if source is None:
            raise StoreError(f"artifact {location}: only local folders are read without MLflow")
        with _errors(self._database):
            shutil.copytree(source, folder)

    def _complete(self, row: tuple[Any, ...]) -> ModelVersion:
        name, number, run_id, created, source, storage = row
        places = self._rows("select artifact_uri from runs where run_uuid = ?", run_id)
        aliases = self._rows(
            "select alias from registered_model_aliases"
            " where workspace = 'default' and name = ? and version = ? order by alias",
            name,
            number,
        )
        tags = self._rows(
            "select key, value from model_version_tags"
            " where workspace = 'default' and name = ? and version = ?",
            name,
            number,
        )
        metrics = self._rows(
            "select key, value from latest_metrics where run_uuid = ? and is_nan = 0", run_id
        )
        return ModelVersion(
            name=name,
            version=int(number),
            aliases=tuple(alias for (alias,) in aliases),
            run_id=run_id or None,
            created_at=iso(created),
            tags=dict(tags),
            metrics={key: float(value) for key, value in metrics},
            location=_location(storage or source, run_id, places[0][0] if places else None),
        )

    def _revision(self) -> str | None:
        try:
            rows = self._connection.execute("select version_num from alembic_version").fetchall()
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):
                return None
            raise
        return str(rows[0][0]) if rows else None

    def _rows(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        with _errors(self._database):
            return self._connection.execute(sql, values).fetchall()


def iso(milliseconds: int) -> str:
    """A time of MLflow as UTC, ISO 8601."""
    moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return moment.isoformat(timespec="milliseconds")


def _open(database: Path) -> sqlite3.Connection:
    # rw, not ro: after a writer was killed only a connection that may write can roll
    # its journal back. query_only keeps us readers all the same. A folder that may not
    # be written has no such writer, and wants ro.
    quoted = str(database).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
    for mode in ("rw", "ro"):
        try:
            connection = sqlite3.connect(
                f"file:{quoted}?mode={mode}",
                uri=True,
                timeout=BUSY_TIMEOUT,
                check_same_thread=False,
                isolation_level=None,
            )
            connection.execute("pragma query_only = on")
            connection.execute("select 1 from sqlite_master limit 1").fetchall()
        except sqlite3.OperationalError:
            if mode == "ro":
                raise
        else:
            return connection
    raise AssertionError("unreachable")


@contextmanager
def _errors(database: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise StoreError(
            f"registry {database}: {error}", hint="check [registry] tracking_uri"
        ) from error


def _location(source: str | None, run_id: str | None, artifact_uri: str | None) -> str | None:
    """A `runs:/` source means a path below its run's artifacts."""
    if not source:
        return None
    prefix = f"runs:/{run_id}/"
    if run_id and artifact_uri and source.startswith(prefix):
        return f"{artifact_uri.rstrip('/')}/{source.removeprefix(prefix)}"
    return None if source.startswith("runs:/") else source


def open_reader(settings: Settings) -> Reader:
    """The quickest reader for this store.

    Raises:
        StoreError: it cannot be read.
    """
    uri = settings.registry.tracking_uri
    database = sqlite_path(uri)
    if database is not None:
        if not database.exists():
            raise NotFoundError(
                "registry", str(database), hint=f"the first training makes it: {_TRAIN}"
            )
        try:
            return SqliteReader(database)
        except UnknownSchemaError:
            return _child(uri, settings.dirs.root, os.getpid())
    return _child(uri, settings.dirs.root, os.getpid())


_TRAIN = "mindtrace train --config cfg.ini"


@functools.lru_cache(maxsize=2)
def _child(uri: str, root: Path, _pid: int) -> ChildReader:
    """One child for a store, which takes seconds to start; not shared with a forked process."""
    from mindtrace.registry.child_reader import ChildReader

    return ChildReader(uri, root)
