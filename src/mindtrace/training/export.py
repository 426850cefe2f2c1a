"""From a trained network to the contents of its bundle, ONNX graph included."""

import io
import json
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mindtrace.bundle.bundle import Contents
from mindtrace.bundle.predictions import GOLDEN_COUNT, GoldenCase, TestPredictions, digest_rows
from mindtrace.bundle.predictor import INPUT, open_session
from mindtrace.data.batches import to_pixels
from mindtrace.data.datamodule import ImageDataModule
from mindtrace.errors import UsageError
from mindtrace.models import ImageClassifier
from mindtrace.models.weights import head_of
from mindtrace.preprocess import ImageSpec, encode_png
from mindtrace.training.report import Evaluation, evaluate

FEATURES = "features"
OUTPUTS = ("logits", "probabilities", FEATURES)
_NAMES: dict[str, Any] = {"input_names": [INPUT], "output_names": list(OUTPUTS)}


def contents(
    model: ImageClassifier,
    data: ImageDataModule,
    test: Evaluation,
    config: str,
    graph: bytes | None = None,
) -> Contents:
    """Everything a bundle holds, from a model on the CPU and its answers to the test images."""
    # Where the graph is known, `test` comes from it, and not from torch.
    images = data.split("test").images
    golden = test if graph is None else evaluate(model, data, "test", GOLDEN_COUNT)
    digests, trained = (digest_rows(data.split(stage).digests()) for stage in ("test", "train"))
    return Contents(
        model_config=model.model_config,
        weights=model.weights(),
        onnx=graph or export_onnx(model.network, model.model_config.spec),
        golden=[
            GoldenCase(encode_png(pixels), golden.probabilities[index])
            for index, pixels in enumerate(to_pixels(images[:GOLDEN_COUNT]))
        ],
        predictions=TestPredictions(digests, test.labels, test.probabilities, trained),
        config=config,
        data={"source": data.source, "split_rule": data.split_rule, **asdict(data.digests())},
    )


def export_onnx(network: nn.Module, spec: ImageSpec) -> bytes:
    """The network as an ONNX graph of any batch: `images` to what `OUTPUTS` names."""
    # Two: an exporter takes a batch of one for a constant.
    example = torch.zeros(2, spec.channels, spec.height, spec.width)
    outputs = Outputs(network).eval()
    with warnings.catch_warnings():
        # The exporters warn of their own deprecated calls, and of what they take for constants.
        warnings.simplefilter("ignore")
        try:
            model = _traced(outputs, example)
        except Exception:  # noqa: BLE001 - of whatever kind: the other exporter has its own ways
            model = _exported(outputs, example)
    _forget_origin(model)
    for name, value in spec.document().items():
        model.metadata_props.add(key=f"input.{name}", value=json.dumps(value))
    graph: bytes = model.SerializeToString(deterministic=True)
    return graph


def with_head(graph: bytes, weight: NDArray[np.float32], bias: NDArray[np.float32]) -> bytes:
    """A graph of `export_onnx` with another last layer, of any number of classes."""
    import onnx

    model = onnx.load_from_string(graph)
    for name, array in zip(_last_node(model).input[1:], (weight, bias), strict=True):
        found = next(one for one in model.graph.initializer if one.name == name)
        found.CopyFrom(onnx.numpy_helper.from_array(array, name))
    for value in model.graph.output:
        if value.name != FEATURES:
            value.type.tensor_type.shape.dim[1].dim_value = len(bias)
    changed: bytes = model.SerializeToString(deterministic=True)
    return changed


def has_head(graph: bytes) -> bool:
    """Whether the logits are a linear layer of the features, so that `with_head` can replace it."""
    import onnx

    node = _last_node(onnx.load_from_string(graph))
    return (node.op_type, node.input[0], len(node.input)) == ("Gemm", FEATURES, 3)


def _last_node(model: Any) -> Any:
    """The node that gives the logits."""
    return next(node for node in model.graph.node if OUTPUTS[0] in node.output)


def _traced(outputs: nn.Module, example: Tensor) -> Any:
    """By the exporter of TorchScript: a tenth of the time, with normalisations folded away."""
    import onnx

    file: Any = io.BytesIO()
    axes = {name: {0: "batch"} for name in (INPUT, *OUTPUTS)}
    torch.onnx.export(outputs, (example,), file, dynamo=False, dynamic_axes=axes, **_NAMES)
    # Tracing may take a batch size that Python computed with for a constant.
    session = open_session(file.getvalue(), 1)
    answer = session.run(OUTPUTS[:1], {INPUT: np.zeros((3, *example.shape[1:]), np.float32)})
    if len(answer[0]) != 3:
        raise ValueError("the batch size became a constant")
    return onnx.load_from_string(file.getvalue())


def _exported(outputs: nn.Module, example: Tensor) -> Any:
    """By the exporter of torch.export, for what cannot be traced."""
    shapes = {INPUT: {0: torch.export.Dim("batch")}}
    program = torch.onnx.export(
        outputs, (example,), dynamo=True, verbose=False, dynamic_shapes=shapes, **_NAMES
    )
    assert program is not None
    return program.model_proto


def _forget_origin(message: Any) -> None:
    """Clear what differs between two machines: the exporter keeps source paths and code."""
    for name in ("doc_string", "metadata_props", "producer_version"):
        if name in message.DESCRIPTOR.fields_by_name:
            message.ClearField(name)
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in value if isinstance(value, Sequence) else (value,):
                _forget_origin(part)


class Outputs(nn.Module):
    """A network that gives logits, probabilities, and what goes into its last layer."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        try:
            self.head = network.get_submodule(head_of(network))
        except UsageError:  # two layers give the logits together
            self.head = [one for one in network.modules() if isinstance(one, nn.Linear)][-1]

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        seen: list[Tensor] = []
        hook = self.head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        logits = self.network(images)
        hook.remove()
        features = seen[-1]
        return logits, logits.softmax(1), features if features.dim() == 2 else features.flatten(1)
