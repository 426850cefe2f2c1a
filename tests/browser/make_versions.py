"""Adds to a ROOT with `digits/1`: 2 like it, 3 worse, 4 of another test set, and 45 of `many`.

A program of its own: MLflow's import is not for the process of the tests.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from mindtrace.bundle import bundle
from mindtrace.bundle.predictions import TestPredictions
from mindtrace.registry.champions import ensure_model
from mindtrace.registry.names import METRIC, PREFIX
from mindtrace.registry.publish import publish
from mindtrace.registry.store import Store, start_run

MANY = 45


def main(root: Path) -> None:
    store = Store(f"sqlite:///{root / 'mlflow.db'}", root)
    version = store.client.get_model_version("digits", "1")
    first = store.client.get_run(version.run_id)
    folder = Path(first.info.artifact_uri.removeprefix("file://")) / "bundle"
    found = bundle.read_bundle(folder)
    answers = TestPredictions.parse((folder / bundle.PREDICTIONS_FILE).read_bytes())
    contents = bundle.Contents(
        model_config=found.model_config,
        weights=load_file(folder / bundle.WEIGHTS_FILE),
        onnx=found.onnx,
        golden=found.golden,
        predictions=answers,
        config=(folder / bundle.CONFIG_FILE).read_text(encoding="utf-8"),
        data=json.loads((folder / bundle.DATA_FILE).read_text(encoding="utf-8")),
    )
    shifted = np.roll(answers.probabilities, 1, axis=1)
    shifted[1::2] = answers.probabilities[1::2]
    for predictions, accuracy in (
        (answers, first.data.metrics["test_acc"]),
        (replace(answers, probabilities=shifted), 0.5),
        (replace(answers, digests=answers.digests ^ 1), 0.9),
    ):
        digest = {"test_digest": predictions.test_digest}
        kept = {key.removeprefix(PREFIX): value for key, value in version.tags.items()}
        run = start_run(store, "digits", None, {})
        run.log_params(first.data.params)
        publish(
            store,
            model_name="digits",
            run_id=run.run_id,
            contents=replace(contents, predictions=predictions, data={**contents.data, **digest}),
            metadata={**kept, **digest, f"{METRIC}test_acc": str(accuracy)},
        )
        run.end("FINISHED")
    # Versions without a bundle, in a moment each: what a long table needs.
    ensure_model(store, "many")
    run = start_run(store, "many", None, {})
    source = f"runs:/{run.run_id}/bundle"
    for _ in range(MANY):
        store.client.create_model_version("many", source, run.run_id, await_creation_for=0)
    run.end("FINISHED")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
