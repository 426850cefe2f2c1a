"""What the shell completes: names, versions, jobs and keys; nothing where a look-up fails."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, get_args

import typer

from mindtrace import service
from mindtrace.config.networks import OWN_NETWORKS, timm_names
from mindtrace.config.sections import KEYS, Source

if TYPE_CHECKING:
    from mindtrace.config.settings import Settings
    from mindtrace.registry.reader import Reader

_NEWEST = 50  # versions of each model, and jobs


def _completing(find: Callable[[typer.Context], Iterable[str]]) -> Callable[..., list[str]]:
    def complete(ctx: typer.Context, incomplete: str) -> list[str]:
        try:
            return [name for name in find(ctx) if name.startswith(incomplete)]
        except Exception:  # noqa: BLE001 - no fault may end up in the line that is being typed
            return []

    return complete


def _settings(ctx: typer.Context) -> Settings:
    from mindtrace.config.settings import load_settings

    return load_settings(ctx.params.get("config"), sets=ctx.params.get("set_") or ())


def _reader(ctx: typer.Context) -> Reader:
    from mindtrace.config.urls import sqlite_path
    from mindtrace.registry.reader import open_database

    settings = _settings(ctx)
    database = sqlite_path(settings.registry.tracking_uri)
    assert database is not None  # nobody waits for a server while typing
    return open_database(database, settings.dirs.root)


def _versions(ctx: typer.Context) -> Iterator[str]:
    reader = _reader(ctx)
    for name in reader.names():
        yield from (name, *(f"{name}@{alias}" for alias in reader.aliases(name)))
        yield from (row.label for row in reader.versions(name, _NEWEST))


def _jobs(ctx: typer.Context) -> Iterable[str]:
    settings = _settings(ctx)
    assert not (settings.jobs.database_url or "").startswith("postgresql")  # as above
    return [job.job_id for job in service.jobs.queue(settings).list(_NEWEST)]


sources = _completing(lambda _: get_args(Source))
networks = _completing(lambda _: [*OWN_NETWORKS, *sorted(timm_names())])
keys = _completing(lambda _: [f"{section}.{key}=" for section, key in KEYS])
models = _completing(lambda ctx: _reader(ctx).names())
versions = _completing(_versions)
jobs = _completing(_jobs)
