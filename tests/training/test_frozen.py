"""With `freeze` the last layer alone learns, from what ONNX Runtime makes of the others."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from tests.conftest import RunCli
from tests.training.conftest import Fit, PowerCutError, digest

from mindtrace.bundle.predictor import open_session
from mindtrace.config.settings import load_settings
from mindtrace.models.weights import head_of
from mindtrace.progress import Progress
from mindtrace.training import export, frozen
from mindtrace.training.callbacks import StopOnRequest
from mindtrace.training.export import contents
from mindtrace.training.fit import TrainResult

CNN = ("model.name=cnn", "model.freeze=true", "train.max_epochs=4")


@pytest.fixture
def exports(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One line for each time that a network is exported."""
    seen: list[str] = []

    def counted(*arguments: Any) -> bytes:
        seen.append("exported")
        return export.export_onnx(*arguments)

    monkeypatch.setattr(frozen, "export_onnx", counted)
    return seen


def input_of_head(result: TrainResult, images: torch.Tensor) -> torch.Tensor:
    """By torch."""
    seen: list[torch.Tensor] = []
    network = result.model.network.eval()
    layer = network.get_submodule(head_of(network))
    with layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])):
        result.model(images)
    return seen[0].detach()


@pytest.mark.parametrize("name", ["cnn", "mlp"])
def test_features_and_answers_of_the_graph_are_those_of_torch(
    fitted: Fit, tmp_path: Path, name: str
) -> None:
    result = fitted(*CNN, f"model.name={name}", f"dir_paths.root={tmp_path}")
    untrained = fitted(f"model.name={name}", "train.max_epochs=1", "train.lr=1e-12")
    head = head_of(result.model.network)
    for key, tensor in untrained.model.weights().items():
        same = np.allclose(result.model.weights()[key], tensor, atol=1e-6)
        assert same != key.startswith(f"{head}.") or "running" in key or "num" in key, key
    assert result.graph is not None
    test = result.data.split("test")
    images = result.data.normalise(test.images)
    logits, probabilities, features = open_session(result.graph, 1).run(
        None, {"images": images.numpy()}
    )
    with torch.inference_mode():
        expected = result.model(images)
    np.testing.assert_allclose(logits, expected.numpy(), atol=1e-4)
    np.testing.assert_allclose(probabilities, result.test.probabilities, atol=1e-5)
    np.testing.assert_allclose(features, input_of_head(result, images).numpy(), atol=1e-5)
    assert [report.epoch for report in result.course] == [1, 2, 3, 4]
    assert max(report.metrics["val_acc"] for report in result.course) == result.metrics["val_acc"]
    assert result.metrics["test_acc"] > (0.85 if name == "cnn" else 0.8)
    packed = contents(result.model, result.data, result.test, "", result.graph)
    for case, ours in zip(packed.golden, probabilities, strict=False):
        np.testing.assert_allclose(case.probabilities, ours, atol=1e-5)


DAMAGES: list[Callable[[Path], object]] = [
    lambda file: file.write_bytes(file.read_bytes()[:-1]),
    lambda file: file.write_bytes(b""),
    lambda file: file.write_bytes(file.read_bytes() + b"\0"),
    lambda file: file.write_bytes(b"\1" + file.read_bytes()[1:]),
    lambda file: file.unlink(),
]


def test_a_kept_graph_changes_nothing_and_a_damaged_one_is_made_again(
    fitted: Fit, exports: list[str], tmp_path: Path
) -> None:
    sets = (*CNN, f"dir_paths.root={tmp_path}")
    results = [fitted(*sets), fitted(*sets)]
    assert exports == ["exported"]
    (file,) = (tmp_path / "graphs").glob("*.onnx")
    for number, damage in enumerate(DAMAGES):
        damage(file)
        results.append(fitted(*sets))
        assert len(exports) == number + 2, f"damage {number} was not seen"
    results.append(fitted(*sets))
    assert len(exports) == 1 + len(DAMAGES)
    assert len({(digest(result), result.graph) for result in results}) == 1
    assert len({str(result.metrics) for result in results}) == 1


def test_a_graph_is_kept_for_one_network_and_input(
    fitted: Fit, exports: list[str], tmp_path: Path
) -> None:
    sets = (*CNN, "train.max_epochs=1", f"dir_paths.root={tmp_path}")
    fitted(*sets)
    for change, exported in (
        ("train.lr=0.1", 0),
        ("data.split_seed=3", 0),
        ("train.seed=1", 1),  # other random layers
        ("data.image_size=10", 1),
    ):
        del exports[:]
        fitted(*sets, change)
        assert len(exports) == exported, change


def test_of_many_graphs_the_newest_are_kept_and_without_a_folder_all_goes_on(
    fitted: Fit, tmp_path: Path
) -> None:
    for seed in range(frozen._KEPT + 1):
        fitted(*CNN, "train.max_epochs=1", f"dir_paths.root={tmp_path}", f"train.seed={seed}")
    assert len(list((tmp_path / "graphs").glob("*"))) == frozen._KEPT
    (tmp_path / "file").write_text("")
    fitted(*CNN, "train.max_epochs=1", f"dir_paths.root={tmp_path / 'file'}")


def test_torch_computes_the_same_features_where_there_is_an_accelerator(
    fitted: Fit, tmp_path: Path
) -> None:
    result = fitted(*CNN, f"dir_paths.root={tmp_path}")
    sets = [f"dir_paths.root={tmp_path}", "compute.device=cpu", "compute.threads=1"]
    settings = load_settings(sets=sets, environ={})
    part = frozen.FrozenPart(result.model, settings, Progress())
    split = result.data.split("test")
    expected = part.features(split)
    part._device = "cpu:0"
    np.testing.assert_allclose(part.features(split), expected, atol=1e-5)
    assert torch.equal(part.features(split), part.features(split))


def test_a_request_to_stop_is_heard_while_features_are_computed(
    fitted: Fit, tmp_path: Path
) -> None:
    stop = StopOnRequest(lambda: PowerCutError())
    with pytest.raises(PowerCutError):
        fitted(*CNN, f"dir_paths.root={tmp_path}", callbacks=[stop])


def test_sampling_and_weighing_are_the_same_for_all_images_at_once(
    fitted: Fit, tmp_path: Path
) -> None:
    found = [
        digest(fitted(*CNN, f"dir_paths.root={tmp_path}", f"train.balance={balance}"))
        for balance in ("none", "loss", "sample")
    ]
    assert found[0] != found[1] == found[2]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_an_image_of_weight_three_counts_as_three(
    fitted: Fit, tmp_path: Path, smoothing: float
) -> None:
    result = fitted(*CNN, f"dir_paths.root={tmp_path}")
    sets = [f"train.label_smoothing={smoothing}", f"dir_paths.root={tmp_path}"]
    settings = load_settings(sets=[*sets, "compute.device=cpu"], environ={})
    part = frozen.FrozenPart(result.model, settings, Progress())
    split = result.data.split("val")
    features, rows = part.features(split), torch.tensor([3] + [1] * (len(split) - 1))
    head = frozen.Head(part, settings, features)
    torch.nn.init.normal_(head._layer.weight)
    thrice = head.training_loss(
        features.repeat_interleave(rows, 0), split.labels.repeat_interleave(rows)
    )
    head.image_weights = rows.float()
    torch.testing.assert_close(head.training_loss(features, split.labels), thrice)


@pytest.mark.proof
def test_a_folder_of_photos_trains_pretrained_and_is_made_again_without_the_graph(
    run_cli: RunCli, root: Path
) -> None:
    draw = np.random.default_rng(0)
    for name, level in (("dark", 60), ("light", 190)):
        (root / "photos" / name).mkdir(parents=True)
        for index in range(20):
            pixels = draw.integers(level - 60, level + 60, (240, 300, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(root / "photos" / name / f"{index}.png")
    done = run_cli("train", str(root / "photos"), "--json")
    assert done.exit_code == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["metrics"]["val_acc"] == document["metrics"]["test_acc"] == 1
    (graph,) = (root / "graphs").glob("*.onnx")
    kept = graph.read_bytes()
    for _ in range(2):
        again = run_cli("reproduce", document["model_name"], "--json")
        assert json.loads(again.stdout)["verdict"] == "EXACT", again.stderr
        assert graph.read_bytes() == kept
        graph.unlink(missing_ok=True)


def test_what_cannot_be_traced_is_exported_another_way(
    fitted: Fit, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole = fitted(*CNN, f"dir_paths.root={tmp_path / 'a'}")
    monkeypatch.setattr("mindtrace.training.export._traced", lambda *_: 1 / 0)
    other = fitted(*CNN, f"dir_paths.root={tmp_path / 'b'}")
    assert whole.graph and other.graph and whole.graph != other.graph
    for graph in (whole.graph, other.graph):
        assert [one.name for one in onnx.load_from_string(graph).graph.output] == [
            "logits",
            "probabilities",
            "features",
        ]
    np.testing.assert_allclose(other.test.probabilities, whole.test.probabilities, atol=1e-3)
