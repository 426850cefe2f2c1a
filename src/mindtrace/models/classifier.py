"""The Lightning module that trains any network from images to logits."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import pytorch_lightning as pl
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix

from mindtrace.bundle.bundle import ModelConfig
from mindtrace.bundle.predictions import class_metrics
from mindtrace.preprocess import decoded, normalise

Batch = tuple[Tensor, Tensor]


def one_cycle(peak: float, total_steps: int) -> Callable[[int], float]:
    """The learning rate of each step: up to `peak` and down again, in half cosines."""
    # Smith and Topin, "Super-Convergence" (2018), with the constants of torch's OneCycleLR.
    # A step beyond the last keeps the last rate.
    rise = max(1.0, 0.3 * total_steps - 1)
    fall = max(1.0, total_steps - 1 - rise)
    start, end = peak / 25, peak / 25 / 1e4

    def rate(step: int) -> float:
        if step <= rise:
            begin, target, fraction = start, peak, step / rise
        else:
            begin, target, fraction = peak, end, min(1.0, (step - rise) / fall)
        return target + (begin - target) / 2 * (1 + math.cos(math.pi * fraction))

    return rate


class ImageClassifier(pl.LightningModule):
    """A network with its input, its classes and the way it is trained.

    It takes batches `(images, labels)`, or lists of them where `fit` gathers many at once,
    and logs `train_loss`, `val_loss`, `val_acc`, `val_balanced_accuracy` and `val_f1_macro`
    once an epoch.

    Attributes:
        network: images (batch, channels, height, width) float32 -> logits (batch, classes).
        model_config: architecture, input and classes, as in the bundle's `model.json`.
        lr: learning rate of AdamW; with `one_cycle` the peak.
        schedule: `constant` or `one_cycle`, over all steps of the trainer.
        frozen: modules that stay in evaluation mode while the others train.
        steps_per_epoch: optimizer steps, where batches come in lists; None asks the trainer.
        weight_decay: of AdamW.
        label_smoothing: probability spread over all classes in the training loss, in [0, 1).
        mixup: parameter of the Beta distribution that blends pairs of images; 0 is off.
        class_weights: weight of each class in the training loss, float32 (classes,), or None.
    """

    def __init__(
        self,
        network: nn.Module,
        model_config: ModelConfig,
        lr: float = 1e-3,
        schedule: str = "constant",
    ) -> None:
        super().__init__()
        if schedule not in ("constant", "one_cycle"):
            raise ValueError(f"schedule = {schedule!r}: constant or one_cycle")
        self.network = network
        self.model_config = model_config
        self.lr = lr
        self.schedule = schedule
        self.frozen: Sequence[nn.Module] = ()
        self.steps_per_epoch: int | None = None
        self.weight_decay = 0.01
        self.label_smoothing = self.mixup = 0.0
        self.class_weights: Tensor | None = None
        self._rate: Callable[[int], float] | None = None
        # By default the mean leaves a NaN out.
        self.val_loss = MeanMetric(nan_strategy=math.nan)
        self.val_acc = MulticlassAccuracy(len(model_config.class_names), average="micro")
        self.val_confusion = MulticlassConfusionMatrix(len(model_config.class_names))
        self._loss_sum = torch.zeros(())
        self._seen = 0

    def forward(self, x: Tensor | Image.Image | np.ndarray[Any, Any]) -> Tensor:
        """Logits of images.

        Args:
            x: float32, (batch, channels, height, width), normalised, or the same flattened:
                (batch, values); three dimensions are a batch of one. Or a PIL image or uint8
                array, (height, width[, 3]), which goes through this model's preprocessing first.

        Returns:
            float32, (batch, classes).

        Raises:
            TypeError: an array that is not uint8.
        """
        spec = self.model_config.spec
        if not isinstance(x, Tensor):
            x = torch.from_numpy(normalise(decoded(x, spec)[None], spec)).to(self.device)
        elif x.dim() == 2 and x.shape[1] == spec.channels * spec.height * spec.width:
            x = x.view(-1, spec.channels, spec.height, spec.width)
        logits: Tensor = self.network(x if x.dim() > 3 else x.unsqueeze(0))
        return logits

    @torch.inference_mode()
    def predict(self, x: Tensor | Image.Image | np.ndarray[Any, Any]) -> Tensor:
        """The most probable class of each image: int64, (batch,); `x` as in `forward`."""
        was_training = self.training
        self.eval()
        try:
            labels: Tensor = self(x).argmax(1)
            return labels
        finally:
            self.train(was_training)

    def configure_optimizers(self) -> Any:
        """AdamW (fused) over what is not frozen, with the schedule."""
        trainable = [parameter for parameter in self.parameters() if parameter.requires_grad]
        decay = self.weight_decay
        optimizer = torch.optim.AdamW(trainable, lr=self.lr, weight_decay=decay, fused=True)
        if self.steps_per_epoch is None:
            total = float(self.trainer.estimated_stepping_batches)
        else:
            total = self.steps_per_epoch * (self.trainer.max_epochs or math.inf)
        if self.schedule == "constant" or not math.isfinite(total):
            return optimizer
        rate = self._rate = one_cycle(self.lr, int(total))
        if not self.automatic_optimization:
            return optimizer
        scheduler = LambdaLR(optimizer, lambda step: rate(step) / self.lr)
        by_step = {"scheduler": scheduler, "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": by_step}

    def on_train_epoch_start(self) -> None:
        """Reset the sum of losses; frozen modules go back to evaluation mode."""
        for module in self.frozen:
            module.eval()
        self._loss_sum = torch.zeros((), device=self.device)
        self._seen = 0

    def training_step(self, batch: Batch | Sequence[Batch], index: int) -> Tensor | None:
        """One optimizer step, or one for each batch of a gathered list."""
        # With lists optimization is manual: Lightning's hooks and counters for a step cost
        # as much as the step of a small network, so they are paid once a list. Steps go
        # through Lightning's wrapper of the optimizer all the same: it counts `global_step`.
        if self.automatic_optimization:
            images, labels = cast(Batch, batch)
            loss = self.training_loss(images, labels)
            self._add(loss.detach()[None], [len(labels)])
            return loss
        optimizer = self.optimizers()
        assert not isinstance(optimizer, list)
        batches = cast(Sequence[Batch], batch if isinstance(batch, list) else [batch])
        losses = []
        step = self.global_step
        for offset, (images, labels) in enumerate(batches):
            if self._rate is not None:
                for group in optimizer.param_groups:
                    group["lr"] = self._rate(step + offset)
            optimizer.zero_grad()
            loss = self.training_loss(images, labels)
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        self._add(torch.stack(losses), [len(labels) for _, labels in batches])
        return None

    def training_loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Mean cross entropy of a batch, with class weights, label smoothing and mixup."""
        weights = self.class_weights
        loss = functools.partial(
            functional.cross_entropy,
            weight=None if weights is None else weights.to(images.device),
            label_smoothing=self.label_smoothing,
        )
        if self.mixup == 0:
            return loss(self.network(images), labels)
        # Zhang et al., "mixup: Beyond Empirical Risk Minimization" (2018).
        share = float(torch.distributions.Beta(self.mixup, self.mixup).sample())
        other = torch.randperm(len(labels)).to(images.device)
        logits = self.network(torch.lerp(images[other], images, share))
        return share * loss(logits, labels) + (1 - share) * loss(logits, labels[other])

    def on_train_batch_end(self, outputs: object, batch: object, batch_idx: int) -> None:
        """Log the epoch's mean loss, once, with its last batch."""
        # Not at the epoch's end: callbacks get that hook before the module does.
        if self.trainer.is_last_batch:
            mean = self._loss_sum / max(1, self._seen)
            self.log("train_loss", mean, on_step=False, on_epoch=True, batch_size=1)

    def validation_step(self, batch: Batch, index: int) -> None:
        """Add a batch to the validation metrics."""
        images, labels = batch
        logits = self(images)
        self.val_loss.update(functional.cross_entropy(logits, labels), len(labels))
        self.val_acc.update(logits, labels)
        self.val_confusion.update(logits, labels)
        self.log("val_loss", self.val_loss, batch_size=len(labels))
        self.log("val_acc", self.val_acc, batch_size=len(labels))

    def on_validation_epoch_end(self) -> None:
        """Log the metrics in which every class counts the same."""
        counts = self.val_confusion.compute().cpu().numpy()
        self.val_confusion.reset()
        if counts.any():
            for name, value in class_metrics(counts).items():
                self.log(f"val_{name}", value)

    def test_step(self, batch: Batch, index: int) -> None:
        """Log loss and accuracy of a test batch, for `Trainer.test`."""
        images, labels = batch
        logits = self(images)
        size = len(labels)
        self.log("test_loss", functional.cross_entropy(logits, labels), batch_size=size)
        self.log("test_acc", (logits.argmax(1) == labels).float().mean(), batch_size=size)

    def predict_step(self, batch: Batch, index: int) -> Tensor:
        """The classes of a batch, as `predict` gives them, for `Trainer.predict`."""
        return self.predict(batch[0])

    def weights(self) -> Mapping[str, np.ndarray[Any, Any]]:
        """The network's tensors by name, on the CPU; views, not copies."""
        return {
            name: tensor.detach().cpu().contiguous().numpy()
            for name, tensor in self.network.state_dict().items()
        }

    def _add(self, losses: Tensor, sizes: Sequence[int]) -> None:
        """Add mean losses of batches, float32 (batches,), weighted by their images."""
        self._loss_sum += losses.float().dot(torch.tensor(sizes, device=losses.device).float())
        self._seen += sum(sizes)
