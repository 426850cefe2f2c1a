"""What all sources share: settings to a data module, its splits, loaders and digests."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytorch_lightning as pl
import torch
from pydantic import ValidationError
from torch import Tensor

from mindtrace.bundle.predictions import pairs_digest
from mindtrace.config.schema import reasons
from mindtrace.config.sections import PHOTO_SOURCES, DataSettings
from mindtrace.config.settings import Settings
from mindtrace.data import batches
from mindtrace.data.batches import DataDigests, EvalBatches, ImageSplit, TrainBatches, TrainOrder
from mindtrace.data.listing import STAGES, Stage
from mindtrace.data.split import (
    BY_COUNT,
    BY_IMAGE,
    KEYS,
    Division,
    divide_by_count,
    divide_by_image,
    made_by,
)
from mindtrace.errors import UsageError
from mindtrace.preprocess import Accepted, ImageSpec, InputRequirements, Mode
from mindtrace.progress import Progress

EVAL_BATCH_SIZE = 512


@dataclass(frozen=True)
class SourceImages:
    """What a source reads: three splits, what the network will see, notes for the user."""

    splits: Mapping[Stage, ImageSplit]
    spec: ImageSpec
    class_names: tuple[str, ...]
    notes: tuple[str, ...] = ()
    given: Collection[Stage] = STAGES  # the splits that were not drawn


class ImageDataModule(pl.LightningDataModule, ABC):
    """Images of one source in memory, for Lightning's Trainer or a training loop of your own.

    `train`, `val` and `test` are data sets of single images for any DataLoader;
    `train_dataloader()` and the other two gather whole batches and are faster. The arguments are
    attributes too.

    Args:
        batch_size: training images a step.
        num_workers: threads that decode files; None or 0 for all available cores.
        num_val: the fraction of all images that validates, where the source has no validation
            split; for the MNIST kinds and digits a number of images, or the fraction of those
            that are no test images.
        pin_memory: page-locked batches where there is a CUDA device.
        test_fraction: of all images; where the source has no test split.
        split_seed: decides, with the image itself, what is drawn; nothing else does.
        image_size: pixels a side to scale to; None for what the images or the network have.
        requirements: what the network requires of its input.

    Raises:
        ValueError: a number outside the range that its key of `[data]` has.

    Attributes:
        source: the name that `[data] source` has for it.
        augment: `light` shifts and turns the images of `train_dataloader()`; `none` does not.
        chunk: 1 for loaders that yield (x, y); more, and `train_dataloader()` yields lists of up
            to that many (x, y).
        order: its `seed`, and `set_epoch(0)` for the first one, choose the order of the training
            images.
        accepted: which image files are read: the largest in pixels, and the names of formats.
        progress: is notified of slow work.
    """

    source: str = ""
    split_rule: str = BY_IMAGE
    owner = "source"  # who made the splits that are given
    num_train: int | None = None

    def __init__(
        self,
        batch_size: int = 64,
        num_workers: int | None = None,
        num_val: int | float = 0.1,
        pin_memory: bool = False,
        *,
        test_fraction: float = 0.2,
        split_seed: int = 0,
        image_size: int | None = None,
        requirements: InputRequirements | None = None,
    ) -> None:
        super().__init__()
        values = {"batch_size": batch_size, "split_seed": split_seed, "image_size": image_size}
        try:
            DataSettings.model_validate(values)
        except ValidationError as error:
            name, reason = next(iter(reasons(DataSettings, error).items()))
            raise ValueError(f"{name} = {values[name]!r}: {reason}") from None
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.num_val = num_val
        self.pin_memory = pin_memory
        self.test_fraction = test_fraction
        self.split_seed = split_seed
        self.image_size = image_size
        self.requirements = requirements or InputRequirements()
        self.augment = "none"
        self.chunk = 1
        self.accepted = Accepted()
        self.balanced = False
        self.progress = Progress()
        self.order = TrainOrder()
        self._images: SourceImages | None = None
        self._digests: DataDigests | None = None

    @abstractmethod
    def read(self) -> SourceImages:
        """Read and split the source's images; called once."""

    def shares(self, given: Collection[Stage]) -> dict[Stage, float] | None:
        """The fraction to draw of each stage that is not given; None draws by counts."""
        if self.split_rule == BY_COUNT:
            return None
        shares = {stage: getattr(self, key) for stage, key in KEYS.items() if stage not in given}
        if not all(0 < share < 1 for share in shares.values()) or sum(shares.values()) >= 1:
            texts = ", ".join(f"{KEYS[stage]} = {share}" for stage, share in shares.items())
            raise UsageError(
                f"[data] {texts}: must be fractions with a sum below 1 here, no counts, "
                "as each image is drawn by itself",
                hint="--set data.test_fraction=0.2 --set data.num_val=0.1",
            )
        return shares

    def divide(
        self, labels: Tensor, counts: Mapping[Stage, int], keys: Sequence[bytes]
    ) -> Division:
        """The indices of each stage by the module's rule; `counts` are of the stages given."""
        common: dict[str, Any] = {"split_seed": self.split_seed, "num_train": self.num_train}
        shares = self.shares(counts)
        if shares is not None:
            return divide_by_image(labels, counts, keys, shares=shares, **common)
        common |= {"test_fraction": self.test_fraction, "num_val": self.num_val}
        return divide_by_count(labels, counts, **common)

    def resolve_spec(self, images: ImageSpec) -> ImageSpec:
        """The network's input: `[data] image_size`, else the network's own, else the images'."""
        requirements, side = self.requirements, self.image_size
        least = requirements.min_side or 1
        if side is not None and side < least:
            message = f"[data] image_size = {side}: this network needs {least} or more"
            raise UsageError(message, hint=f"--set data.image_size={least}")
        height = side or requirements.height or images.height
        width = side or requirements.width or images.width
        scale = max(1.0, least / min(height, width))
        height, width = round(height * scale), round(width * scale)
        short_side = None
        if requirements.crop_pct is not None:
            short_side = int(min(height, width) / requirements.crop_pct)
        elif requirements.short_side is not None:
            # In proportion where another size was asked for.
            own_side = min(requirements.height or height, requirements.width or width)
            short_side = round(requirements.short_side * min(height, width) / own_side)
        mode = requirements.mode or images.mode
        return ImageSpec(
            mode=mode,
            height=height,
            width=width,
            mean=_per_channel(requirements.mean or images.mean, mode),
            std=_per_channel(requirements.std or images.std, mode),
            resize=requirements.resize or "stretch",
            short_side=short_side,
            interpolation=requirements.interpolation or "bilinear",
        )

    def setup(self, stage: str | None = None) -> None:
        """Read and split, whatever the stage; the second call does nothing."""
        if self._images is None:
            self._images = self.read()

    def _ready(self) -> SourceImages:
        if self._images is None:
            self.prepare_data()
            self.setup()
        assert self._images is not None
        return self._images

    @property
    def spec(self) -> ImageSpec:
        """What the network reads."""
        return self._ready().spec

    @property
    def class_names(self) -> tuple[str, ...]:
        """By label."""
        return self._ready().class_names

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know about these images, one line each."""
        return self._ready().notes

    @property
    def made_by(self) -> dict[Stage, str]:
        """Who made each split: `user`, `source` or `mindtrace`."""
        return made_by(self._ready().given, self.owner)

    def __str__(self) -> str:
        """The images and splits; downloads and reads them if that was not done yet."""
        spec, splits = self.spec, self._ready().splits
        total = sum(map(len, splits.values()))
        size = f"{spec.width} x {spec.height} {'grey' if spec.mode == 'L' else 'colour'}"
        counts = ", ".join(f"{stage} {len(splits[stage]):,}" for stage in STAGES)
        classes = f"{len(self.class_names)} classes"
        return f"{type(self).__name__}: {total:,} images, {size}, {classes}: {counts}"

    @property
    def train(self) -> ImageSplit:
        """The training images; downloads and reads them if that was not done yet."""
        return self._ready().splits["train"]

    @property
    def val(self) -> ImageSplit:
        """The validation images; downloads and reads them if that was not done yet."""
        return self._ready().splits["val"]

    @property
    def test(self) -> ImageSplit:
        """The test images; downloads and reads them if that was not done yet."""
        return self._ready().splits["test"]

    def split(self, stage: str) -> ImageSplit:
        """The images of `train`, `val` or `test`; ValueError for another stage."""
        if stage not in STAGES:
            raise ValueError(f"stage = {stage!r}: one of {', '.join(STAGES)}")
        return self._ready().splits[stage]

    def sample(self, stage: str = "train", idx: int = 0) -> tuple[Tensor, int]:
        """One image as the network reads it, and its label.

        Args:
            stage: `train`, `val` or `test`.
            idx: position in the split.

        Returns:
            float32, (channels, height, width), normalised; and the label.

        Raises:
            ValueError: `stage` is not train, val or test.
            IndexError: there is no such image.
        """
        return self.split(stage)[idx]

    def normalise(self, images: Tensor) -> Tensor:
        """Subtract the spec's mean, divide by its deviation.

        Args:
            images: uint8 or float32, 0 to 255, (n, channels, height, width).

        Returns:
            float32 of the same shape.
        """
        return self.train.normalise(images)

    def train_dataloader(self) -> TrainBatches:
        """Shuffled training batches, nothing dropped, augmented as `augment` says.

        A last batch of one image is joined to the batch before.

        Raises:
            ValueError: `augment` is not known.
        """
        known = ["none", *batches.AUGMENTATIONS]
        if self.augment not in known:
            raise ValueError(f"augment = {self.augment!r}: {', '.join(known)}")
        shared = (self.train, self.batch_size, self._pins())
        return TrainBatches(*shared, self.order, self.augment, self.chunk, self.balanced)

    def val_dataloader(self) -> EvalBatches:
        """Validation batches of 512 (fewer where images are large), in order."""
        return EvalBatches(self.val, batches.batch_limit(self.val, EVAL_BATCH_SIZE), self._pins())

    def test_dataloader(self) -> EvalBatches:
        """Test batches of 512 (fewer where images are large), in order."""
        return EvalBatches(self.test, batches.batch_limit(self.test, EVAL_BATCH_SIZE), self._pins())

    def predict_dataloader(self) -> EvalBatches:
        """The test batches, for `Trainer.predict`."""
        return self.test_dataloader()

    def digests(self) -> DataDigests:
        """Digests over all images and over the test images; computed once."""
        if self._digests is None:
            pairs = {}
            for stage in STAGES:
                split = self.split(stage)
                pairs[stage] = list(zip(split.digests(), split.labels.tolist(), strict=True))
            whole = pairs_digest(pair for of_stage in pairs.values() for pair in of_stage)
            counts: dict[str, int] = {stage: len(of_stage) for stage, of_stage in pairs.items()}
            self._digests = DataDigests(whole, pairs_digest(pairs["test"]), counts)
        return self._digests

    def _pins(self) -> bool:
        return self.pin_memory and torch.cuda.is_available()


def _per_channel(values: Sequence[float], mode: Mode) -> tuple[float, ...]:
    """One value a channel: a grey value serves all three, three become their mean."""
    if len(values) == (1 if mode == "L" else 3):
        return tuple(values)
    return tuple(values) * 3 if mode == "RGB" else (round(sum(values) / len(values), 6),)


def build_data(
    settings: Settings, requirements: InputRequirements | None = None, split_rule: str | None = None
) -> ImageDataModule:
    """The data module of `[data] source`; nothing is read yet. None is the source's own rule."""
    from mindtrace.data.datasets import MNIST, Digits, FashionMNIST, TorchvisionImages
    from mindtrace.data.folder import ImageFolder
    from mindtrace.data.table import ImageTable

    data = settings.data
    requirements = requirements or InputRequirements()
    if data.resize != "auto" and data.resize != requirements.resize:
        requirements = replace(requirements, resize=data.resize, short_side=None, crop_pct=None)
    names = ("batch_size", "num_workers", "test_fraction", "split_seed", "image_size")
    common: dict[str, Any] = {name: getattr(data, name) for name in names}
    common |= {"pin_memory": settings.compute.pin_memory, "requirements": requirements}
    if data.num_val is not None:
        common["num_val"] = data.num_val
    module: ImageDataModule
    if data.source == "digits":
        module = Digits(**common)
    elif data.source in PHOTO_SOURCES:
        if data.dir is None:
            raise UsageError(f"[data] source = {data.source} needs [data] dir")
        kind = ImageTable if data.source == "table" else ImageFolder
        common |= {"group": data.group, "cache_dir": settings.dirs.data / "cache"}
        module = kind(data.dir, **common)
    else:
        common |= {"data_dir": settings.dirs.data, "mirror": data.mirror}
        kinds = {"mnist": MNIST, "fashion_mnist": FashionMNIST}
        if mnist := kinds.get(data.source):
            module = mnist(num_train=None, **common)
        else:
            module = TorchvisionImages(data.source, **common)
    module.augment = data.augment
    module.accepted = Accepted(data.max_pixels, data.formats)
    module.split_rule = split_rule or module.split_rule
    return module
