"""MLflow: `python -m peers.mlflow_model FOLDER` saves what `mlflow models serve` then serves."""

from __future__ import annotations

import sys
from typing import Any

import mlflow

from peers.network import TorchNetwork


class Digits(mlflow.pyfunc.PythonModel):
    """A column of images in, answers out."""

    def load_context(self, context: Any) -> None:
        self.network = TorchNetwork()

    def predict(self, context: Any, model_input: Any, params: Any = None) -> list[dict[str, Any]]:
        return [self.network.answer(text) for text in model_input["image"]]


if __name__ == "__main__":
    mlflow.pyfunc.save_model(sys.argv[1], python_model=Digits(), pip_requirements=[])
