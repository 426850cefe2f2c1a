"""A version and its bundle are taken out of a store."""

from __future__ import annotations

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion as MlflowVersion
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from mindtrace.registry.names import BUNDLE, is_log
from mindtrace.registry.reader import ModelVersion
from mindtrace.registry.store import Store, if_there, store_errors


def remove(store: Store, row: ModelVersion) -> None:
    """Delete a version, then the bundle that its run keeps for it.

    In this order: a bundle without a version is waste, a version without a bundle is
    damage. The run and its metrics stay, and so does a bundle that another version has.

    Raises:
        StoreError: the store is away or refuses.
    """
    client = store.client
    with store_errors(store.uri):
        found = if_there(lambda: _taken(client, row))
        if found is None:
            return  # somebody else was quicker
        run_id = found.run_id
        if not run_id or found.source != f"runs:/{run_id}/{BUNDLE}":
            return  # its files are not where mindtrace puts them: they are somebody's own
        users = client.search_model_versions(f"run_id = '{run_id}'")
        if any(not is_log(user.name) for user in users):
            return
        place = client.get_run(run_id).info.artifact_uri
        get_artifact_repository(place, tracking_uri=store.uri).delete_artifacts(BUNDLE)


def _taken(client: MlflowClient, row: ModelVersion) -> MlflowVersion:
    found = client.get_model_version(row.name, str(row.version))
    client.delete_model_version(row.name, str(row.version))
    return found
