"""Decoding in threads, of files of every kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from mindtrace.data import ImageFolder, InputRequirements
from mindtrace.data.decode import FACTS, decode_files, examine_files, headers_of
from mindtrace.errors import ImageError
from mindtrace.preprocess import (
    Accepted,
    ImageSpec,
    decode,
    image_digest,
    normalise,
    open_pixels,
)
from mindtrace.progress import Progress

SPEC = ImageSpec("RGB", 5, 4, (0.0,) * 3, (1.0,) * 3)


def inspect(paths: list[str]) -> NDArray[Any]:
    return headers_of(paths, lambda done: None, Accepted())


def decoded(
    paths: list[str], spec: ImageSpec, threads: int = 1
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Images and digests."""
    images = np.empty((len(paths), spec.channels, spec.height, spec.width), np.uint8)
    digests = np.empty((len(paths), 32), np.uint8)
    work = (paths, inspect(paths), spec, images, digests, lambda done: None, Accepted())
    decode_files(*work, threads=threads)
    return images, digests


@pytest.fixture
def paths(make_folder: Any) -> list[str]:
    make_folder("grey", count=100)
    folder = make_folder("colour", count=20, mode="RGB", size=(9, 7))
    return sorted(str(path) for path in folder.rglob("*.png"))


def test_threads_give_what_one_gives(paths: list[str]) -> None:
    facts = inspect(paths)
    assert facts["grey"].tolist() == [False] * 20 + [True] * 100
    assert facts[["height", "width"]].tolist() == [(9, 7)] * 20 + [(6, 8)] * 100
    here, there = (decoded(paths, SPEC, threads) for threads in (1, 5))
    assert np.array_equal(here[0], there[0]) and np.array_equal(here[1], there[1])
    for path, pixels in zip(paths, here[0], strict=True):
        assert np.array_equal(pixels.transpose(1, 2, 0), decode(Path(path).read_bytes(), SPEC))
    grey = ImageSpec("L", 6, 8, (0.0,), (1.0,))
    images, digests = decoded(paths[20:], grey)
    assert [row.tobytes() for row in digests] == [image_digest(image[0]) for image in images]
    assert np.array_equal(here[1][20:], digests), "digests are of the images as they came"


def test_pngs_that_begin_alike_are_told_apart(tmp_path: Path) -> None:
    """The first chunk says nothing of transparency, of a rotation or of further frames."""
    image, frames = Image.new("L", (5, 7), 9), [Image.new("L", (5, 7), 3)]
    exif = Image.Exif()
    exif[0x0112] = 6
    for name, options in {
        "keyed": {"transparency": 9},
        "moving": {"save_all": True, "append_images": frames},
        "plain": {},
        "turned": {"exif": exif},
    }.items():
        image.save(tmp_path / f"{name}.png", **options)
    paths = sorted(str(path) for path in tmp_path.iterdir())
    assert len({Path(path).read_bytes()[:33] for path in paths}) == 1
    facts = inspect([*paths, *paths, *paths[::-1]])
    for name, flags in {
        "transparent": [True, False, False, False],
        "animated": [False, True, False, False],
        "rotated": [False, False, False, True],
        "grey": [False, True, True, True],
    }.items():
        assert facts[name].tolist() == flags * 2 + flags[::-1], name


@pytest.mark.parametrize("threads", [1, 3])
def test_the_file_that_cannot_be_read_is_named(paths: list[str], threads: int) -> None:
    broken = Path(paths[70])
    whole = broken.read_bytes()
    broken.write_bytes(whole[:60])
    with pytest.raises(ImageError) as caught:
        decoded(paths, SPEC, threads)
    assert str(caught.value).startswith(f"{broken}: damaged image")
    broken.write_bytes(b"no image")
    with pytest.raises(ImageError) as caught:
        inspect(paths)
    assert str(caught.value).startswith(f"{broken}: not an image")
    assert caught.value.hint == "PNG, JPEG, WebP, AVIF, TIFF, BMP, GIF and HEIC are read"


@pytest.mark.parametrize("threads", [1, 3])
def test_a_bad_file_stops_no_examination(paths: list[str], threads: int) -> None:
    Path(paths[1]).write_bytes(Path(paths[1]).read_bytes()[:90])
    Path(paths[70]).write_bytes(b"no image")
    done: list[int] = []
    found = examine_files([*paths, "gone.png"], done.append, Accepted(), threads=threads)
    assert done == sorted(done) and done[-1] == 121
    assert found.dtype == FACTS
    bad = [place for place, error in enumerate(found["error"]) if error]
    assert bad == [1, 70, 120]
    assert found["error"][70] == b"not an image: 8 bytes that begin with b'no image'"
    assert found["error"][120] == b"No such file or directory"
    good = found[[place for place in range(120) if place not in bad]]
    assert set(good["mode"].tolist()) == {b"L", b"RGB"}
    assert (found["height"][0], found["width"][0], found["mode"][0]) == (9, 7, b"RGB")
    kept = [path for place, path in enumerate(paths) if place not in bad]
    assert np.array_equal(good["digest"], decoded(kept, SPEC)[1])


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


def moving(channels: int) -> tuple[Image.Image, dict[str, Any]]:
    first, *others = (Image.fromarray(noise(channels)) for _ in range(3))
    return first, {"save_all": True, "append_images": others}


def grey_files(folder: Path) -> None:
    """Grey files of several kinds."""
    frame, frames = moving(1)
    frame.save(folder / "moving.png", **frames)
    Image.fromarray(noise(1)).save(folder / "plain.png")
    Image.fromarray(noise(1) > 128).save(folder / "bits.png")
    Image.fromarray(noise(1, 16)).save(folder / "deep.png")
    Image.fromarray(noise(2), "LA").save(folder / "alpha.png")
    Image.fromarray(noise(1)).save(folder / "jpeg.jpg", exif=exif(6))


def colour_files(folder: Path) -> None:
    """Colour files of several kinds."""
    palette = Image.fromarray(noise(3)).quantize(16)
    frame, frames = moving(3)
    text = PngImagePlugin.PngInfo()
    text.add_text("comment", "of no importance")
    for name, image, options in (
        ("plain.png", Image.fromarray(noise(3)), {}),
        ("alpha.png", Image.fromarray(noise(4), "RGBA"), {}),
        ("palette.png", palette, {}),
        ("hole.png", palette, {"transparency": 3}),
        ("alpha.webp", Image.fromarray(noise(4), "RGBA"), {"lossless": True}),
        ("keyed.png", Image.fromarray(noise(1)), {"transparency": 40}),
        ("coloured_key.png", Image.fromarray(noise(3)), {"transparency": (1, 2, 3)}),
        ("print.jpg", Image.fromarray(noise(4), "CMYK"), {}),
        ("moving.webp", frame, {**frames, "lossless": True}),
        ("moving.png", frame, frames),
        ("commented.png", Image.fromarray(noise(3)), {"pnginfo": text}),
        *(
            (f"turned{turn}.{kind}", Image.fromarray(noise(3)), {"exif": exif(turn)})
            for turn in range(1, 9)
            for kind in ("jpg", "png", "webp")
        ),
    ):
        image.save(folder / name, **options)


def folder_of(tmp_path: Path, *kinds: Any) -> Path:
    for name in ("a", "b"):
        for kind in kinds:
            home = tmp_path / "images" / name / kind.__name__
            home.mkdir(parents=True)
            kind(home)
    return tmp_path / "images"


@pytest.mark.parametrize(
    "requirements",
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
    tmp_path: Path, kinds: Any, requirements: InputRequirements, cached: bool
) -> None:
    folder = folder_of(tmp_path, *kinds)
    data = ImageFolder(
        folder, requirements=requirements, cache_dir=tmp_path / "cache" if cached else None
    )
    assert data.spec.mode == (requirements.mode or ("L" if kinds == (grey_files,) else "RGB"))
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
