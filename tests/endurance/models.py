"""Real networks without their training: an MLP over 28x28 digits, a ResNet over 224x224."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import torch

from mindtrace.bundle import manifest
from mindtrace.bundle.bundle import Contents, ModelConfig, write_contents
from mindtrace.bundle.predictions import GoldenCase, TestPredictions
from mindtrace.models.networks import build_network
from mindtrace.preprocess import ImageSpec, encode_png, image_digest, normalise
from mindtrace.training.export import export_onnx

CLASSES = tuple("0123456789")
GREY = ImageSpec("L", 28, 28, (0.1307,), (0.3081,))
COLOUR = ImageSpec("RGB", 224, 224, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


@functools.lru_cache(maxsize=2)
def pixels(spec: ImageSpec, count: int = 32) -> np.ndarray:
    """Real digits in the size of `spec`: uint8, (count, h, w) or (count, h, w, 3)."""
    from PIL import Image
    from sklearn.datasets import load_digits

    images = []
    for digit in load_digits().images[:count]:
        image = Image.fromarray((digit * 15.9).astype(np.uint8)).convert(spec.mode)
        size = (spec.width, spec.height)
        images.append(np.asarray(image.resize(size, Image.Resampling.BILINEAR)))
    return np.stack(images)


def pngs(spec: ImageSpec, count: int = 32) -> list[bytes]:
    """The same as files."""
    return [encode_png(image) for image in pixels(spec, count)]


def contents(architecture: str, seed: int) -> Contents:
    """What a training of `mlp` or `resnet18` might have left behind; its weights are drawn."""
    spec = GREY if architecture == "mlp" else COLOUR
    arguments = (
        {"dim": [784, 100, 10], "dropout": 0.2}
        if architecture == "mlp"
        else {"in_chans": 3, "num_classes": 10}
    )
    torch.manual_seed(seed)
    network = build_network(architecture, arguments).eval()
    images = pixels(spec, 4 if architecture != "mlp" else 32)
    with torch.inference_mode():
        # Twenty times as sure as fresh weights are: so that versions cannot be confused.
        for parameter in list(network.parameters())[-2:]:
            parameter.mul_(20)
        logits = network(torch.from_numpy(normalise(images, spec)))
        answers = logits.softmax(1).numpy()
    digests = np.frombuffer(b"".join(map(image_digest, images)), np.uint8).reshape(-1, 32)
    return Contents(
        model_config=ModelConfig(architecture, arguments, spec, CLASSES),
        weights={name: value.numpy() for name, value in network.state_dict().items()},
        onnx=export_onnx(network, spec),
        golden=[
            GoldenCase(encode_png(image), answer)
            for image, answer in zip(images[:16], answers[:16], strict=True)
        ],
        predictions=TestPredictions(digests, np.zeros(len(images), np.int64), answers),
        config="[data]\nsource = digits\n",
        data={"test_digest": "0" * 64},
    )


def write_bundle(folder: Path, architecture: str, seed: int = 0) -> Path:
    """A sealed bundle that can be served."""
    folder.mkdir(parents=True)
    write_contents(folder, contents(architecture, seed))
    manifest.seal(folder)
    return folder
