"""From a trained network to the contents of its bundle, ONNX graph included."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from mindtrace.bundle.bundle import Contents
from mindtrace.bundle.predictions import GOLDEN_COUNT, GoldenCase, TestPredictions, digest_rows
from mindtrace.data.batches import to_pixels
from mindtrace.data.datamodule import ImageDataModule
from mindtrace.models import ImageClassifier
from mindtrace.preprocess import ImageSpec, encode_png
from mindtrace.training.report import Evaluation


def contents(
    model: ImageClassifier, data: ImageDataModule, test: Evaluation, config: str
) -> Contents:
    """Everything a bundle holds, from a model on the CPU and its answers to the test images."""
    images = data.split("test").images
    digests, trained = (digest_rows(data.split(stage).digests()) for stage in ("test", "train"))
    return Contents(
        model_config=model.model_config,
        weights=model.weights(),
        onnx=export_onnx(model.network, model.model_config.spec),
        golden=[
            GoldenCase(encode_png(pixels), test.probabilities[index])
            for index, pixels in enumerate(to_pixels(images[:GOLDEN_COUNT]))
        ],
        predictions=TestPredictions(digests, test.labels, test.probabilities, trained),
        config=config,
        data={"source": data.source, "split_rule": data.split_rule, **asdict(data.digests())},
    )


def export_onnx(network: nn.Module, spec: ImageSpec) -> bytes:
    """The network as an ONNX graph of any batch: `images` to `logits` and `probabilities`."""
    # Two: the exporter takes a batch of one for a constant.
    example = torch.zeros(2, spec.channels, spec.height, spec.width)
    with warnings.catch_warnings():
        # The exporter warns of its own deprecated calls.
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            _WithProbabilities(network).eval(),
            (example,),
            dynamo=True,
            verbose=False,
            input_names=["images"],
            output_names=["logits", "probabilities"],
            dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
        )
    assert program is not None
    model = program.model_proto
    _forget_origin(model)
    for name, value in spec.document().items():
        model.metadata_props.add(key=f"input.{name}", value=json.dumps(value))
    graph: bytes = model.SerializeToString(deterministic=True)
    return graph


def _forget_origin(message: Any) -> None:
    """Clear what differs between two machines: the exporter keeps source paths and code."""
    for name in ("doc_string", "metadata_props", "producer_version"):
        if name in message.DESCRIPTOR.fields_by_name:
            message.ClearField(name)
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in value if isinstance(value, Sequence) else (value,):
                _forget_origin(part)


class _WithProbabilities(nn.Module):
    """A network that gives logits and probabilities."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.network(images)
        return logits, logits.softmax(1)
