"""One MLflow run, from its start to a true end.

In: parameters, metrics by epoch, a last word. Out: a run that is FINISHED, FAILED or
KILLED as the training was. Metrics are sent in one batch an epoch by a thread of its
own, so that the training waits for no database.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

from mlflow.entities import Metric, Param

from mindtrace.registry.store import Store, store_errors

End = Literal["FINISHED", "FAILED", "KILLED"]

# MLflow refuses longer values.
_PARAM_LENGTH = 6000
_PARAM_BATCH = 100


def start_run(
    store: Store, experiment_name: str, run_name: str | None, tags: Mapping[str, str]
) -> Run:
    """A new run.

    Raises:
        StoreError: the store is away.
    """
    experiment_id = store.experiment_id(experiment_name)
    with store_errors(store.uri):
        created = store.client.create_run(experiment_id, tags=dict(tags), run_name=run_name)
    return Run(store, created.info.run_id)


def resume_run(store: Store, run_id: str) -> Run:
    """A run that was interrupted, running again.

    Raises:
        StoreError: the store is away, or has no such run.
    """
    with store_errors(store.uri):
        store.client.update_run(run_id, status="RUNNING")
    return Run(store, run_id)


class Run:
    """An MLflow run of ours.

    Attributes:
        run_id: MLflow's.
        ended: the last word, or None while it runs.
    """

    def __init__(self, store: Store, run_id: str) -> None:
        """Take up a run that the store has; `start_run` makes one."""
        self.store = store
        self.run_id = run_id
        self.ended: End | None = None
        self._sender = ThreadPoolExecutor(1, thread_name_prefix="mlflow-metrics")
        self._sent: list[Future[None]] = []

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log parameters; values become text."""
        rows = [Param(key, str(value)[:_PARAM_LENGTH]) for key, value in params.items()]
        with store_errors(self.store.uri):
            for start in range(0, len(rows), _PARAM_BATCH):
                self.store.client.log_batch(self.run_id, params=rows[start : start + _PARAM_BATCH])

    def log_text(self, text: str, file: str) -> None:
        """Keep a text as an artifact of the run."""
        with store_errors(self.store.uri):
            self.store.client.log_text(self.run_id, text, file)

    def log_folder(self, folder: Path, name: str) -> None:
        """Keep the files of a folder as artifacts of the run, under `name`."""
        with store_errors(self.store.uri):
            self.store.client.log_artifacts(self.run_id, str(folder), name)

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Send metrics in the background; `end` waits for them."""
        now = int(time.time() * 1000)
        rows = [Metric(key, value, now, step) for key, value in metrics.items()]
        self._sent.append(self._sender.submit(self._send, rows))

    def flush(self) -> None:
        """Wait until all metrics are stored.

        Raises:
            StoreError: some could not be.
        """
        sent, self._sent = self._sent, []
        for future in sent:
            future.result()

    def end(self, status: End) -> None:
        """Say the last word; a second one is not heard."""
        if self.ended is not None:
            return
        self.ended = status
        try:
            self.flush()
        finally:
            self._sender.shutdown()
            with store_errors(self.store.uri):
                self.store.client.set_terminated(self.run_id, status)

    def _send(self, rows: list[Metric]) -> None:
        with store_errors(self.store.uri):
            self.store.client.log_batch(self.run_id, metrics=rows)
