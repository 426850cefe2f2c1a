"""What all rivals share: the network with our weights, the decoding, the answer.

`BENCH_FOLDER` holds `weights.npz` (w1, b1, w2, b2, mean, std) and `model.onnx`; nothing of
mindtrace is imported, so a rival may live in an environment of its own.
"""

from __future__ import annotations

import base64
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

FOLDER = Path(os.environ["BENCH_FOLDER"])


def arrays() -> dict[str, Any]:
    """The trained numbers."""
    with np.load(FOLDER / "weights.npz") as file:
        return dict(file)


def pixels(text: str | bytes) -> Any:
    """The image in a base64 text: uint8, (28, 28)."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))).convert("L"))


class TorchNetwork:
    """784-100-10 in PyTorch, with one thread."""

    def __init__(self) -> None:
        import torch

        torch.set_num_threads(1)
        known = arrays()
        self.torch = torch
        self.mean, self.std = float(known["mean"]), float(known["std"])
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(784, 100), torch.nn.ReLU(), torch.nn.Linear(100, 10)
        ).eval()
        names = ("0.weight", "0.bias", "2.weight", "2.bias")
        values = (torch.from_numpy(known[name]) for name in ("w1", "b1", "w2", "b2"))
        self.layers.load_state_dict(dict(zip(names, values, strict=True)))

    def tensor(self, text: str | bytes) -> Any:
        """The network's input from a base64 text: float32, (784,)."""
        levels = self.torch.from_numpy(pixels(text).astype(np.float32)).reshape(784)
        return (levels / 255 - self.mean) / self.std

    def probabilities(self, batch: Any) -> Any:
        """Of inputs, (n, 784), a tensor of (n, 10)."""
        with self.torch.inference_mode():
            return self.layers(batch).softmax(dim=1)

    def answer(self, text: str | bytes) -> dict[str, Any]:
        """The answer to one base64 text."""
        return as_answer(self.probabilities(self.tensor(text)[None])[0])


def as_answer(row: Any) -> dict[str, Any]:
    """What a rival says about one image."""
    values = row.tolist()
    return {"label": values.index(max(values)), "probabilities": values}
