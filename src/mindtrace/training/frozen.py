"""`[model] freeze`: the layers that do not learn run once, the last one learns from the result."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import torch
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader

from mindtrace.bundle.bundle import weights_digest
from mindtrace.bundle.predictor import INPUT, open_session
from mindtrace.config.settings import Settings
from mindtrace.data.batches import ImageSplit
from mindtrace.data.decode import reporter
from mindtrace.models import ImageClassifier
from mindtrace.models.classifier import Batch
from mindtrace.models.weights import head_of
from mindtrace.progress import Progress
from mindtrace.system import atomic_write
from mindtrace.training.export import FEATURES, Outputs, export_onnx, has_head, with_head

# Graphs kept below ROOT.
_KEPT = 8
# Pixels that a thread takes at a time: their activations stay in the processor's cache.
_PIXELS, _PIXELS_ACCELERATED = 8 * 224 * 224, 128 * 224 * 224
# Weight decay of the first and of the last epoch, for features of mean 0 and deviation 1. Tried
# on 400 photos of two classes and on 4,300 of five: the best lie within.
STRONGEST, WEAKEST = 1.0, 1e-3
_ITERATIONS = 50


def trains_head_only(settings: Settings) -> bool:
    """Whether what the frozen layers give is the same in every epoch."""
    still = settings.data.augment == "none" and settings.train.mixup == 0
    return settings.model.freeze and still


def frozen_part(
    model: ImageClassifier, settings: Settings, progress: Progress
) -> FrozenPart | None:
    """What runs once; None if all layers learn, or more than one follows the features."""
    if not trains_head_only(settings):
        return None
    part = FrozenPart(model, settings, progress)
    plain = isinstance(model.network.get_submodule(head_of(model.network)), nn.Linear)
    return part if plain and has_head(part.graph) else None


class FrozenPart:
    """All of a network but its last layer, which `Head` trains; `graph` has the one of before."""

    def __init__(self, model: ImageClassifier, settings: Settings, progress: Progress) -> None:
        self.model = model.eval()
        self.graph = _kept_graph(model, settings.dirs.root / "graphs", progress)
        self._head = cast(nn.Linear, model.network.get_submodule(head_of(model.network)))
        self._device = settings.compute.device
        # One thread computes on an accelerator.
        self._threads = (settings.compute.threads or 1) if self._device == "cpu" else 1
        self._progress = progress

    def features(self, split: ImageSplit, check: Callable[[], None] = lambda: None) -> Tensor:
        """What goes into the last layer, float32 (images, features); `check` may raise."""
        count, pixels = len(split), math.prod(split.images.shape[2:])
        step = max(1, (_PIXELS if self._device == "cpu" else _PIXELS_ACCELERATED) // pixels)
        report = reporter(self._progress, f"computing features of {count:,} images", count)
        # Written in place: results kept one by one pin the heap between large short-lived inputs.
        found = torch.empty(count, self._head.in_features)
        with self._runner() as run, ThreadPoolExecutor(self._threads) as pool:
            # So many at a time that few wait in memory.
            for start in range(0, count, step * self._threads * 8):
                check()
                stop = min(count, start + step * self._threads * 8)
                parts = (split.images[at : min(at + step, stop)] for at in range(start, stop, step))
                for at, part in enumerate(pool.map(run, map(split.normalise, parts))):
                    first = start + at * step
                    found[first : first + len(part)] = part
                report(stop)
        return found

    def put_back(self, head: Head) -> None:
        """Give network and graph the trained layer."""
        weight, bias = head.trained()
        with torch.no_grad():
            self._head.weight.copy_(weight)
            self._head.bias.copy_(bias)
        self.graph = with_head(self.graph, weight.numpy(), bias.numpy())

    def logits(self, split: ImageSplit) -> Tensor:
        """Logits of the network as it is now: float32 (images, classes)."""
        with torch.inference_mode():
            logits: Tensor = self._head(self.features(split))
        return logits

    @contextlib.contextmanager
    def _runner(self) -> Iterator[Callable[[Tensor], Tensor]]:
        """What computes features of a few images: ONNX Runtime, or torch on an accelerator."""
        if self._device == "cpu":
            # A thread a batch and not threads within one: nothing waits, the results are the same.
            session = open_session(self.graph, 1)
            yield lambda x: torch.from_numpy(session.run([FEATURES], {INPUT: x.numpy()})[0])
            return
        outputs = Outputs(self.model.network).to(self._device)
        try:
            with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
                yield torch.inference_mode()(lambda x: outputs(x.to(self._device))[-1].cpu())
        finally:
            outputs.cpu()


class Head(ImageClassifier):
    """The last layer; each epoch trains it to the end, with less weight decay than before."""

    # So the monitored metric chooses the weight decay. Features are centred and scaled as a whole.

    def __init__(self, part: FrozenPart, settings: Settings, features: Tensor) -> None:
        config = part.model.model_config
        super().__init__(last_layer(features.shape[1], len(config.class_names)), config)
        self.automatic_optimization = False
        self.label_smoothing = settings.train.label_smoothing
        ends = math.log10(STRONGEST), math.log10(WEAKEST)
        epochs = settings.train.max_epochs
        self._decays = torch.logspace(*ends, epochs, dtype=torch.float64).tolist()
        self.image_weights: Tensor | None = None  # of each in the loss; None for all alike
        self._mean, self._deviation = scale_of(features)

    @property
    def _layer(self) -> nn.Linear:
        return cast(nn.Linear, self.network)

    def forward(self, x: Any) -> Tensor:
        """Logits of features."""
        logits: Tensor = self._layer(x)
        return logits

    def loader(self, features: Tensor, labels: Tensor) -> DataLoader[Batch]:
        """All of a split as one batch; takes the features over."""
        whole: Any = [(features.sub_(self._mean).div_(self._deviation), labels)]
        return DataLoader(whole, batch_size=None)

    def configure_optimizers(self) -> Any:
        """L-BFGS over the layer."""
        return lbfgs(self._layer)

    def training_loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Mean cross entropy over the images, by their weights, with label smoothing."""
        losses = functional.cross_entropy(
            self(images), labels, label_smoothing=self.label_smoothing, reduction="none"
        )
        weights = self.image_weights
        return losses.mean() if weights is None else losses @ weights / weights.sum()

    def training_step(self, batch: Any, index: int) -> None:
        """Minimise the loss with the weight decay of this epoch."""
        features, labels = batch
        optimizer = self.optimizers()
        assert not isinstance(optimizer, list)
        decay = self._decays[self.current_epoch]
        minimise(optimizer, self._layer, lambda: self.training_loss(features, labels), decay)
        # What it knows of the curvature is of this weight decay; no checkpoint needs it.
        optimizer.optimizer.state.clear()
        with torch.no_grad():
            self._add(self.training_loss(features, labels)[None], [len(labels)])

    def trained(self) -> tuple[Tensor, Tensor]:
        """Weight and bias for features as they are, neither centred nor scaled."""
        layer = self._layer
        weight = layer.weight.detach().double() / self._deviation
        bias = layer.bias.detach().double() - weight @ self._mean.double()
        return weight.float(), bias.float()


def last_layer(features: int, classes: int) -> nn.Linear:
    """A layer of zeros: the loss is convex, wherever it begins."""
    layer = nn.Linear(features, classes)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def scale_of(features: Tensor) -> tuple[Tensor, float]:
    """The mean of each feature, and the deviation of all."""
    mean = features.mean(0)
    return mean, float((features - mean).square().mean().sqrt()) or 1.0


def lbfgs(layer: nn.Linear) -> torch.optim.LBFGS:
    """Finds the minimum of a convex loss, which does not depend on a learning rate."""
    return torch.optim.LBFGS(
        layer.parameters(),
        max_iter=_ITERATIONS,
        tolerance_grad=1e-5,
        tolerance_change=1e-7,
        line_search_fn="strong_wolfe",
    )


def minimise(
    optimizer: LightningOptimizer | torch.optim.LBFGS,
    layer: nn.Linear,
    loss: Callable[[], Tensor],
    decay: float,
) -> None:
    """Train a layer until `loss` with weight decay is least."""

    def penalised() -> Tensor:
        optimizer.zero_grad()
        total = loss() + decay / 2 * layer.weight.square().sum()
        total.backward()
        return total

    optimizer.step(penalised)


def _kept_graph(model: ImageClassifier, folder: Path, progress: Progress) -> bytes:
    """The network's graph, from an earlier training with the same frozen part if there was one."""
    key = _key(model)
    for path in folder.glob(f"{key}-*.onnx"):
        with contextlib.suppress(OSError):
            graph = path.read_bytes()
            if path.name == _name(key, graph):
                return graph
    progress.stage("exporting the network")
    graph = export_onnx(model.network, model.model_config.spec)
    with contextlib.suppress(OSError):  # then the next training exports it again
        folder.mkdir(parents=True, exist_ok=True)
        atomic_write(folder / _name(key, graph), graph)
        kept = sorted(folder.glob("*.onnx"), key=lambda path: path.stat().st_mtime_ns)
        for path in kept[:-_KEPT]:
            path.unlink(missing_ok=True)
    return graph


def _name(key: str, graph: bytes) -> str:
    """A file's name says what it holds, and with which SHA-256."""
    return f"{key}-{hashlib.sha256(graph).hexdigest()}.onnx"


def _key(model: ImageClassifier) -> str:
    """What the graph of a frozen part depends on."""
    head, card = head_of(model.network), model.model_config
    weights = {name: x for name, x in model.weights().items() if not name.startswith(f"{head}.")}
    versions = {name: version(name) for name in ("torch", "timm", "onnx")}
    # Neither names nor number of classes matter: the last layer is replaced.
    arguments = {key: x for key, x in card.arguments.items() if x != len(card.class_names)}
    parts = [card.architecture, arguments, card.spec.document(), weights_digest(weights), versions]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
