"""One way to train one epoch of MNIST after another, timed; a child of `benchmarks/train.py`.

    python benchmarks/training_rivals.py bare|gathered|idiomatic|tracked|ours --threads N --epochs N

Each is the network 784-100-10 with dropout, batches of 64, fused AdamW. The last line
printed is JSON: seconds of each epoch and the accuracy on the 10,000 test images.
"""

from __future__ import annotations

import os

os.environ["CUDA_VISIBLE_DEVICES"] = ""  # before torch: nobody may look for a driver

import argparse
import gzip
import json
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

BATCH = 64
LR = 1e-3


def network() -> nn.Sequential:
    """784-100-10 with ReLU and dropout between."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, 100), nn.ReLU(), nn.Dropout(0.2), nn.Linear(100, 10)
    )


def tensors(data: Path) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Normalised floats and labels: 55,000 to train, 10,000 to test."""
    from mindtrace.data import MNIST

    module = MNIST(data_dir=str(data))
    module.setup()
    train, test = module.split("train"), module.split("test")
    return (
        module.normalise(train.images),
        train.labels,
        module.normalise(test.images),
        test.labels,
    )


def bare(data: Path, epochs: int, *, gathered: bool) -> dict[str, Any]:
    """A plain loop on tensors in memory; with `gathered` the batches are cut beforehand."""
    images, labels, test_images, test_labels = tensors(data)
    torch.manual_seed(0)
    net = network()
    optimizer = torch.optim.AdamW(net.parameters(), lr=LR, fused=True)
    seconds = []
    for _ in range(epochs):
        batches: Any = torch.randperm(len(images)).split(BATCH)
        if gathered:
            batches = [(images[at], labels[at]) for at in batches]
        began = time.perf_counter()
        for batch in batches:
            x, y = batch if gathered else (images[batch], labels[batch])
            optimizer.zero_grad()
            functional.cross_entropy(net(x), y).backward()
            optimizer.step()
        seconds.append(time.perf_counter() - began)
    net.eval()
    with torch.inference_mode():
        accuracy = float((net(test_images).argmax(1) == test_labels).float().mean())
    return {"seconds": seconds, "test_acc": accuracy}


def unpacked(data: Path, folder: Path) -> Path:
    """A copy of the four files as torchvision reads them, which is not gzipped."""
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        plain = data / "MNIST" / "raw" / f"{name}-ubyte"
        packed = plain.with_name(f"{plain.name}.gz")
        content = plain.read_bytes() if plain.exists() else gzip.decompress(packed.read_bytes())
        (raw / plain.name).write_bytes(content)
    return folder


def idiomatic(data: Path, epochs: int, workers: int, *, tracked: bool) -> dict[str, Any]:
    """As tutorials have it: torchvision, transforms, DataLoader, a Trainer as it comes.

    So with its progress bar, its checkpoints, and torch's own choice of threads;
    `self.log` shows loss and accuracy on the bar. Its logger is the one it comes with or,
    if it shall be tracked as ours is, Lightning's for MLflow.
    """
    import pytorch_lightning as pl
    from pytorch_lightning.loggers import MLFlowLogger
    from torch.utils.data import DataLoader, random_split
    from torchvision import datasets, transforms

    steps = [transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))]
    copy = tempfile.TemporaryDirectory()
    data = unpacked(data, Path(copy.name))
    whole = datasets.MNIST(str(data), train=True, transform=transforms.Compose(steps))
    train, val = random_split(whole, [55_000, 5_000])
    options: Any = {"num_workers": workers, "persistent_workers": workers > 0}

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        def training_step(self, batch: Any, index: int) -> Any:
            loss = functional.cross_entropy(self.net(batch[0]), batch[1])
            self.log("train_loss", loss, prog_bar=True)
            return loss

        def validation_step(self, batch: Any, index: int) -> None:
            logits = self.net(batch[0])
            self.log("val_acc", (logits.argmax(1) == batch[1]).float().mean(), prog_bar=True)

        def configure_optimizers(self) -> Any:
            return torch.optim.AdamW(self.parameters(), lr=LR, fused=True)

    class Clock(pl.Callback):
        def __init__(self) -> None:
            self.seconds: list[float] = []

        def on_train_epoch_start(self, *_: Any) -> None:
            self.began = time.perf_counter()

        def on_train_epoch_end(self, *_: Any) -> None:
            self.seconds.append(time.perf_counter() - self.began)

    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            max_epochs=epochs,
            callbacks=[clock],
            accelerator="cpu",
            default_root_dir=folder,
            logger=MLFlowLogger(tracking_uri=f"sqlite:///{folder}/mlflow.db") if tracked else True,
        )
        trainer.fit(
            Module(),
            DataLoader(train, BATCH, shuffle=True, **options),
            DataLoader(val, 512, **options),
        )
    return {"seconds": clock.seconds, "test_acc": None}


def ours(data: Path, epochs: int, threads: int) -> dict[str, Any]:
    """`mindtrace train`'s own service: Lightning, tracking, checkpoints, validation."""
    from mindtrace.config.settings import load_settings
    from mindtrace.progress import EpochReport, Progress
    from mindtrace.service.train import train

    seconds: list[float] = []

    class Watch(Progress):
        def epoch(self, report: EpochReport) -> None:
            seconds.append(report.seconds)

    with tempfile.TemporaryDirectory() as root:
        settings = load_settings(
            environ={},
            sets=[
                f"DIR_PATHS.ROOT={root}",
                f"DIR_PATHS.DATA={data}",
                f"train.max_epochs={epochs}",
                f"train.lr={LR}",
                f"compute.threads={threads}",
                "compute.device=cpu",
            ],
        )
        outcome = train(settings, progress=Watch())
    return {
        "seconds": seconds,
        "test_acc": outcome.metrics["test_acc"],
        "fit_s": outcome.fit_s,
        "steps": outcome.steps,
    }


def main() -> None:
    """Run one rival and print what it took."""
    parser = argparse.ArgumentParser()
    parser.add_argument("rival", choices=["bare", "gathered", "idiomatic", "tracked", "ours"])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--workers", type=int, default=0)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    if args.rival not in ("idiomatic", "tracked"):
        torch.set_num_threads(args.threads)
    if args.rival == "ours":
        found = ours(args.data, args.epochs, args.threads)
    elif args.rival in ("idiomatic", "tracked"):
        found = idiomatic(args.data, args.epochs, args.workers, tracked=args.rival == "tracked")
    else:
        found = bare(args.data, args.epochs, gathered=args.rival == "gathered")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
