"""Files of every kind in a folder: training sees the pixels that predict and serve see."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin

from mindtrace.data import ImageFolder, InputRequirements
from mindtrace.preprocess import decode, image_digest, open_pixels
from mindtrace.progress import Progress

RNG = np.random.default_rng(5)
SIZE = (12, 16)


def noise(channels: int, bits: int = 8) -> np.ndarray:  # type: ignore[type-arg]
    shape = SIZE if channels == 1 else (*SIZE, channels)
    return RNG.integers(0, 2**bits, shape, dtype=np.uint16 if bits > 8 else np.uint8)


def exif(turn: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = turn
    return tags


def grey_files(folder: Path) -> None:
    """Grey files of several kinds."""
    Image.fromarray(noise(1)).save(folder / "plain.png")
    Image.fromarray(noise(1) > 128).save(folder / "bits.png")
    Image.fromarray(noise(1, 16)).save(folder / "deep.png")
    Image.fromarray(noise(2), "LA").save(folder / "alpha.png")
    Image.fromarray(noise(1)).save(folder / "jpeg.jpg", exif=exif(6))
    frames = [Image.fromarray(noise(1)) for _ in range(3)]
    frames[0].save(folder / "moving.png", save_all=True, append_images=frames[1:])


def colour_files(folder: Path) -> None:
    """Colour files of several kinds."""
    Image.fromarray(noise(3)).save(folder / "plain.png")
    Image.fromarray(noise(4), "RGBA").save(folder / "alpha.png")
    palette = Image.fromarray(noise(3)).quantize(16)
    palette.save(folder / "palette.png")
    palette.save(folder / "hole.png", transparency=3)
    Image.fromarray(noise(4), "RGBA").save(folder / "alpha.webp", lossless=True)
    Image.fromarray(noise(1)).save(folder / "keyed.png", transparency=40)
    Image.fromarray(noise(3)).save(folder / "coloured_key.png", transparency=(1, 2, 3))
    Image.fromarray(noise(4), "CMYK").save(folder / "print.jpg")
    for turn in range(1, 9):
        Image.fromarray(noise(3)).save(folder / f"turned{turn}.jpg", exif=exif(turn))
        Image.fromarray(noise(3)).save(folder / f"turned{turn}.png", exif=exif(turn))
        Image.fromarray(noise(3)).save(folder / f"turned{turn}.webp", exif=exif(turn))
    frames = [Image.fromarray(noise(3)) for _ in range(3)]
    frames[0].save(folder / "moving.webp", save_all=True, append_images=frames[1:], lossless=True)
    frames[0].save(folder / "moving.png", save_all=True, append_images=frames[1:])
    text = PngImagePlugin.PngInfo()
    text.add_text("comment", "of no importance")
    Image.fromarray(noise(3)).save(folder / "commented.png", pnginfo=text)


def folder_of(tmp_path: Path, *kinds: Any) -> Path:
    for name in ("a", "b"):
        for kind in kinds:
            home = tmp_path / "images" / name / kind.__name__
            home.mkdir(parents=True)
            kind(home)
    return tmp_path / "images"


@pytest.mark.parametrize(
    "demand",
    [
        InputRequirements(),
        InputRequirements(height=12, width=16),
        InputRequirements(mode="L", min_side=20),
        InputRequirements(mode="RGB", height=9, width=9),
        InputRequirements(mode="RGB", height=10, width=10, resize="crop", short_side=11),
    ],
    ids=["own", "as they are", "grey", "stretched", "cropped"],
)
@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("kinds", [(grey_files,), (colour_files,), (grey_files, colour_files)])
def test_training_decodes_as_predict_does(
    tmp_path: Path, kinds: Any, demand: InputRequirements, cached: bool
) -> None:
    folder = folder_of(tmp_path, *kinds)
    data = ImageFolder(folder, demand=demand, cache_dir=tmp_path / "cache" if cached else None)
    assert data.spec.mode == (demand.mode or ("L" if kinds == (grey_files,) else "RGB"))
    expected = {}
    for path in folder.rglob("*.*"):
        content = path.read_bytes()
        own = np.asarray(open_pixels(content, "L" if path.parent.name == "grey_files" else "RGB"))
        expected[image_digest(own)] = decode(content, data.spec)
    seen = 0
    for stage in ("train", "val", "test"):
        split = data.split(stage)
        for image, digest in zip(split.images, split.digests(), strict=True):
            pixels = expected[digest]
            planes = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
            assert torch.equal(image, torch.from_numpy(planes.copy()))
            seen += 1
    assert seen == len(list(folder.rglob("*.*")))


def test_who_watches_hears_of_the_work(make_folder: Any, tmp_path: Path) -> None:
    class Listener(Progress):
        def stage(self, text: str) -> None:
            heard.append(text)

    heard: list[str] = []
    folder = make_folder("a", "b")
    for _ in range(2):
        data = ImageFolder(folder, cache_dir=tmp_path / "cache")
        data.progress = Listener()
        data.setup()
        heard.append("ready")
    assert heard == ["reading the headers of 20 images", "decoding 20 images", "ready", "ready"]


def test_a_long_piece_of_work_says_how_far_it_is(
    make_folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = iter(range(1000))
    monkeypatch.setattr("mindtrace.data.decode.time.monotonic", lambda: next(seconds))
    heard: list[str] = []
    data = ImageFolder(make_folder("a", "b", count=300))
    monkeypatch.setattr(data.progress, "stage", heard.append)
    data.setup()
    assert "decoding 600 images: 42 %" in heard
    assert "decoding 600 images: 100 %" in heard
