"""Checks whether everything that mindtrace needs is there and in order."""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mindtrace.config.settings import Settings
from mindtrace.config.urls import file_path, masked, sqlite_path
from mindtrace.errors import MindtraceError, NotFoundError, StoreError, UsageError, listed
from mindtrace.registry.names import foreign_roots, is_below, require_writable
from mindtrace.system import auto_device, has_bf16, processor
from mindtrace.utils.system import available_cores

# Whose versions matter most.
PACKAGES = (
    *("mindtrace", "torch", "torchvision", "timm", "pytorch-lightning", "mlflow", "onnxruntime"),
    *("numpy", "pillow", "fastapi", "uvicorn", "dbos"),
)
State = Literal["ok", "note", "wrong"]

# A bundle takes a few MB, MNIST 60, checkpoints and a larger network's bundles the rest.
SCARCE = 2**30
_PATIENCE = 2.0  # seconds for a server on this machine


@dataclass(frozen=True)
class Check:
    """One thing that was checked; a `note` does no harm, `details` are for programs."""

    check: str
    state: State
    found: str
    hint: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


def examine(settings: Settings, *, fix: bool = False) -> Iterator[Check]:
    """Check everything, the quick things first; `fix` rewrites paths of another ROOT."""
    yield Check("python", "ok", f"{platform.python_version()} on {platform.platform()}")
    yield from _packages()
    yield _configuration(settings)
    yield _folder(settings)
    yield _compute(settings)
    yield from _registry(settings)
    yield from _database(settings, fix)
    yield _token(settings)
    yield _server(settings)


def _packages() -> Iterator[Check]:
    """The versions installed, by pip's metadata: importing the packages would take seconds."""
    found: dict[str, str] = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield Check(name, "wrong", "not installed", f"pip install {name}", {"version": None})
        else:
            yield Check(name, "ok", found[name], None, {"version": found[name]})
    torch, vision = found.get("torch"), found.get("torchvision")
    if torch and vision:
        from packaging.requirements import Requirement

        # The two are built for each other; any other pair breaks at import.
        needs = map(Requirement, importlib.metadata.requires("torchvision") or ())
        wanted = next((need.specifier for need in needs if need.name == "torch"), None)
        if wanted is not None and not wanted.contains(torch.partition("+")[0], True):
            fault = f"torchvision {vision} was built for torch {wanted}, not {torch}"
            hint = "pip install -U torch torchvision"
            yield Check("torch and torchvision", "wrong", fault, hint, {"version": None})


def _configuration(settings: Settings) -> Check:
    files = {origin.file for origin in settings.origins.values()} - {"default"}
    text = ", ".join(sorted(files)) or "the defaults; no INI, nothing in the environment"
    return Check("configuration", "ok", text, details={"sources": sorted(files)})


def _folder(settings: Settings) -> Check:
    """Whether ROOT can be written, and how much space is free."""
    root = settings.dirs.root
    there = next(folder for folder in (root, *root.parents) if folder.exists())
    usage = shutil.disk_usage(there)
    details = {"path": str(root), "free": usage.free, "total": usage.total}
    text = f"{root}, {usage.free / 2**30:.1f} GiB free"
    try:
        require_writable(root, settings.dirs.checkpoints)
    except StoreError as error:
        found = f"{error.message}; reading and serving work all the same"
        return Check("root", "wrong", found, error.hint, details)
    if usage.free < SCARCE:
        hint = "mindtrace registry gc --keep 5 --dry-run shows what could go"
        return Check("root", "wrong", f"{text}: little", hint, details)
    return Check("root", "ok", text if root.exists() else f"{text}; not made yet", None, details)


def _compute(settings: Settings) -> Check:
    """What trains here."""
    compute, here = settings.compute, auto_device()
    device = here if compute.device == "auto" else compute.device
    details = {
        "device": device,
        "processor": processor(),
        "cores": available_cores(),
        "bf16": has_bf16(),
        "threads": compute.threads,
        "precision": compute.precision,
    }
    text = f"{device}, {available_cores()} cores, {'' if has_bf16() else 'no '}bf16"
    if compute.threads is not None:
        text += f", threads = {compute.threads}"
    if device.startswith("cuda") and here != "cuda":
        hint = "--set compute.device=auto, or install the driver"
        return Check("compute", "wrong", f"{device}: no GPU found", hint, details)
    return Check("compute", "ok", text, None, details)


def _registry(settings: Settings) -> Iterator[Check]:
    """The store, then the champion of each model."""
    from mindtrace.registry.reader import open_reader

    uri = masked(settings.registry.tracking_uri)
    details = {"tracking_uri": uri}
    try:
        names = open_reader(settings).names()
    except NotFoundError:
        text = f"{uri}: empty; the first training makes it"
        yield Check("store", "ok", text, "mindtrace train", details)
        return
    except StoreError as error:
        hint = error.hint or f"is it there, and may you read it? [registry] tracking_uri = {uri}"
        yield Check("store", "wrong", error.message, hint, details)
        return
    counted = "1 model" if len(names) == 1 else f"{len(names)} models"
    yield Check("store", "ok", f"{uri}, {counted}", None, {**details, "models": names})
    chosen = settings.registry.model_name
    for name in names:
        if chosen in (None, name):
            yield _champion(settings, name)
    if chosen is not None and chosen not in names:
        text = f"none yet; there are: {listed(names)}"
        yield Check(f"champion of {chosen}", "note", text, "mindtrace train")


def _database(settings: Settings, fix: bool) -> Iterator[Check]:
    """What a SQLite store says of its schema, of places, bundles and models that are gone."""
    from mindtrace.registry.database import age_of, connect, describe_schema, revision_of
    from mindtrace.registry.reader import ALL, open_database

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
        text, hint = describe_schema(revision, "")
        yield Check("schema", "wrong", f"{text}; reading works", hint, {"revision": revision})
    elif age_of(revision) == "older":
        text = f"of an older MLflow (revision {revision}): what writes next has MLflow migrate it"
        yield Check("schema", "note", f"{text}; a copy stays", None, {"revision": revision})
    yield _places(root, database, foreign, fix)
    rows = [row for row in reader.versions(None, ALL) if "bundle_digest" in row.own_tags]
    places = {f"{row.name}/{row.version}": file_path(row.location or "") for row in rows}
    lost = [name for name, place in places.items() if place and not place.is_dir()]
    outside = [name for name, place in places.items() if place and not is_below(place, root)]
    text = f"{len(rows)} registered, {len(lost)} lost, {len(outside)} outside ROOT"
    details = {"lost": lost, "outside": outside}
    if lost:
        text, hint = f"{text}; lost: {listed(lost)}", "mindtrace registry verify --all"
        yield Check("bundles", "wrong", text, hint, details)
    else:
        yield Check("bundles", "ok", text, None, details)
    for name in reader.orphaned_logs():
        text = "the model was deleted; its history is still there"
        yield Check(f"history of {name}", "note", text, None, {"model_name": name})


def _places(root: Path, database: Path, foreign: Mapping[str, int], fix: bool) -> Check:
    """Whether the paths that MLflow stored are of this ROOT."""
    from mindtrace.registry.database import keep_copy

    details: dict[str, Any] = {"recorded": list(foreign), "copy": None}
    if not foreign:
        return Check("places", "ok", "all paths in the store are of this ROOT", None, details)
    text = f"{sum(foreign.values())} paths in the store are of {listed(list(foreign))}"
    if not fix:
        text += ", which was copied or moved here: MLflow's own tools look there"
        return Check("places", "note", text, "mindtrace doctor --fix", details)
    try:
        with closing(sqlite3.connect(database, timeout=30)) as connection, connection:
            details["copy"] = str(keep_copy(connection, database, f"{time.time_ns()}.copy"))
            foreign_roots(connection, root, database, rewrite=True)
    except (sqlite3.Error, OSError) as error:
        raise StoreError(f"registry {database}: {error}", hint="it must be writable") from error
    text += f": rewritten; the database before is {details['copy']}"
    return Check("places", "ok", text, None, details)


def _champion(settings: Settings, name: str) -> Check:
    """Whether the bundle is what was registered, and gives the same answers."""
    from mindtrace.registry.maintenance import verify

    what = f"champion of {name}"
    try:
        found = verify(settings, f"{name}@champion")
    except NotFoundError:
        hint = f"mindtrace registry promote {name}/VERSION"
        return Check(what, "wrong", "none: the alias is gone", hint, {"model_name": name})
    except MindtraceError as error:
        return Check(what, "wrong", error.message, error.hint, {"model_name": name})
    version, faults = found[0].version, [fault for one in found for fault in one.faults]
    details = {"model_name": name, "version": version, "faults": faults}
    if faults:
        hint = "restore the files from a copy, or mindtrace registry rollback"
        return Check(what, "wrong", f"version {version}: {faults[0]}", hint, details)
    if found[0].state != "verified":
        hint = "mindtrace cannot serve what plain MLflow registered"
        return Check(what, "wrong", f"version {version} has no bundle", hint, details)
    return Check(what, "ok", f"version {version}, verified", None, details)


def _token(settings: Settings) -> Check:
    """Whether `mindtrace serve` would agree to start, as far as tokens go."""
    from mindtrace.service.serve import check_token_rule

    try:
        check_token_rule(settings)
    except UsageError as error:
        return Check("token", "wrong", error.message, error.hint)
    file = settings.serve.token_file
    return Check("token", "ok", f"in {file}" if file else "none, for this machine alone")


def _server(settings: Settings) -> Check:
    """Whether a server answers where `mindtrace serve` would listen."""
    from mindtrace.service.remote import Link
    from mindtrace.service.serve import url_of

    host, port = settings.serve.host, settings.serve.port
    if port == 0:
        return Check("server", "ok", "port = 0 takes any free port; no server is looked for")
    url = url_of({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port)
    link = Link(url, patience=_PATIENCE)
    try:
        reply = link.ask("GET", "/healthz/ready")
    except MindtraceError as error:
        if isinstance(error.__cause__, ConnectionRefusedError):
            return Check("server", "ok", f"none at {url}", "mindtrace serve", {"url": url})
        hint = "something else may listen there: mindtrace serve --port N"
        return Check("server", "wrong", error.message, hint, {"url": url})
    finally:
        link.close()
    fields = {name: reply.fields.get(name) for name in ("model_name", "version")}
    if reply.status == 200 and reply.fields.get("status") == "ready":
        which = f"{fields['model_name']}/{fields['version']}" if fields["version"] else "a bundle"
        return Check("server", "ok", f"{url} serves {which}", None, {"url": url, **fields})
    text = str(reply.fields.get("detail", f"answers {reply.status}"))
    return Check("server", "wrong", f"{url}: {text}", reply.fields.get("hint"), {"url": url})
