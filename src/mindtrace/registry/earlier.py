"""What is there already: of a job, or of the same training.

In: a job's id, or what makes a training the same. Out: the version, so that nothing is
trained or registered twice. Asked of the store itself, on every store.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlflow.exceptions import MlflowException

from mindtrace.registry.names import METRIC, PREFIX
from mindtrace.registry.provenance import code_digest, who
from mindtrace.registry.publish import Published, crown_first
from mindtrace.registry.store import End, Store, store_errors

_DIGESTS = ("config_digest", "data_digest", "test_digest")


@dataclass(frozen=True)
class Earlier:
    """A version that was registered before.

    Attributes:
        published: as its registration told of it.
        run_id: of its run.
        metrics: of its best epoch and its test.
        best_epoch: from 1.
        digests: `config_digest`, `data_digest` and `test_digest`.
    """

    published: Published
    run_id: str
    metrics: Mapping[str, float]
    best_epoch: int
    digests: Mapping[str, str]


def of_job(store: Store, model_name: str | None, job_id: str) -> Earlier | None:
    """The version that a job registered, under this name or any; None if it did not.

    Whoever registered it may have died right after: what was left to do is done.

    Raises:
        StoreError: the store is away.
    """
    found = _first(store, model_name, {"job_id": job_id}, newest=False)
    if found is None:
        return None
    champion = crown_first(store, found.name, int(found.version), found.run_id, who())
    with store_errors(store.uri):
        run = store.client.get_run(found.run_id)
        if run.info.status != "FINISHED":
            store.client.set_terminated(found.run_id, "FINISHED")
    return _earlier(found, champion)


def like(store: Store, model_name: str, config_digest: str, data_digest: str) -> Earlier | None:
    """The newest version of the same configuration, seed, images and code, or None.

    Raises:
        StoreError: the store is away.
    """
    wanted = {
        "config_digest": config_digest,
        "data_digest": data_digest,
        "code_digest": code_digest(),
    }
    found = _first(store, model_name, wanted, newest=True)
    return None if found is None else _earlier(found, champion=False)


def close_runs(store: Store, job_id: str, status: End) -> None:
    """End the runs of a job that say RUNNING.

    Raises:
        StoreError: the store is away.
    """
    wanted = f"attributes.status = 'RUNNING' and tags.`{PREFIX}job_id` = '{job_id}'"
    with store_errors(store.uri):
        places = [found.experiment_id for found in store.client.search_experiments()]
        for run in store.client.search_runs(places, wanted):
            store.client.set_terminated(run.info.run_id, status)


def _first(store: Store, model_name: str | None, tags: Mapping[str, str], *, newest: bool) -> Any:
    order = "DESC" if newest else "ASC"
    wanted = [] if model_name is None else [f"name = '{model_name}'"]
    wanted += [f"tags.`{PREFIX}{name}` = '{text}'" for name, text in tags.items()]
    with store_errors(store.uri):
        try:
            page = store.client.search_model_versions(
                " and ".join(wanted),
                max_results=1,
                order_by=[f"version_number {order}"],
            )
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise
    return next(iter(page), None)


def _earlier(found: Any, champion: bool) -> Earlier:
    tags = {
        key.removeprefix(PREFIX): value
        for key, value in found.tags.items()
        if key.startswith(PREFIX)
    }
    return Earlier(
        Published(
            found.name,
            int(found.version),
            champion,
            tags.get("bundle_digest", ""),
            tags.get("weights_digest", ""),
        ),
        run_id=found.run_id,
        metrics={
            key.removeprefix(METRIC): float(value)
            for key, value in tags.items()
            if key.startswith(METRIC)
        },
        best_epoch=int(tags.get("best_epoch", 0)),
        digests={name: tags.get(name, "") for name in _DIGESTS},
    )
