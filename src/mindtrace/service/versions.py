"""The questions to the registry: which versions there are, and all about one."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mindtrace.config.settings import Settings
from mindtrace.documents import document
from mindtrace.errors import BundleError, NotFoundError, UsageError, nearest

if TYPE_CHECKING:
    from mindtrace.registry.fields import Field, Group
    from mindtrace.registry.query import Query
    from mindtrace.registry.reader import ModelVersion, Reader

# Versions that are asked for their names when a query finds nothing.
_ASKED = 20
_ENVIRONMENT = ("mindtrace", "torch", "lightning", "python", "platform", "who")


@dataclass(frozen=True)
class VersionSummary:
    """One line of `registry list`; digests are None for a version that is not ours."""

    model_name: str
    version: int
    aliases: tuple[str, ...]
    metrics: Mapping[str, float]
    created_at: str
    run_id: str | None
    data_digest: str | None
    test_digest: str | None
    bundle_digest: str | None

    def document(self) -> dict[str, Any]:
        """The JSON document of one version."""
        return document(
            {**vars(self), "aliases": list(self.aliases), "metrics": dict(self.metrics)}
        )


@dataclass(frozen=True)
class VersionDetail:
    """Everything known of a version.

    `files` are its bundle's, name to size in bytes; empty if the bundle is not at hand.
    """

    summary: VersionSummary
    params: Mapping[str, str]
    environment: Mapping[str, str]
    git: Mapping[str, Any]
    parent: str | None
    job_id: str | None
    seed: int | None
    best_epoch: int | None
    started_at: str | None
    ended_at: str | None
    duration_s: float | None
    config_digest: str | None
    weights_digest: str | None
    files: Mapping[str, int]

    def document(self) -> dict[str, Any]:
        """The JSON document of `registry show`."""
        own = {key: value for key, value in vars(self).items() if key != "summary"}
        plain = {k: dict(v) if isinstance(v, Mapping) else v for k, v in own.items()}
        return {**self.summary.document(), **plain}


def list_models(settings: Settings) -> list[str]:
    """Names of registered models, sorted; empty where there is no registry yet."""
    from mindtrace.registry.reader import open_reader

    try:
        return open_reader(settings).names()
    except NotFoundError:
        return []


def list_versions(
    settings: Settings,
    name: str | None = None,
    limit: int = 20,
    *,
    where: str | None = None,
    sort: str | None = None,
    after: int | None = None,
) -> list[VersionSummary]:
    """Versions of one model or of all, newest first; empty where there is no registry yet.

    Args:
        settings: which registry.
        name: one model; None for all.
        limit: at most so many.
        where: only these, such as `val_acc > 0.97 and alias = champion`.
        sort: another order, such as `-val_acc,version`.
        after: with `name`: what follows this version in that order.

    Raises:
        QueryError: `where` or `sort` cannot be read; a UsageError.
        UsageError: version `after` is not among them.
        NotFoundError: no model of that name.
        StoreError: the registry cannot be read.
    """
    _, rows = _select(settings, name, limit, where, sort, after)
    return [_summary(row) for row in rows]


def list_columns(
    settings: Settings,
    columns: str,
    name: str | None = None,
    limit: int = 20,
    *,
    where: str | None = None,
    sort: str | None = None,
) -> tuple[list[str], list[list[str | float | None]]]:
    """Chosen columns of the versions that `list_versions` gives.

    Args:
        settings: which registry.
        columns: names of fields, with commas between, such as `version,val_acc,params.train.lr`.
        name: see `list_versions`, as for the others.
        limit: at most so many.
        where: only these.
        sort: another order.

    Returns:
        The names of the columns, and a row for each version; None for what it has not.

    Raises:
        QueryError, NotFoundError, StoreError: see `list_versions`.
    """
    from mindtrace.registry.fields import value_of
    from mindtrace.registry.query_text import parse_columns

    chosen = parse_columns(columns)
    reader, rows = _select(settings, name, limit, where, sort, None)
    table: list[list[str | float | None]] = []
    for row in rows:
        wants_params = any(field is not None and field.group == "param" for _, field in chosen)
        params = reader.params(row.run_id) if reader and wants_params and row.run_id else {}
        table.append(
            [
                ",".join(row.aliases)
                if field is None
                else row.created_at
                if field.kind == "time"
                else _shown(value_of(field, row, params), field)
                for _, field in chosen
            ]
        )
    return [column for column, _ in chosen], table


def _shown(value: str | float | None, field: Field) -> str | float | None:
    """A seed is 7, not 7.0."""
    if field.group == "tag" and isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _select(
    settings: Settings,
    name: str | None,
    limit: int,
    where: str | None,
    sort: str | None,
    after: int | None,
) -> tuple[Reader | None, Sequence[ModelVersion]]:
    """Rows and who read them; no reader where there is no registry yet."""
    from mindtrace.registry.query_text import parse_query
    from mindtrace.registry.reader import open_reader

    query = parse_query(where, sort)
    try:
        reader = open_reader(settings)
    except NotFoundError:
        if name is None:
            return None, []
        raise
    rows = reader.versions(name, limit, query=query, after=after)
    if not rows and name is not None and name not in reader.names():
        raise NotFoundError("model", name, reader.names())
    if not rows and where is not None:
        _demand_known(reader, name, query)
    return reader, rows


def _demand_known(reader: Reader, name: str | None, query: Query) -> None:
    """Nothing was found: perhaps a `params.X` that no version has, but one that is near.

    Only the newest versions are asked, so a name that resembles none of theirs is let be.

    Raises:
        UsageError: with the name that was meant.
    """
    from mindtrace.registry.fields import FREE, METRICS
    from mindtrace.registry.names import PREFIX

    words = {group: word for word, (group, _) in FREE.items()}
    free = [
        field
        for field in query.fields()
        if field.group in words and not field.name.startswith((PREFIX, *METRICS))
    ]
    rows = reader.versions(name, _ASKED) if free else []
    for field in free:
        known = {key for row in rows for key in _names(reader, row, field.group)}
        close = None if field.name in known else nearest(field.name, sorted(known))
        if close is not None:
            word = words[field.group]
            raise UsageError(
                f"--where: none of the newest versions has {word}.{field.name}, "
                f"did you mean {word}.{close}?"
            )


def _names(reader: Reader, row: ModelVersion, group: Group) -> Iterable[str]:
    """What a version has of a kind."""
    from mindtrace.registry.fields import metrics_of

    if group == "param":
        return reader.params(row.run_id) if row.run_id else ()
    return row.tags if group == "tag" else metrics_of(row)


def show_version(settings: Settings, ref: str) -> VersionDetail:
    """All about the version that `ref` names.

    Raises:
        NotFoundError: no such version.
        UsageError: a folder; it is no registered version.
        StoreError: the registry cannot be read.
    """
    from mindtrace.registry.names import PREFIX
    from mindtrace.registry.reader import open_reader
    from mindtrace.registry.reference import find, locate_version, parse_reference

    reference = parse_reference(ref)
    if reference.folder is not None:
        raise UsageError(
            f"{ref} is a folder, not a registered version",
            hint="write NAME, NAME@ALIAS, NAME/VERSION or VERSION",
        )
    reader = open_reader(settings)
    row = find(settings, reader, reference)
    tags = {
        key.removeprefix(PREFIX): value for key, value in row.tags.items() if key.startswith(PREFIX)
    }
    try:
        files = _files(locate_version(settings, reader, row).folder)
    except BundleError:
        files = {}
    return VersionDetail(
        summary=_summary(row),
        params=reader.params(row.run_id) if row.run_id else {},
        environment={key: tags[key] for key in _ENVIRONMENT if key in tags},
        git={"commit": tags.get("git_commit"), "dirty": tags.get("git_dirty") == "true"}
        if "git_commit" in tags
        else {},
        parent=tags.get("parent"),
        job_id=tags.get("job_id"),
        seed=_integer(tags.get("seed")),
        best_epoch=_integer(tags.get("best_epoch")),
        started_at=tags.get("started_at"),
        ended_at=tags.get("ended_at"),
        duration_s=float(tags["duration_s"]) if "duration_s" in tags else None,
        config_digest=tags.get("config_digest"),
        weights_digest=tags.get("weights_digest"),
        files=files,
    )


def _summary(row: ModelVersion) -> VersionSummary:
    from mindtrace.registry.fields import metrics_of
    from mindtrace.registry.names import PREFIX

    return VersionSummary(
        model_name=row.name,
        version=row.version,
        aliases=row.aliases,
        metrics=metrics_of(row),
        created_at=row.created_at,
        run_id=row.run_id,
        data_digest=row.tags.get(PREFIX + "data_digest"),
        test_digest=row.tags.get(PREFIX + "test_digest"),
        bundle_digest=row.tags.get(PREFIX + "bundle_digest"),
    )


def _files(folder: Path) -> dict[str, int]:
    from mindtrace.bundle.manifest import MANIFEST

    try:
        entries = json.loads((folder / MANIFEST).read_bytes())["files"]
        return {name: int(entry["size"]) for name, entry in sorted(entries.items())}
    except (OSError, ValueError, KeyError, TypeError):
        # A damaged bundle is `registry verify`'s to tell of; the rest is worth showing.
        return {}


def _integer(text: str | None) -> int | None:
    return None if text is None else int(text)
