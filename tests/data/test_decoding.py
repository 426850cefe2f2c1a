"""Decoding on all cores, of files of every kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from mindtrace.data import ImageFolder, InputRequirements
from mindtrace.data.decode import FACTS, decode_files, examine_files, workers_for
from mindtrace.errors import DataError, ImageError
from mindtrace.preprocess import ImageSpec, decode, image_digest, normalise, open_pixels
from mindtrace.progress import Progress

SPEC = ImageSpec("RGB", 5, 4, (0.0,) * 3, (1.0,) * 3)


Arrays = tuple[NDArray[np.uint8], NDArray[np.uint8]]


def inspect(paths: list[str], workers: int = 1) -> NDArray[Any]:
    return examine_files(paths, workers, lambda done: None, headers_only=True)


def decoded(paths: list[str], spec: ImageSpec, workers: int = 1) -> Arrays:
    """Images and digests."""
    images = np.empty((len(paths), spec.channels, spec.height, spec.width), np.uint8)
    digests = np.empty((len(paths), 32), np.uint8)
    grey = inspect(paths)["grey"].tolist()
    decode_files(paths, grey, spec, images, digests, workers, lambda done: None)
    return images, digests


@pytest.fixture
def paths(make_folder: Any) -> list[str]:
    """620 images, so that a child has more than one block."""
    make_folder("grey", count=600)
    folder = make_folder("colour", count=20, mode="RGB", size=(9, 7))
    return sorted(str(path) for path in folder.rglob("*.png"))


def test_children_give_what_this_process_gives(paths: list[str]) -> None:
    facts = inspect(paths)
    assert facts["grey"].tolist() == [False] * 20 + [True] * 600
    assert facts[["height", "width"]].tolist() == [(9, 7)] * 20 + [(6, 8)] * 600
    assert np.array_equal(inspect(paths, 2), facts)
    here, there = (decoded(paths, SPEC, workers) for workers in (1, 2))
    assert np.array_equal(here[0], there[0]) and np.array_equal(here[1], there[1])
    for path, pixels in zip(paths, here[0], strict=True):
        assert np.array_equal(pixels.transpose(1, 2, 0), decode(Path(path).read_bytes(), SPEC))
    grey = ImageSpec("L", 6, 8, (0.0,), (1.0,))
    images, digests = decoded(paths[20:], grey)
    assert [row.tobytes() for row in digests] == [image_digest(image[0]) for image in images]
    assert np.array_equal(here[1][20:], digests), "digests are of the images as they came"


@pytest.mark.parametrize("workers", [1, 3])
def test_the_file_that_cannot_be_read_is_named(paths: list[str], workers: int) -> None:
    broken = Path(paths[400])
    whole = broken.read_bytes()
    broken.write_bytes(whole[:60])
    with pytest.raises(ImageError) as caught:
        decoded(paths, SPEC, workers)
    assert str(caught.value).startswith(f"{broken}: damaged image")
    broken.write_bytes(b"no image")
    with pytest.raises(ImageError) as caught:
        inspect(paths, workers)
    assert str(caught.value).startswith(f"{broken}: not an image")
    assert caught.value.hint == "PNG, JPEG, WebP, AVIF, TIFF, BMP, GIF and HEIC are read"


@pytest.mark.parametrize("workers", [1, 2])
def test_a_bad_file_stops_no_examination(paths: list[str], workers: int) -> None:
    Path(paths[1]).write_bytes(Path(paths[1]).read_bytes()[:90])
    Path(paths[300]).write_bytes(b"no image")
    done: list[int] = []
    found = examine_files([*paths, "gone.png"], workers, done.append)
    assert done == sorted(done) and done[-1] == 621
    assert found.dtype == FACTS
    bad = [place for place, error in enumerate(found["error"]) if error]
    assert bad == [1, 300, 620]
    assert found["error"][300] == b"not an image: 8 bytes that begin with b'no image'"
    assert found["error"][620] == b"No such file or directory"
    good = found[[place for place in range(620) if place not in bad]]
    assert set(good["mode"].tolist()) == {b"L", b"RGB"}
    assert (found["height"][0], found["width"][0], found["mode"][0]) == (9, 7, b"RGB")
    kept = [path for place, path in enumerate(paths) if place not in bad]
    assert np.array_equal(good["digest"], decoded(kept, SPEC)[1])


def test_a_child_that_dies_is_an_error(
    paths: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "numpy.py").write_text("raise SystemExit(9)")
    monkeypatch.chdir(tmp_path)  # not searched
    assert len(inspect(paths[:2], 8)) == 2, "more processes than files"
    assert len(inspect(paths[:1], 8)) == 1
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(DataError, match="a decoding process ended with status 9"):
        inspect(paths, 2)


def test_few_files_are_not_worth_a_process() -> None:
    assert workers_for(1_000, 28 * 28 * 1_000, 8) == 1
    assert workers_for(70_000, 28 * 28 * 70_000, 8) == 8
    assert workers_for(50, 12_000_000 * 50, 8) == 8
    assert workers_for(3, 12_000_000 * 50, 8) == 3
    assert workers_for(70_000, 0, 1) == 1


# -- training sees the pixels that predict and serve see

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
            expected_input = normalise(pixels[None], data.spec)[0]
            assert np.abs(data.normalise(image[None])[0].numpy() - expected_input).max() < 1e-5
            seen += 1
    assert seen == len(list(folder.rglob("*.*")))


def test_progress(make_folder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[str] = []
    monkeypatch.setattr(Progress, "stage", lambda self, text: heard.append(text))
    folder = make_folder("a", "b")
    for _ in range(2):
        ImageFolder(folder, cache_dir=tmp_path / "cache").setup()
        heard.append("ready")
    assert heard == ["reading the headers of 20 images", "decoding 20 images", "ready", "ready"]
    seconds = iter(range(1000))
    monkeypatch.setattr("mindtrace.data.decode.time.monotonic", lambda: next(seconds))
    ImageFolder(make_folder("a", "b", count=300)).setup()
    assert "decoding 600 images: 42 %" in heard
    assert "decoding 600 images: 100 %" in heard
