"""Questions about registered versions: which there are, all about one, what differs."""

import contextlib
import json
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from mindtrace.bundle import manifest
from mindtrace.config.ini import values_of
from mindtrace.config.settings import Settings
from mindtrace.config.urls import file_path, masked
from mindtrace.documents import document
from mindtrace.errors import BundleError, NotFoundError, StoreError
from mindtrace.registry import reference
from mindtrace.registry.maintenance import new_folder
from mindtrace.registry.query import Query, parse_columns, parse_query
from mindtrace.registry.reader import ALL, ModelVersion, Reader, open_reader

REPORT_FILES = ("report.json", "curves.png", "confusion.png", "calibration.png", "mistakes.png")
PARTS = ("configuration", "data", "environment", "metrics")
Value = str | float | None
Row = TypeVar("Row")

_DIGESTS = ("data_digest", "test_digest")
_PRETRAINED = "pretrained_"
_ENVIRONMENT = ("mindtrace", "torch", "lightning", "python", "platform", "who")
_DIFF_ENVIRONMENT = (*_ENVIRONMENT[:5], "git_commit", "git_dirty", "who", "parent")


@dataclass(frozen=True)
class VersionSummary:
    """One line of `registry list`; digests are SHA-256, None of a version that is not ours."""

    model_name: str
    version: int
    aliases: tuple[str, ...]  # sorted
    metrics: Mapping[str, float]  # of the best epoch; of its run where nobody wrote these
    created_at: str  # UTC, ISO 8601
    run_id: str | None  # of the MLflow run that trained it
    data_digest: str | None  # of the images it was trained with
    test_digest: str | None  # of its test images
    bundle_digest: str | None  # of its manifest


@dataclass(frozen=True)
class VersionDetail(VersionSummary):
    """Everything known of a version; None or empty for what is not."""

    params: Mapping[str, str]  # of its run
    environment: Mapping[str, str]  # versions of what it was trained with, platform, who
    git: Mapping[str, Any]  # `commit` and `dirty` of the repository it was trained in
    parent: str | None  # the version that a retraining began from
    job_id: str | None  # of the job that trained it
    seed: int | None
    best_epoch: int | None  # from 1
    started_at: str | None  # UTC, ISO 8601
    ended_at: str | None  # UTC, ISO 8601
    duration_s: float | None  # of its training
    config_digest: str | None  # of its configuration
    weights_digest: str | None  # of its weights by name
    # `source` and `license` of the weights that its training began with, or a `warning`.
    pretrained: Mapping[str, str]
    files: Mapping[str, int]  # of its bundle, name to size in bytes
    input: Mapping[str, Any]  # what its network takes: size, mode, scale, mean, std
    report: str | None  # where the report of its training is: a path, or a URI of its store
    mlflow_ui: str | None  # its run's page, or the command that serves such pages


@dataclass(frozen=True)
class Difference:
    """Version b compared with version a."""

    a: str  # `NAME/VERSION` or a folder
    b: str
    # For each of `PARTS`, name to the values of a and b where they differ; all of the metrics,
    # because an equal metric is worth knowing.
    parts: Mapping[str, Mapping[str, tuple[Value, Value]]]

    def document(self) -> dict[str, Any]:
        """The JSON document of `mindtrace registry diff`."""
        return document({"a": self.a, "b": self.b, **self.parts})

    def rows(self) -> Iterator[tuple[str, str, Value, Value]]:
        """Part, name, value of a, value of b."""
        for part, changes in self.parts.items():
            for name, (first, second) in changes.items():
                yield part, name, first, second


def list_models(settings: Settings) -> list[str]:
    """Registered models, sorted; none where there is no registry yet."""
    return list(_queried(settings, lambda reader, _: reader.names()))


def list_versions(
    settings: Settings,
    name: str | None = None,
    limit: int = 20,
    *,
    where: str | None = None,
    sort: str | None = None,
    after: int | None = None,
) -> list[VersionSummary]:
    """Versions, newest first unless `sort` says else; see `mindtrace registry list`.

    `after` is the last version seen of `name`, a `limit` of 0 is none. UsageError where `where`
    or `sort` cannot be read, NotFoundError for an unknown model.
    """

    def ask(reader: Reader, query: Query) -> Sequence[ModelVersion]:
        return reader.versions(name, limit or ALL, query=query, after=after)

    return [VersionSummary(**_summary(row)) for row in _queried(settings, ask, name, where, sort)]


def list_columns(
    settings: Settings,
    columns: str,
    name: str | None = None,
    limit: int = 20,
    *,
    where: str | None = None,
    sort: str | None = None,
) -> tuple[list[str], list[list[Value]]]:
    """Names of columns such as `version,val_acc,params.train.lr`, and their values by version."""
    chosen = parse_columns(columns)
    fields = [field for _, field in chosen]

    def ask(reader: Reader, query: Query) -> Sequence[list[Value]]:
        return reader.columns(fields, name, limit or ALL, query)

    return [column for column, _ in chosen], list(_queried(settings, ask, name, where, sort))


def count_versions(settings: Settings, name: str | None = None, where: str | None = None) -> int:
    """How many versions `list_versions` has without a limit."""
    counted = _queried(settings, lambda reader, q: range(reader.count(name, q)), name, where)
    return len(counted)


def write_report(settings: Settings, ref: str, folder: str | None) -> str:
    """Copy the report of a version's training into a new or empty folder; its path."""
    reader = open_reader(settings)
    row = reference.find(settings, reader, ref)
    name, place = f"{row.name}/{row.version}", row.beside("report")
    target = Path(folder or f"{row.name}-{row.version}-report").expanduser().absolute()
    local = place and file_path(place)
    if not place or (local and not (local / "report.html").is_file()):
        raise NotFoundError("report", f"of {name}", hint="mindtrace registry list")
    with new_folder(target) as part:
        reader.fetch(place, part)
    return str(target / "report.html")


def show_version(settings: Settings, ref: str) -> VersionDetail:
    """All that is known of one version; NotFoundError where there is none."""
    from mindtrace.bundle.bundle import ModelConfig  # it imports numpy

    reader = open_reader(settings)
    row = reference.find(settings, reader, ref)
    tags, report = row.own_tags, row.beside("report/report.html")
    local = report and file_path(report)
    files: dict[str, int] = {}
    spec: dict[str, Any] = {}
    # `registry verify` reports a damaged bundle; the rest is worth showing.
    with contextlib.suppress(BundleError):
        folder = reference.locate_version(settings, reader, row).folder
        files = manifest.sizes(folder)
        spec = ModelConfig.read(folder).spec.document()
    names = ("parent", "job_id", "started_at", "ended_at", "config_digest", "weights_digest")
    kinds: dict[str, Callable[[str], Any]] = {"seed": int, "best_epoch": int, "duration_s": float}
    kinds |= dict.fromkeys(names, str)
    facts: dict[str, Any] = {
        name: kind(tags[name]) if name in tags else None for name, kind in kinds.items()
    }
    begun = {k.removeprefix(_PRETRAINED): v for k, v in tags.items() if k.startswith(_PRETRAINED)}
    git = {"commit": tags.get("git_commit"), "dirty": tags.get("git_dirty") == "true"}
    return VersionDetail(
        **_summary(row),
        **facts,
        params=reader.params(row.run_id),
        environment={key: tags[key] for key in _ENVIRONMENT if key in tags},
        git=git if "git_commit" in tags else {},
        pretrained=begun,
        files=files,
        input=spec,
        # A store that is no folder is not asked whether it is there.
        report=None if local and not local.is_file() else str(local or report) if report else None,
        mlflow_ui=row.run_id and _mlflow_ui(settings.registry.tracking_uri, row.run_id),
    )


def _mlflow_ui(uri: str, run_id: str) -> str:
    """The page of a run on a server, without its password; else the command for MLflow's own."""
    parts = urlsplit(uri)
    if parts.scheme in ("http", "https"):
        host = parts.netloc.rpartition("@")[2]
        return f"{parts.scheme}://{host}{parts.path.rstrip('/')}/#/runs/{run_id}"
    return f"mlflow ui --backend-store-uri {shlex.quote(masked(uri))}"


def report_files(detail: VersionDetail) -> dict[str, Path]:
    """The files of a version's report by name; none where its store is no folder."""
    page = None if detail.report is None else file_path(detail.report)
    places = [] if page is None else [page.with_name(name) for name in REPORT_FILES]
    return {place.name: place for place in places if place.is_file()}


def diff(settings: Settings, a: str, b: str) -> Difference:
    """What differs in configuration, data, environment and metrics; or NotFoundError.

    b may be a bare number.
    """
    name_a, parts_a, model_name = _facts(settings, a, None)
    name_b, parts_b, _ = _facts(settings, b, model_name)
    parts = {}
    for part in PARTS:
        # A folder says nothing of some parts, which is no difference.
        known = part in parts_a and part in parts_b
        of_a, of_b = (parts_a[part], parts_b[part]) if known else ({}, {})
        parts[part] = {
            name: (of_a.get(name), of_b.get(name))
            for name in {**of_a, **of_b}
            if part == "metrics" or of_a.get(name) != of_b.get(name)
        }
    return Difference(name_a, name_b, parts)


def _queried(
    settings: Settings,
    ask: Callable[[Reader, Query], Sequence[Row]],
    name: str | None = None,
    where: str | None = None,
    sort: str | None = None,
) -> Sequence[Row]:
    """What `ask` finds; nothing where there is no registry yet, unless a model is named."""
    query = parse_query(where, sort)
    try:
        reader = open_reader(settings)
    except NotFoundError:
        if name is None:
            return []
        raise
    rows = ask(reader, query)
    if not rows and name is not None:
        reference.require_model(reader, name)
    return rows


def _summary(row: ModelVersion) -> dict[str, Any]:
    return {
        "model_name": row.name,
        "version": row.version,
        "aliases": row.aliases,
        "metrics": row.best_metrics,
        "created_at": row.created_at,
        "run_id": row.run_id,
        **{name: row.own_tags.get(name) for name in (*_DIGESTS, "bundle_digest")},
    }


_Parts = Mapping[str, Mapping[str, Value]]


def _facts(settings: Settings, ref: str, model_name: str | None) -> tuple[str, _Parts, str | None]:
    """The name of a version or folder, what `diff` compares, and the model's name."""
    parsed = reference.parse_reference(ref)
    if parsed.folder is not None:
        return ref, _bundle_facts(reference.locate(settings, ref)), None
    reader = open_reader(settings)
    row = reference.find(settings, reader, parsed, model_name)
    tags = row.own_tags
    parts: dict[str, Mapping[str, Value]] = {
        "configuration": dict(sorted(reader.params(row.run_id).items())),
        "data": {key: tags[key] for key in _DIGESTS if key in tags},
        "environment": {key: tags[key] for key in _DIFF_ENVIRONMENT if key in tags},
        "metrics": row.best_metrics,
    }
    # From the bundle where there is one: a run's parameters may be anything. One that is
    # not ours, or damaged, which verify reports, leaves what the registry knows.
    with contextlib.suppress(BundleError, StoreError):
        parts |= _bundle_facts(reference.locate_version(settings, reader, row))
    return row.label, parts, row.name


def _bundle_facts(located: reference.Located) -> dict[str, Mapping[str, Value]]:
    from mindtrace.bundle.bundle import CONFIG_FILE, DATA_FILE  # it imports numpy

    files = manifest.check(located.folder, located.digest)
    try:
        config = values_of(files[CONFIG_FILE].decode())
        data = json.loads(files[DATA_FILE])
        counts = {f"{stage}_images": float(n) for stage, n in data["counts"].items()}
        digests = {key: str(data[key]) for key in ("source", *_DIGESTS)}
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise BundleError(located.folder, f"cannot be read: {error!r}") from error
    return {"configuration": {**config}, "data": {**digests, **counts}}
