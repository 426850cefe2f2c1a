"""The one way by which a version comes into being.

In: the contents of a bundle and the run that made them. Out: a registered version
whose artifact is, byte for byte, what was sealed and checked. Two phases: everything
is written, sealed, and made to answer its golden images in a folder aside; only then
is it stored and registered. A failure before that leaves nothing to be seen.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mindtrace.bundle import manifest
from mindtrace.bundle.bundle import Contents, weights_digest, write_contents
from mindtrace.bundle.predictor import Predictor
from mindtrace.config.urls import file_path
from mindtrace.errors import ConflictError
from mindtrace.registry import promotion
from mindtrace.registry.flavor import add_mlflow_files
from mindtrace.registry.names import BUNDLE, PREFIX
from mindtrace.registry.store import Store, store_errors


@dataclass(frozen=True)
class Published:
    """A registered version.

    Attributes:
        model_name: under which it was registered.
        version: its number.
        champion: whether it became champion, as the first of its name.
        bundle_digest: of its manifest.
        weights_digest: of its tensors.
    """

    model_name: str
    version: int
    champion: bool
    bundle_digest: str
    weights_digest: str


def publish(
    store: Store,
    *,
    model_name: str,
    run_id: str,
    contents: Contents,
    metadata: Mapping[str, str],
    by: str,
    last_look: Callable[[], None] | None = None,
) -> Published:
    """Register a version.

    Args:
        store: where.
        model_name: the registered model, made if it is new.
        run_id: the MLflow run that trained it.
        contents: of the bundle.
        metadata: tags of the version, without our prefix.
        by: who, for the history.
        last_look: called right before the version is made; what it raises prevents that.

    Raises:
        BundleError: the bundle does not give the answers of its training.
        StoreError: the store is away, or ROOT cannot be written; nothing was registered.
    """
    digest = weights_digest(contents.weights)
    staging = store.root / "staging"
    with store_errors(store.uri):
        staging.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f"{run_id}-", dir=staging))
        try:
            write_contents(folder, contents)
            add_mlflow_files(
                folder, contents.model_config.spec, len(contents.model_config.class_names)
            )
            bundle_digest = manifest.seal(folder)
            Predictor.open(folder, bundle_digest)
            digests = {"bundle_digest": bundle_digest, "weights_digest": digest}
            _upload(store, run_id, folder)
            if last_look is not None:
                last_look()
            version = _create(store, model_name, run_id, {**metadata, **digests})
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    champion = crown_first(store, model_name, version, run_id, by)
    return Published(model_name, version, champion, bundle_digest, digest)


def _upload(store: Store, run_id: str, folder: Path) -> None:
    store.client.log_artifacts(run_id, str(folder), BUNDLE)
    local = file_path(store.client.get_run(run_id).info.artifact_uri or "")
    if local is not None:
        for path in (local / BUNDLE).rglob("*"):
            manifest.sync(path)
        manifest.sync(local / BUNDLE)


def _create(store: Store, model_name: str, run_id: str, metadata: Mapping[str, str]) -> int:
    promotion.ensure_model(store, model_name)
    tags = {PREFIX + key: value for key, value in metadata.items()}
    created = store.client.create_model_version(
        model_name, f"runs:/{run_id}/{BUNDLE}", run_id, tags=tags, await_creation_for=0
    )
    return int(created.version)


def crown_first(store: Store, model_name: str, version: int, run_id: str, by: str) -> bool:
    """The first version of a name becomes champion: revision 1 of its history.

    Returns:
        Whether it became champion; False where there is a history already.
    """
    if promotion.history(store, model_name):
        return False
    try:
        promotion.append(
            store,
            model_name,
            expected=0,
            action="promote",
            to=version,
            by=by,
            run_id=run_id,
            reason="first version",
        )
    except ConflictError:
        # Another first version was quicker; it is the champion then.
        return False
    return True
