"""From a finished training to a registered version, and versions that were registered before."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from importlib.metadata import version as version_of
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from mlflow.entities.model_registry import ModelVersion as MlflowVersion

from mindtrace.bundle import manifest
from mindtrace.bundle.bundle import ONNX_FILE, Contents, weights_digest, write_contents
from mindtrace.bundle.predictor import Predictor
from mindtrace.config.settings import Settings
from mindtrace.config.urls import file_path
from mindtrace.errors import NotFoundError, StoreError
from mindtrace.preprocess import ImageSpec
from mindtrace.registry.champions import ONE_CLASS, ensure_model, promote_first_version
from mindtrace.registry.names import BUNDLE, CHAMPION, METRIC, PREFIX
from mindtrace.registry.provenance import code_digest, environment, git_state, run_name, who
from mindtrace.registry.reader import ModelVersion
from mindtrace.registry.store import End, Run, Store, if_there, store_errors, upload
from mindtrace.system import sync

if TYPE_CHECKING:
    from mindtrace.training.fit import TrainResult


def register(
    run: Run,
    model_name: str,
    settings: Settings,
    result: TrainResult,
    *,
    parent: str | None = None,
    job_id: str | None = None,
    before_register: Callable[[], None] | None = None,
) -> ModelVersion:
    """Register what `run`, still open, trained with `settings`; no `auto` is left in them."""
    from mindtrace.training.export import contents

    tests = {name: value for name, value in result.metrics.items() if name.startswith("test_")}
    run.log_metrics(tests, step=result.best_epoch)
    run.flush()
    digests = result.data.digests()
    optional = {"parent": parent, "job_id": job_id}
    pretrained = result.model.model_config.pretrained
    metadata = {
        **environment(),
        "started_at": result.started_at.isoformat(timespec="milliseconds"),
        "ended_at": result.ended_at.isoformat(timespec="milliseconds"),
        "duration_s": f"{(result.ended_at - result.started_at).total_seconds():.3f}",
        **git_state(),
        "who": who(),
        "seed": str(settings.train.seed),
        "best_epoch": str(result.best_epoch),
        "config_digest": config_digest(settings),
        "code_digest": code_digest(),
        "data_digest": digests.data_digest,
        "test_digest": digests.test_digest,
        **{key: value for key, value in optional.items() if value is not None},
        **{f"pretrained_{key}": value for key, value in pretrained.items()},
        **{METRIC + name: repr(float(value)) for name, value in result.metrics.items()},
    }
    made = publish(
        run.store,
        model_name=model_name,
        run_id=run.run_id,
        contents=contents(result.model, result.data, result.test, settings.to_ini(), result.graph),
        metadata=metadata,
        before_register=before_register,
    )
    with suppress(StoreError):  # a name is not worth losing the version for
        run.rename(run_name(settings, model_name), run_name(settings, made.label))
    return made


def config_digest(settings: Settings) -> str:
    """SHA-256 of the configuration that travels in the bundle, 64 hexadecimal digits."""
    return hashlib.sha256(settings.to_ini().encode()).hexdigest()


def publish(
    store: Store,
    *,
    model_name: str,
    run_id: str,
    contents: Contents,
    metadata: Mapping[str, str],
    before_register: Callable[[], None] | None = None,
) -> ModelVersion:
    """Register a version in two phases; a failure before the second leaves nothing."""
    model, staging = contents.model_config, store.root / "staging"
    with store_errors(store.uri):
        staging.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f"{run_id}-", dir=staging))
        try:
            write_contents(folder, contents)
            add_mlflow_files(folder, model.spec)
            bundle_digest = manifest.seal(folder)
            Predictor.open(folder, bundle_digest)
            tags = {**metadata, "bundle_digest": bundle_digest, **_one_class(contents)}
            tags["weights_digest"] = weights_digest(contents.weights)
            _upload(store, run_id, folder)
            if before_register is not None:
                before_register()
            ensure_model(store, model_name)
            source, own = f"runs:/{run_id}/{BUNDLE}", {PREFIX + key: tags[key] for key in tags}
            created = store.client.create_model_version(
                model_name, source, run_id, tags=own, await_creation_for=0
            )
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    promote_first_version(store, model_name, int(created.version))
    return _row(store, created)


def warning_of(row: ModelVersion) -> str | None:
    """What the user of a new version must know."""
    answer = row.own_tags.get(ONE_CLASS)
    if answer is None:
        return None
    rest = ", so it does not become champion by being first"
    rest = "" if CHAMPION in row.aliases else rest
    return f"{row.label} answers '{answer}' to every test image{rest}; train it longer or otherwise"


def having(**tags: str) -> str:
    """What MLflow is asked for runs or versions with these tags of ours."""
    return " and ".join(f"tags.`{PREFIX}{name}` = '{text}'" for name, text in tags.items())


def find_registered(store: Store, model_name: str | None, which: str) -> ModelVersion | None:
    """The first such version, or None; completes what a killed process left of it."""
    found = _find(store, model_name, "ASC", which)
    if found is None:
        return None
    run_id = found.run_id or ""
    with store_errors(store.uri):
        if store.client.get_run(run_id).info.status != "FINISHED":
            store.client.set_terminated(run_id, "FINISHED")
    promote_first_version(store, found.name, int(found.version))
    return _row(store, found)


def find_identical(
    store: Store, model_name: str, config_digest: str, data_digest: str
) -> ModelVersion | None:
    """The newest version of the same configuration, seed, images and code, or None."""
    same = {"config_digest": config_digest, "data_digest": data_digest}
    found = _find(store, model_name, "DESC", having(**same, code_digest=code_digest()))
    return None if found is None else _row(store, found)


def close_runs(store: Store, which: str, status: End) -> None:
    """End those runs that say RUNNING."""
    wanted = f"attributes.status = 'RUNNING' and {which}"
    with store_errors(store.uri):
        places = [found.experiment_id for found in store.client.search_experiments()]
        for run in store.client.search_runs(places, wanted):
            store.client.set_terminated(run.info.run_id, status)


def close_abandoned(store: Store, run_ids: Sequence[str]) -> None:
    """End runs that nobody goes on with as FAILED, and remove what they were writing."""
    ids = ", ".join(f"'{run_id}'" for run_id in run_ids)
    close_runs(store, f"attributes.run_id in ({ids})", "FAILED")
    for run_id in run_ids:
        for folder in (store.root / "staging").glob(f"{run_id}-*"):
            shutil.rmtree(folder, ignore_errors=True)


def add_mlflow_files(folder: Path, spec: ImageSpec) -> None:
    """Write `MLmodel` and its like beside `model.onnx`, so that `mlflow.pyfunc` runs it."""
    import mlflow.onnx
    import onnx
    from mlflow.models import Model, ModelSignature
    from mlflow.types import ColSpec, Schema, TensorSpec

    float32 = np.dtype(np.float32)
    shape = (-1, spec.channels, spec.height, spec.width)
    graph = onnx.load(folder / ONNX_FILE)
    outputs: list[ColSpec | TensorSpec] = [
        TensorSpec(float32, (-1, value.type.tensor_type.shape.dim[1].dim_value), value.name)
        for value in graph.graph.output
    ]
    signature = ModelSignature(Schema([TensorSpec(float32, shape, "images")]), Schema(outputs))
    # An MLflow schema takes no tensor beside columns: what is in it stands in the metadata.
    note = "a float32 tensor as under `input`; mindtrace predict and serve take image files"
    described = Model(metadata={"input": spec.document(), "pyfunc_input": note})
    # A random id and the time would give the same weights another bundle digest.
    del described.model_uuid, described.utc_time_created
    with tempfile.TemporaryDirectory() as scratch:
        written = Path(scratch) / "model"
        mlflow.onnx.save_model(
            graph,
            written,
            mlflow_model=described,
            signature=signature,
            # Named here, or MLflow loads the model in a child process to guess them.
            pip_requirements=[f"{name}=={version_of(name)}" for name in ("onnxruntime", "numpy")],
            onnx_execution_providers=["CPUExecutionProvider"],
            save_as_external_data=False,
        )
        for path in written.iterdir():
            if path.name != ONNX_FILE:
                (folder / path.name).write_bytes(path.read_bytes())


def _one_class(contents: Contents) -> dict[str, str]:
    """A tag with the class that a version answers to all test images, if these are of several."""
    ledger = contents.predictions
    answers = np.unique(ledger.probabilities.argmax(axis=1))
    if len(answers) > 1 or len(np.unique(ledger.labels)) < 2:
        return {}
    return {ONE_CLASS: contents.model_config.class_names[answers[0]]}


def _upload(store: Store, run_id: str, folder: Path) -> None:
    upload(store, run_id, folder, BUNDLE)
    local = file_path(store.client.get_run(run_id).info.artifact_uri or "")
    if local is not None:
        for path in (local / BUNDLE).rglob("*"):
            sync(path)
        sync(local / BUNDLE)


def _find(store: Store, model_name: str | None, order: str, which: str) -> MlflowVersion | None:
    """The oldest (`ASC`) or newest (`DESC`) such version."""
    which = which if model_name is None else f"name = '{model_name}' and {which}"
    search = partial(store.client.search_model_versions, which, max_results=1)
    with store_errors(store.uri):
        found = if_there(lambda: search(order_by=[f"version_number {order}"]))
    return next(iter(found or ()), None)


def _row(store: Store, found: MlflowVersion) -> ModelVersion:
    row = store.reader().version(found.name, int(found.version))
    if row is None:
        raise NotFoundError("version", f"{found.name}/{found.version}, just registered")
    return row
