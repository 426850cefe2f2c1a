"""The files that make a bundle an MLflow model too.

In: a folder that is a bundle but for its manifest. Out: the same with `MLmodel` and
what MLflow wants beside it, so that `mlflow.pyfunc.load_model` runs the same graph.
"""

from __future__ import annotations

import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np

from mindtrace.bundle.bundle import ONNX_FILE
from mindtrace.preprocess import ImageSpec


def add_mlflow_files(folder: Path, spec: ImageSpec, class_count: int) -> None:
    """Write MLflow's description of `model.onnx` into `folder`."""
    import mlflow.onnx
    import onnx
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema, TensorSpec

    shape = (-1, spec.channels, spec.height, spec.width)
    answers: list[ColSpec | TensorSpec] = [
        TensorSpec(np.dtype(np.float32), (-1, class_count), name)
        for name in ("logits", "probabilities")
    ]
    signature = ModelSignature(
        Schema([TensorSpec(np.dtype(np.float32), shape, "images")]), Schema(answers)
    )
    with tempfile.TemporaryDirectory() as scratch:
        written = Path(scratch) / "model"
        mlflow.onnx.save_model(
            onnx.load(folder / ONNX_FILE),
            written,
            signature=signature,
            # Named here, or MLflow loads the model in a child process to guess them.
            pip_requirements=[f"{name}=={version(name)}" for name in ("onnxruntime", "numpy")],
            onnx_execution_providers=["CPUExecutionProvider"],
            save_as_external_data=False,
        )
        for path in written.iterdir():
            if path.name != ONNX_FILE:
                (folder / path.name).write_bytes(path.read_bytes())
