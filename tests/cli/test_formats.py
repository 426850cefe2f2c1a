"""Image formats: what is read in train, predict, `data check` and by a server, and what is not."""

from __future__ import annotations

import csv
import io
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
import pytest
from PIL import Image
from tests.application.conftest import Serve, bundle, start
from tests.cli.conftest import documents, error_of
from tests.conftest import RunCli
from tests.endurance.images import mutated

from mindtrace.config.formats import FORMATS
from mindtrace.errors import ImageError
from mindtrace.preprocess import Accepted, open_pixels

__all__ = ["bundle", "start"]

pillow_heif.register_heif_opener()
ACCEPTED = Accepted()
RNG = np.random.default_rng(4)
PICTURE = Image.fromarray(RNG.integers(0, 256, (12, 16, 3), dtype=np.uint8))
LOSSLESS = {"png", "tiff", "bmp"}


def encoded(image: Image.Image, name: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, FORMATS[name].pillow, **options)
    return buffer.getvalue()


FILES = {name: encoded(PICTURE, name) for name in FORMATS}


@pytest.fixture
def folder(tmp_path: Path, root: Path) -> Path:
    """Two classes; each has a picture of its own in every format and suffix."""
    for label, name in enumerate(("cat", "dog")):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for number, (kind, known) in enumerate(FORMATS.items()):
            for place, suffix in enumerate(known.suffixes):
                image = PICTURE.rotate(90 * label).crop((0, 0, 12, 12))
                image.putpixel((number, place), (9, 99, 199))
                (tmp_path / "pets" / name / f"{kind}{suffix}").write_bytes(encoded(image, kind))
    return tmp_path / "pets"


COUNT = sum(len(known.suffixes) for known in FORMATS.values())


def train_words(folder: Path, *sets: str) -> tuple[str, ...]:
    pairs = (f"data.dir={folder}", "data.num_workers=1", "model.name=mlp", *sets)
    return "train", "--dry-run", "--json", "--source", "folder", *_sets(pairs)


def _sets(pairs: tuple[str, ...]) -> list[str]:
    return [word for pair in pairs for word in ("--set", pair)]


@pytest.mark.parametrize("formats", [None, "png, JPG", "tif avif", "heif"])
def test_train_predict_and_check_read_the_same_formats(
    run_cli: RunCli, folder: Path, bundle: Path, formats: str | None
) -> None:
    sets = () if formats is None else (f"data.formats={formats}",)
    also = {"JPG": "jpeg", "tif": "tiff", "heif": "heic"}
    named = [also.get(name, name) for name in (formats or "").replace(",", "").split()]
    count = sum(len(FORMATS[name].suffixes) for name in named or FORMATS)
    trained = run_cli(*train_words(folder, *sets))
    assert sum(json.loads(trained.stdout)["images"].values()) == 2 * count, trained.stderr
    words = ("data", "check", str(folder), "--json", "--set", "data.num_workers=1", *_sets(sets))
    checked = json.loads(run_cli(*words).stdout)
    pillow = {FORMATS[name].pillow for name in named or FORMATS}
    assert (set(checked["formats"]), checked["unreadable"]) == (pillow, [])
    result = run_cli("predict", str(folder), "--json", "--model", str(bundle), *_sets(sets))
    assert (result.exit_code, len(documents(result.stdout))) == (0, 2 * count)
    if formats is not None:
        left = f"{2 * (COUNT - count)} left out: "
        assert left in result.stderr and left in checked["notes"][0] and left in trained.stderr


@pytest.mark.parametrize("text", ["", "jpeg2000", "png; jpeg", "image/png"])
@pytest.mark.parametrize("section", ["data", "serve"])
def test_formats_that_nobody_knows(run_cli: RunCli, root: Path, text: str, section: str) -> None:
    result = run_cli("config", "show", "--set", f"{section}.formats={text}")
    assert result.exit_code == 2
    assert "must be some of png, jpeg, webp, avif, tiff, bmp, gif, heic" in result.stderr


@pytest.mark.parametrize("name", FORMATS)
def test_the_content_decides_and_not_the_name(
    run_cli: RunCli, tmp_path: Path, root: Path, bundle: Path, name: str
) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(FILES[name])
    words = ("predict", str(path), "--json", "--model", str(bundle))
    assert run_cli(*words).exit_code == 0
    others = ",".join(other for other in FORMATS if other != name)
    result = run_cli(*words, "--set", f"data.formats={others}")
    (found,) = documents(result.stdout)
    assert result.exit_code == 1
    assert found["error"]["message"].startswith("not an image: ")
    assert found["error"]["hint"].endswith(" are read")
    assert FORMATS[name].words not in found["error"]["hint"]


def test_heic_without_its_package(
    run_cli: RunCli, folder: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("config.formats", "data.listing", "preprocess"):
        monkeypatch.setattr(f"mindtrace.{module}.reads_heic", lambda: False)
    (folder / "cat" / "telephone.jpg").write_bytes(FILES["heic"])
    result = run_cli("predict", str(folder / "cat"), "--json", "--model", str(bundle))
    assert result.exit_code == 1
    assert "3 left out: 1 .heic (" in result.stderr
    assert "pip install 'mindtrace[heif]' for HEIC" in result.stderr
    (failed,) = [one["error"] for one in documents(result.stdout) if "error" in one]
    assert failed["hint"] == "it may be HEIC: pip install 'mindtrace[heif]'"


# -- kinds of files, by the one way from bytes to pixels

GREY = np.arange(192, dtype=np.uint8).reshape(12, 16)
FLOAT = np.linspace(0, 1, 192, dtype=np.float32).reshape(12, 16)
BROKEN = FLOAT.copy()
BROKEN[0, :3] = np.nan, -np.inf, -5
TIFFS: dict[str, tuple[Image.Image, dict[str, Any], np.ndarray[Any, Any]]] = {
    "grey": (Image.fromarray(GREY), {}, GREY),
    "16 bits": (Image.fromarray(GREY.astype(np.uint16) * 257), {}, GREY),
    "32 bits": (Image.fromarray(GREY.astype(np.int32) * 257), {}, GREY),
    "float of 0 to 1": (Image.fromarray(FLOAT), {}, (FLOAT * 255).round().astype(np.uint8)),
    "float of 0 to 255": (Image.fromarray(GREY.astype(np.float32)), {}, GREY),
    "float of 0 to 65535": (Image.fromarray(GREY.astype(np.float32) * 257), {}, GREY),
    "bits": (Image.fromarray(GREY > 99), {}, np.where(GREY > 99, 255, 0)),
    "palette": (PICTURE.quantize(32), {}, np.asarray(PICTURE.quantize(32).convert("L"))),
    "CMYK": (PICTURE.convert("CMYK"), {}, np.asarray(PICTURE.convert("L"))),
    "alpha": (Image.merge("LA", [Image.fromarray(GREY)] * 2), {}, None),  # type: ignore[dict-item]
    **{
        name: (Image.fromarray(GREY), {"compression": name}, GREY)
        for name in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "zstd", "lzma")
    },
    "pages": (
        Image.fromarray(GREY),
        {"save_all": True, "append_images": [Image.new("L", (40, 30))] * 3},
        GREY,
    ),
}


@pytest.mark.parametrize("name", TIFFS)
def test_what_scanners_and_microscopes_write(name: str) -> None:
    image, options, expected = TIFFS[name]
    pixels = np.asarray(open_pixels(encoded(image, "tiff", **options), "L", *ACCEPTED))
    if expected is None:
        expected = (GREY.astype(int) ** 2 / 255).round()
    assert np.abs(pixels.astype(int) - expected).max() <= 1


def test_floats_that_are_no_numbers_are_black() -> None:
    data = encoded(Image.fromarray(BROKEN), "tiff")
    pixels = np.asarray(open_pixels(data, "L", *ACCEPTED))
    assert pixels[0, 1:3].tolist() == [0, 0]
    assert pixels[-1, -1] == 255


@pytest.mark.parametrize("name", ["jpeg", "webp", "avif", "tiff"])
@pytest.mark.parametrize("turn", [1, 6])
def test_the_sizes_of_photos_are_those_upright(
    run_cli: RunCli, tmp_path: Path, root: Path, turn: int, name: str
) -> None:
    for number in range(10):
        exif = Image.Exif()  # saving an AVIF takes the tag out
        exif[0x0112] = turn
        folder = tmp_path / "pets" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        image = PICTURE.rotate(number)
        (folder / f"{number}{FORMATS[name].suffixes[0]}").write_bytes(
            encoded(image, name, exif=exif)
        )
    checked = run_cli("data", "check", str(tmp_path / "pets"), "--json")
    height, width = (12, 16) if turn == 1 else (16, 12)
    sizes = [{"height": height, "width": width, "images": 10}]
    assert json.loads(checked.stdout)["sizes"] == sizes


@pytest.mark.parametrize("name", ["gif", "tiff", "avif", "webp", "png"])
def test_the_first_frame_counts(name: str) -> None:
    options = {"lossless": True} if name == "webp" else {}
    frames = [PICTURE.quantize(200), Image.new("RGB", PICTURE.size)]
    data = encoded(
        frames[0].convert("RGB"), name, save_all=True, append_images=frames[1:], **options
    )
    pixels = np.asarray(open_pixels(data, "RGB", *ACCEPTED)).astype(int)
    assert np.abs(pixels - np.asarray(PICTURE)).mean() < 70


# -- limits


@pytest.mark.parametrize("name", FORMATS)
def test_one_limit_for_every_decoder(name: str) -> None:
    assert open_pixels(FILES[name], "RGB", 192, ACCEPTED.formats).size == (16, 12)
    with pytest.raises(ImageError, match="16 x 12 pixels: more than 191"):
        open_pixels(FILES[name], "RGB", 191, ACCEPTED.formats)


def gif_beyond_its_screen(width: int, height: int) -> bytes:
    data = bytearray(encoded(PICTURE.quantize(16), "gif"))
    at = data.find(b"\x2c" + struct.pack("<HHHH", 0, 0, *PICTURE.size))
    data[at + 5 : at + 9] = struct.pack("<HH", width, height)
    return bytes(data)


def tiff_of(width: int, height: int) -> bytes:
    data = bytearray(encoded(Image.new("L", (16, 16)), "tiff"))
    for tag, value in ((256, width), (257, height)):
        at = data.find(struct.pack("<HHI", tag, 4, 1))
        at = at if at >= 0 else data.find(struct.pack("<HHI", tag, 3, 1))
        data[at : at + 12] = struct.pack("<HHII", tag, 4, 1, value)
    return bytes(data)


def bmp_of(width: int, height: int) -> bytes:
    data = bytearray(FILES["bmp"])
    data[18:26] = struct.pack("<ii", width, height)
    return bytes(data)


def boxed(name: str, width: int, height: int) -> bytes:
    """AVIF and HEIC, whose box `ispe` says the size."""
    data = bytearray(FILES[name])
    at = data.find(b"ispe")
    while at >= 0:
        data[at + 8 : at + 16] = struct.pack(">II", width, height)
        at = data.find(b"ispe", at + 1)
    return bytes(data)


@pytest.mark.filterwarnings("ignore:::PIL")
@pytest.mark.parametrize("size", [(10_001, 10_000), (30_000, 30_000), (60_000, 65_000)], ids=str)
@pytest.mark.parametrize(
    "make",
    [
        gif_beyond_its_screen,
        tiff_of,
        bmp_of,
        lambda width, height: boxed("avif", width, height),
        lambda width, height: boxed("heic", width, height),
    ],
    ids=["gif", "tiff", "bmp", "avif", "heic"],
)
def test_a_bomb_is_refused_before_it_is_unpacked(make: Any, size: tuple[int, int]) -> None:
    with pytest.raises(ImageError, match=r"more than 100,000,000|not an image|damaged image"):
        open_pixels(make(*size), "RGB", *ACCEPTED)


def tiff_of_tiles(width: int, height: int, side: int) -> bytes:
    """All tiles are the same few bytes; a million of them took half a minute."""
    count = (width // side) * (height // side)
    tags = [(256, width), (257, height), (258, 8), (259, 1), (262, 1), (277, 1)]
    offsets = 8 + 2 + 12 * 10 + 4
    tags += [(322, side), (323, side), (324, offsets), (325, offsets + 4 * count)]
    entries = b"".join(
        struct.pack("<HHII", tag, 4, count if tag in (324, 325) else 1, value)
        for tag, value in tags
    )
    start = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    return start + struct.pack("<I", 8) * count + struct.pack("<I", side * side) * count


def test_a_tiff_of_very_many_tiles_is_refused_before_they_are_read() -> None:
    assert open_pixels(tiff_of_tiles(1024, 1024, 16), "L", *ACCEPTED).size == (1024, 1024)
    with pytest.raises(ImageError, match="far too many tiles"):
        open_pixels(tiff_of_tiles(2000, 1000, 1), "L", *ACCEPTED)


def test_decoders_print_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    """libtiff writes to stderr by itself, and Pillow to its log."""
    data = bytearray(encoded(PICTURE, "tiff", compression="tiff_adobe_deflate"))
    data[12:40] = bytes(28)
    with pytest.raises(ImageError):
        open_pixels(bytes(data), "RGB", *ACCEPTED)
    assert capfd.readouterr() == ("", "")


@pytest.mark.filterwarnings("ignore:::PIL")
@pytest.mark.parametrize("rounds", [300, pytest.param(12_500, marks=pytest.mark.proof)])
@pytest.mark.parametrize("name", FORMATS)
def test_mutated_files_give_pixels_or_the_clean_error(name: str, rounds: int, soak: int) -> None:
    grey, deep = PICTURE.convert("L"), Image.fromarray(GREY.astype(np.uint16) * 257)
    packed = ("tiff_lzw", "jpeg", "packbits")
    kinds = {
        "tiff": [
            *(encoded(one, "tiff") for one in (deep, Image.fromarray(FLOAT), PICTURE.quantize(9))),
            *(encoded(PICTURE, "tiff", compression=kind) for kind in packed),
            encoded(TIFFS["pages"][0], "tiff", **TIFFS["pages"][1]),
        ],
        "gif": [encoded(grey, "gif", save_all=True, append_images=[PICTURE.rotate(9)])],
        "bmp": [encoded(one, "bmp") for one in (grey, PICTURE.quantize(9), grey.convert("1"))],
        "avif": [encoded(PICTURE.convert("RGBA"), "avif")],
    }
    read = 0
    for data in mutated(7, rounds * soak, [FILES[name], *kinds.get(name, [])]):
        try:
            read += open_pixels(data, "RGB", 1_000_000, ACCEPTED.formats).mode == "RGB"
        except ImageError as error:
            assert "\n" not in error.message
    assert 0 < read < rounds * soak


# -- a server reads less


def test_a_server_reads_what_its_own_key_says(start: Serve) -> None:
    def status(client: Any, name: str) -> int:
        headers = {"Content-Type": f"image/{name}"}
        found: int = client.post("/inference", content=FILES[name], headers=headers).status_code
        return found

    with start() as client:
        assert {name: status(client, name) for name in FORMATS} == {
            name: 200 if name in ("png", "jpeg", "webp") else 415 for name in FORMATS
        }
        named = {"Content-Type": "image/png"}
        answer = client.post("/inference", content=FILES["tiff"], headers=named)
        assert (answer.status_code, "PNG, JPEG and WebP are read" in answer.text) == (422, True)
    with start("serve.formats=png,tiff,avif,heic") as client:
        assert {name for name in FORMATS if status(client, name) == 200} == {
            *("png", "tiff", "avif", "heic")
        }
    with start("serve.formats=tiff", "serve.max_pixels=191") as client:
        assert status(client, "tiff") == 422


# -- predict --out


def test_rows_in_a_file(run_cli: RunCli, tmp_path: Path, root: Path, bundle: Path) -> None:
    from pyarrow import parquet

    (tmp_path / "a, b.png").write_bytes(FILES["png"])
    (tmp_path / "bad.png").write_bytes(b"no image")
    words = ("predict", str(tmp_path / "*.png"), "--topk", "2", "--model", str(bundle))
    for name in ("rows.csv", "rows.CSV", "rows.parquet"):
        out = tmp_path / name
        result = run_cli(*words, "--json", "--out", str(out))
        good, bad = documents(result.stdout)
        if out.suffix == ".parquet":
            rows = parquet.read_table(out).to_pylist()
        else:
            rows = list(csv.DictReader(io.StringIO(out.read_text(), newline="")))
        assert result.exit_code == 1
        assert [row["path"] for row in rows] == [good["path"], bad["path"]]
        assert int(rows[0]["label"]) == good["label"]
        assert float(rows[0]["confidence"]) == good["confidence"]
        assert rows[0]["class_name"] == good["class_name"]
        assert rows[1]["error"] == bad["error"]["message"] and not rows[1]["label"]


@pytest.mark.parametrize(
    ("name", "said"),
    [("rows.xlsx", "must end in .csv or .parquet"), ("no/rows.csv", "no such folder"), ("", "csv")],
)
def test_a_file_for_rows_that_cannot_be_is_said_before_the_work(
    run_cli: RunCli, tmp_path: Path, root: Path, bundle: Path, name: str, said: str
) -> None:
    out = tmp_path / name
    result = run_cli("predict", "missing.png", "--out", str(out), "--model", str(bundle))
    assert (result.exit_code, result.stdout, said in result.stderr) == (2, "", True)


def test_parquet_without_its_package(
    run_cli: RunCli, tmp_path: Path, root: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mindtrace.service.predict.find_spec", lambda name: None)
    words = ("--json", "--out", str(tmp_path / "r.parquet"), "--model", str(bundle))
    result = run_cli("predict", "missing.png", *words)
    assert (result.exit_code, "pyarrow" in error_of(result)["message"]) == (2, True)
    assert error_of(result)["hint"] == f"--out {tmp_path / 'r.csv'}  # or pip install pyarrow"
