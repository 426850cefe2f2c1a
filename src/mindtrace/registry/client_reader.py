"""Reads any store through MLflow's client; `child_reader` runs it in a process aside."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mlflow.artifacts import download_artifacts
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from mindtrace.registry.names import is_log
from mindtrace.registry.rows import VersionRow
from mindtrace.registry.sqlite_reader import iso
from mindtrace.registry.store import Store, store_errors

_MISSING = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND")
_PAGE = 1000


class ClientReader:
    """A `Reader` of whatever MLflow can reach."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._client = store.client

    def names(self) -> list[str]:
        """See `Reader`."""
        found: list[str] = []
        token = None
        with store_errors(self._store.uri):
            while True:
                page = self._client.search_registered_models(max_results=_PAGE, page_token=token)
                found += [model.name for model in page if not is_log(model.name)]
                token = page.token
                if not token:
                    return sorted(found)

    def aliased(self, name: str, alias: str) -> int | None:
        """See `Reader`."""
        with store_errors(self._store.uri):
            try:
                return int(self._client.get_model_version_by_alias(name, alias).version)
            except MlflowException as error:
                if error.error_code in _MISSING:
                    return None
                raise

    def version(self, name: str, number: int) -> VersionRow | None:
        """See `Reader`."""
        with store_errors(self._store.uri):
            try:
                return self._row(self._client.get_model_version(name, str(number)))
            except MlflowException as error:
                if error.error_code in _MISSING:
                    return None
                raise

    def versions(self, name: str | None, limit: int) -> Sequence[VersionRow]:
        """See `Reader`."""
        where = None if name is None else f"name = '{name}'"
        order = ["creation_timestamp DESC"] if name is None else ["version_number DESC"]
        rows: list[VersionRow] = []
        token = None
        with store_errors(self._store.uri):
            while len(rows) < limit:
                page = self._client.search_model_versions(
                    where, max_results=min(_PAGE, limit), order_by=order, page_token=token
                )
                rows += [self._row(found) for found in page if not is_log(found.name)]
                token = page.token
                if not token:
                    break
        return rows[:limit]

    def params(self, run_id: str) -> dict[str, str]:
        """See `Reader`."""
        with store_errors(self._store.uri):
            return dict(self._client.get_run(run_id).data.params)

    def fetch(self, location: str, folder: Path) -> None:
        """See `Reader`."""
        folder.mkdir(parents=True)
        with store_errors(self._store.uri):
            # MLflow puts the artifact's content into the folder, under its own name.
            written = Path(
                download_artifacts(
                    artifact_uri=location, dst_path=str(folder), tracking_uri=self._store.uri
                )
            )
        if written.resolve() != folder.resolve():
            for path in list(written.iterdir()):
                path.replace(folder / path.name)
            written.rmdir()

    def _row(self, found: ModelVersion) -> VersionRow:
        # A search returns no aliases, so each is asked for; a page is small.
        version = self._client.get_model_version(found.name, found.version)
        metrics = self._client.get_run(version.run_id).data.metrics if version.run_id else {}
        return VersionRow(
            name=version.name,
            version=int(version.version),
            aliases=tuple(sorted(version.aliases)),
            run_id=version.run_id or None,
            created_at=iso(version.creation_timestamp),
            tags=dict(version.tags),
            metrics=dict(metrics),
            location=version.source or None,
        )
