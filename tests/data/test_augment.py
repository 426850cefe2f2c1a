"""`[data] augment`: what it does to images, and which images it does it to."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from mindtrace.data import Digits
from mindtrace.data.batches import AUGMENTATIONS, light


def draw(turn: float = 0.0, across: float = 0.0, down: float = 0.0) -> torch.Tensor:
    return torch.tensor([[turn, across, down]])


def noise(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def test_shifts() -> None:
    """None is the image itself, the largest a fourteenth; what comes in is black."""
    images = noise(1, 3, 20, 30)
    moved = light(images, draw())
    assert moved.dtype == torch.float32
    assert torch.allclose(moved, images.float(), atol=1e-2)
    images = noise(1, 1, 28, 14) | 1
    across = light(images, draw(across=1.0))
    assert torch.allclose(across[..., :-1], images[..., 1:].float(), atol=1e-2)
    down = light(images, draw(down=-1.0))
    assert torch.allclose(down[:, :, 2:], images[:, :, :-2].float(), atol=1e-2)
    assert float(down[:, :, :2].abs().max()) < 1e-2


@pytest.mark.parametrize("shape", [(41, 41), (31, 61)])
def test_largest_turn_is_ten_degrees_about_the_centre(shape: tuple[int, int]) -> None:
    pixels = np.zeros(shape, np.uint8)
    pixels[10:-10, 12:-14] = 200
    expected = Image.fromarray(pixels).rotate(10, Image.Resampling.BILINEAR)
    turned = light(torch.from_numpy(pixels)[None, None], draw(turn=1.0))[0, 0].numpy()
    assert np.abs(turned - np.asarray(expected)).max() < 8
    assert abs(turned.sum() / pixels.sum() - 1) < 1e-3


def test_channels_move_together() -> None:
    grey = noise(4, 1, 16, 16)
    draws = torch.rand(4, 3) * 2 - 1
    colour = light(grey.expand(-1, 3, -1, -1), draws)
    for channel in range(3):
        assert torch.equal(colour[:, channel], light(grey, draws)[:, 0])


@pytest.mark.parametrize("name", ["photo", "strong"])
@pytest.mark.parametrize("shape", [(3, 32, 32), (3, 17, 40), (1, 28, 28), (3, 1, 1)])
def test_photo_changes_are_drawn_for_each_image(name: str, shape: tuple[int, ...]) -> None:
    """Two equal images of a batch come out different, and the same draws give the same."""
    one = noise(1, *shape)
    images = torch.cat([one, one, one])
    augment, numbers = AUGMENTATIONS[name]
    draws = torch.rand(3, numbers, generator=torch.Generator().manual_seed(5)) * 2 - 1
    draws[2] = draws[0]
    for extreme in (-1.0, 1 - 2**-24):
        assert augment(images, torch.full_like(draws, extreme)).shape == images.shape
    changed = augment(images, draws)
    assert changed.shape == images.shape and changed.dtype == torch.uint8
    assert torch.equal(changed[0], changed[2])
    assert not torch.equal(changed[0], changed[1])
    assert torch.equal(images, torch.cat([one, one, one])), "the images in memory stay"


def digits(augment: str) -> Digits:
    data = Digits()
    data.augment = augment
    return data


def epoch(data: Digits, number: int) -> torch.Tensor:
    data.order.set_epoch(number)
    return torch.cat([x for x, _ in data.train_dataloader()])


def test_only_training_batches_are_changed() -> None:
    """Not labels and order, not validation and test, not the images in memory."""
    plain, changed = digits("none"), digits("light")
    before = changed.train.images.clone()
    for (x, y), (u, v) in zip(plain.train_dataloader(), changed.train_dataloader(), strict=True):
        assert torch.equal(y, v) and x.shape == u.shape
        assert 0.1 < float((x - u).abs().mean()) < 0.9
    for stage in ("val", "test"):
        loaders = [getattr(data, f"{stage}_dataloader")() for data in (plain, changed)]
        for (x, _), (u, _) in zip(*loaders, strict=True):
            assert torch.equal(x, u)
    assert torch.equal(changed.train.images, before)
    assert plain.digests() == changed.digests()
    assert torch.equal(plain.sample()[0], changed.sample()[0])


def test_draws_depend_on_seed_and_epoch_alone() -> None:
    data, again = digits("light"), digits("light")
    first, third = epoch(data, 0), epoch(data, 2)
    torch.manual_seed(99)
    assert torch.equal(epoch(again, 2), third)
    assert torch.equal(epoch(again, 0), first)
    again.order.seed = 1
    assert not torch.equal(epoch(again, 0), first)


def test_an_image_is_changed_in_another_way_each_epoch() -> None:
    data = digits("light")
    seen = []
    for number in (0, 1):
        images = epoch(data, number)
        order = data.order.indices(len(images))
        seen.append(images[order.argsort()])
    assert float((seen[0] - seen[1]).abs().mean()) > 0.2


@pytest.mark.parametrize("augment", ["none", "light", "photo"])
def test_balanced_epochs(augment: str) -> None:
    """Rare classes come as often as others, each time changed anew, by seed and epoch alone."""
    data = digits(augment)
    labels = data.train.labels
    kept = torch.cat([torch.nonzero(labels != 3)[:, 0], torch.nonzero(labels == 3)[:4, 0]])
    few = dataclasses.replace(data.train, images=data.train.images[kept], labels=labels[kept])
    data._ready().splits["train"] = few
    data.balanced = True
    x, y = (torch.cat(part) for part in zip(*data.train_dataloader(), strict=True))
    counts = torch.bincount(y, minlength=10)
    assert len(y) == len(kept)
    assert counts.min() > 0.6 * counts.float().mean()
    different = len(torch.unique(x[y == 3], dim=0))
    assert different == 4 if augment == "none" else different > 0.9 * int(counts[3])
    data.order.set_epoch(0)
    again = torch.cat([part for part, _ in data.train_dataloader()])
    assert torch.equal(again, x)


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ValueError, match="augment = 'heavy': none, light, photo, strong"):
        digits("heavy").train_dataloader()
