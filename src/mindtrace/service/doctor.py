"""Checks the configuration, ROOT and the store: what would stop a training, or is lost."""

import shutil
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mindtrace.config.settings import Settings
from mindtrace.config.urls import file_path, masked, sqlite_path
from mindtrace.errors import MindtraceError, NotFoundError, StoreError, listed
from mindtrace.registry.database import age_of, connect, keep_copy, revision_of, schema_error
from mindtrace.registry.names import foreign_roots, is_below, require_writable
from mindtrace.registry.reader import ALL, open_database, open_reader
from mindtrace.system import auto_device, has_bf16
from mindtrace.utils.system import available_cores

State = Literal["ok", "note", "wrong"]

# A bundle takes a few MB, MNIST 60, checkpoints and a larger network's bundles the rest.
SCARCE = 2**30


@dataclass(frozen=True)
class Check:
    """One thing that was checked; a `note` does no harm."""

    check: str
    state: State
    found: str
    hint: str | None = None


def examine(settings: Settings, *, fix: bool = False) -> Iterator[Check]:
    """Check everything, the quick things first; `fix` rewrites paths of another ROOT."""
    files = {origin.file for origin in settings.origins.values()} - {"default"}
    text = ", ".join(sorted(files)) or "the defaults; no INI, nothing in the environment"
    yield Check("configuration", "ok", text)
    yield _folder(settings)
    device = settings.compute.device
    device = auto_device() if device == "auto" else device
    text = f"{device}, {available_cores()} cores, {'' if has_bf16() else 'no '}bf16"
    yield Check("compute", "ok", text)
    yield _store(settings)
    yield from _database(settings, fix)


def _folder(settings: Settings) -> Check:
    """Whether ROOT can be written, and how much space is free."""
    root = settings.dirs.root
    there = next(folder for folder in (root, *root.parents) if folder.exists())
    free = shutil.disk_usage(there).free
    text = f"{root} ([DIR_PATHS] ROOT names another folder), {free / 2**30:.1f} GiB free"
    try:
        require_writable(root, settings.dirs.checkpoints)
    except StoreError as error:
        found = f"{error.message}; reading and serving work all the same"
        return Check("root", "wrong", found, error.hint)
    if free < SCARCE:
        hint = "mindtrace registry gc --keep 5 --dry-run  # shows what could go"
        return Check("root", "wrong", f"{text}: little", hint)
    return Check("root", "ok", text if root.exists() else f"{text}; not made yet")


def _store(settings: Settings) -> Check:
    """Whether the store answers."""
    uri = masked(settings.registry.tracking_uri)
    try:
        names = open_reader(settings).names()
    except NotFoundError:
        text = f"{uri}: empty; the first training makes it"
        return Check("store", "ok", text, "mindtrace train")
    except StoreError as error:
        hint = error.hint or f"is it there, and may you read it? [registry] tracking_uri = {uri}"
        return Check("store", "wrong", error.message, hint)
    counted = "1 model" if len(names) == 1 else f"{len(names)} models"
    return Check("store", "ok", f"{uri}, {counted}", "mindtrace registry verify --all")


def _database(settings: Settings, fix: bool) -> Iterator[Check]:
    """What a SQLite store says of its schema, of places, bundles and models that are gone."""
    root, database = settings.dirs.root, sqlite_path(settings.registry.tracking_uri)
    if database is None:
        return
    try:
        reader = open_database(database, root)
    except MindtraceError:
        return  # the check of the store has said so
    with closing(connect(database)) as connection:
        revision = str(revision_of(connection))
        foreign = foreign_roots(connection, root, database)
    if age_of(revision) == "newer":
        error = schema_error(database, revision)
        yield Check("schema", "wrong", f"{error.message}; reading works", error.hint)
    elif age_of(revision) == "older":
        text = f"of an older MLflow (revision {revision}): what writes next has MLflow migrate it"
        yield Check("schema", "note", f"{text}; a copy stays")
    yield _places(root, database, foreign, fix)
    rows = [row for row in reader.versions(None, ALL) if "bundle_digest" in row.own_tags]
    places = {f"{row.name}/{row.version}": file_path(row.location or "") for row in rows}
    lost = [name for name, place in places.items() if place and not place.is_dir()]
    outside = [name for name, place in places.items() if place and not is_below(place, root)]
    text = f"{len(rows)} registered, {len(lost)} lost, {len(outside)} outside ROOT"
    if lost:
        text, hint = f"{text}; lost: {listed(lost)}", "mindtrace registry verify --all"
        yield Check("bundles", "wrong", text, hint)
    else:
        yield Check("bundles", "ok", text)
    for name in reader.orphaned_logs():
        text = "the model was deleted; its history is still there"
        yield Check(f"history of {name}", "note", text)


def _places(root: Path, database: Path, foreign: Mapping[str, int], fix: bool) -> Check:
    """Whether the paths that MLflow stored are of this ROOT."""
    if not foreign:
        return Check("places", "ok", "all paths in the store are of this ROOT")
    text = f"{sum(foreign.values())} paths in the store are of {listed(list(foreign))}"
    if not fix:
        text += ", which was copied or moved here: MLflow's own tools look there"
        return Check("places", "note", text, "mindtrace doctor --fix")
    try:
        with closing(sqlite3.connect(database, timeout=30)) as connection, connection:
            copy = keep_copy(connection, database, f"{time.time_ns()}.copy")
            foreign_roots(connection, root, database, rewrite=True)
    except (sqlite3.Error, OSError) as error:
        raise StoreError(f"registry {database}: {error}", hint="it must be writable") from error
    return Check("places", "ok", f"{text}: rewritten; the database before is {copy}")
