"""Checks whether everything that mindtrace needs is there and in order."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mindtrace.config.settings import Settings
from mindtrace.config.urls import masked, sqlite_path
from mindtrace.errors import MindtraceError, NotFoundError, StoreError, UsageError, listed
from mindtrace.system import auto_device, has_bf16, processor
from mindtrace.utils.system import available_cores

# Whose versions decide most, in this order before all others.
FIRST = (
    *("mindtrace", "torch", "torchvision", "pytorch-lightning", "mlflow", "onnxruntime"),
    *("numpy", "pillow", "fastapi", "uvicorn", "dbos"),
)


@dataclass(frozen=True)
class Package:
    """One that mindtrace uses.

    Attributes:
        name: as pip knows it.
        version: None if it is not installed.
        fault: why it does not do; None if it does.
        remedy: what to type then.
    """

    name: str
    version: str | None
    fault: str | None = None
    remedy: str | None = None


def packages() -> Iterator[Package]:
    """What mindtrace needs, and whether the pair of torch and torchvision fits."""
    from packaging.requirements import Requirement

    wanted = [Requirement(text) for text in importlib.metadata.requires("mindtrace") or ()]
    needed = {one.name: one for one in wanted if one.marker is None or one.marker.evaluate()}
    for name in sorted({*FIRST, *needed}, key=_rank):
        found, requirement = _version(name), needed.get(name)
        remedy = f"pip install '{requirement or name}'"
        if requirement is None or (found and requirement.specifier.contains(found, True)):
            if found is not None:
                yield Package(name, found)
        elif found is None:
            yield Package(name, None, "not installed", remedy)
        else:
            fault = f"{found}, mindtrace needs {requirement.specifier}"
            yield Package(name, found, fault, remedy)
    yield from _pair()


def _pair() -> Iterator[Package]:
    """torch and torchvision are built for each other; any other pair breaks at import."""
    from packaging.requirements import Requirement

    torch, vision = _version("torch"), _version("torchvision")
    if torch is None or vision is None:
        return
    for text in importlib.metadata.requires("torchvision") or ():
        wanted = Requirement(text)
        if wanted.name == "torch" and not wanted.specifier.contains(torch.partition("+")[0], True):
            fault = f"torchvision {vision} was built for torch {wanted.specifier}, not {torch}"
            remedy = "pip install -U torch torchvision"
            yield Package("torch and torchvision", None, fault, remedy)


def _rank(name: str) -> tuple[int, str]:
    return (FIRST.index(name) if name in FIRST else len(FIRST), name)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


State = Literal["ok", "note", "wrong"]

# A bundle takes a few MB, MNIST 60, checkpoints and a larger network's bundles the rest.
SCARCE = 2**30
MACHINE = "machine.json"
_PATIENCE = 2.0  # seconds for a server on this machine


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        check: what.
        state: `note` is worth knowing and does no harm.
        found: in one line.
        hint: what to do; None where there is nothing.
        details: the same for programs.
    """

    check: str
    state: State
    found: str
    hint: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """One entry of the JSON document of `mindtrace doctor`."""
        return {**vars(self), "details": dict(self.details)}


def examine(settings: Settings) -> Iterator[Check]:
    """Look at everything, the quick things first."""
    yield Check("python", "ok", f"{platform.python_version()} on {platform.platform()}")
    yield from _packages()
    yield _configuration(settings)
    yield _folder(settings)
    yield _compute(settings)
    yield from _registry(settings)
    yield _token(settings)
    yield _server(settings)


def _packages() -> Iterator[Check]:
    """Those that decide most; of the others only what is wrong is told."""
    for one in packages():
        if one.fault is not None:
            yield Check(one.name, "wrong", one.fault, one.remedy, {"version": one.version})
        elif one.version is not None and one.name in FIRST:
            yield Check(one.name, "ok", one.version, None, {"version": one.version})


def _configuration(settings: Settings) -> Check:
    files = {origin.file for origin in settings.origins.values()} - {"default"}
    told = ", ".join(sorted(files)) or "the defaults; no INI, nothing in the environment"
    return Check("configuration", "ok", told, details={"sources": sorted(files)})


def _folder(settings: Settings) -> Check:
    """Whether ROOT can be written, and how much room there is."""
    root = settings.dirs.root
    there = next(folder for folder in (root, *root.parents) if folder.exists())
    usage = shutil.disk_usage(there)
    details = {"path": str(root), "free": usage.free, "total": usage.total}
    told = f"{root}, {usage.free / 2**30:.1f} GiB free"
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        hint = "--set DIR_PATHS.ROOT=FOLDER names another one"
        return Check("root", "wrong", f"{root}: {there} cannot be written", hint, details)
    if usage.free < SCARCE:
        hint = "mindtrace registry gc --keep 5 --dry-run shows what could go"
        return Check("root", "wrong", f"{told}: little", hint, details)
    return Check("root", "ok", told if root.exists() else f"{told}; not made yet", None, details)


def _compute(settings: Settings) -> Check:
    """What trains here, and what earlier trainings found to be quickest."""
    compute, here = settings.compute, auto_device()
    device = here if compute.device == "auto" else compute.device
    raced = _raced(settings.dirs.root / MACHINE)
    details = {
        "device": device,
        "processor": processor(),
        "cores": available_cores(),
        "bf16": has_bf16(),
        "threads": compute.threads,
        "precision": compute.precision,
        "raced": raced,
    }
    told = f"{device}, {available_cores()} cores, {'' if has_bf16() else 'no '}bf16"
    if compute.threads is not None:
        told += f", threads = {compute.threads}"
    elif raced:
        counts = sorted({choice["threads"] for choice in raced.values()})
        told += f", threads = auto (so far {' or '.join(map(str, counts))})"
    if device.startswith("cuda") and here != "cuda":
        hint = "--set compute.device=auto, or install the driver"
        return Check("compute", "wrong", f"{device}: no GPU is seen here", hint, details)
    if raced is None:
        hint = f"it is written anew by the next training: {settings.dirs.root / MACHINE}"
        return Check("compute", "note", f"{told}; {MACHINE} cannot be read", hint, details)
    return Check("compute", "ok", told, None, details)


def _raced(file: Path) -> dict[str, Any] | None:
    """What is remembered of this machine; None if the file is broken."""
    if not file.exists():
        return {}
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return {
            str(key): {"threads": int(one["threads"]), "precision": str(one["precision"])}
            for key, one in found.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _registry(settings: Settings) -> Iterator[Check]:
    """The store, then the champion of each model."""
    uri = masked(settings.registry.tracking_uri)
    details = {"tracking_uri": uri}
    try:
        names = _models(settings)
    except NotFoundError:
        found = f"{uri}: empty; the first training makes it"
        yield Check("store", "ok", found, "mindtrace train", details)
        return
    except StoreError as error:
        yield Check("store", "wrong", error.message, error.hint or _see(uri), details)
        return
    counted = "1 model" if len(names) == 1 else f"{len(names)} models"
    yield Check("store", "ok", f"{uri}, {counted}", None, {**details, "models": names})
    chosen = settings.registry.model_name
    for name in names:
        if chosen in (None, name):
            yield _champion(settings, name)
    if chosen is not None and chosen not in names:
        told = f"none yet; there are: {listed(names)}"
        yield Check(f"champion of {chosen}", "note", told, "mindtrace train")


def _models(settings: Settings) -> list[str]:
    """The names in the store."""
    from mindtrace.registry.reader import open_reader

    if sqlite_path(settings.registry.tracking_uri) is None:
        _knock(settings.registry.tracking_uri)
    return open_reader(settings).names()


def _knock(uri: str) -> None:
    """One try: MLflow itself would try for minutes.

    Raises:
        StoreError: nobody answers.
    """
    from sqlalchemy.exc import SQLAlchemyError

    from mindtrace.registry.store import ping

    try:
        ping(uri)
    except (OSError, SQLAlchemyError) as error:
        reason = masked(" ".join(str(error).split()))
        raise StoreError(f"{masked(uri)}: {reason[:300]}") from error


def _see(uri: str) -> str:
    return f"is it there, and may you read it? [registry] tracking_uri = {uri}"


def _champion(settings: Settings, name: str) -> Check:
    """Whether the bundle is what was registered, and answers as it did."""
    from mindtrace.service.verification import verify

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
    """Whether one answers where `mindtrace serve` would listen."""
    from mindtrace.service.remote import Link

    host, port = settings.serve.host, settings.serve.port
    if port == 0:
        return Check("server", "ok", "port = 0 is any free one; none is looked for")
    url = _url({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port)
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
    told = str(reply.fields.get("detail", f"answers {reply.status}"))
    return Check("server", "wrong", f"{url}: {told}", reply.fields.get("hint"), {"url": url})


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
