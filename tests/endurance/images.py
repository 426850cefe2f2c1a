"""Image files that nobody should send: mutated ones by the thousand, and bombs one by one."""

from __future__ import annotations

import functools
import io
import random
import struct
import zlib
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

SIGNATURE = b"\x89PNG\r\n\x1a\n"
LIMIT = 16 << 20  # of a body
_SIZES = (0, 1, 7, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    """A PNG chunk whose checksum is right."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def header(width: int, height: int, depth: int = 8, colour: int = 0, interlace: int = 0) -> bytes:
    """IHDR."""
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace))


def png(width: int, height: int, *before: bytes, bits: int = 8) -> bytes:
    """A black PNG; `before` are chunks in front of its pixels."""
    colour = {8: 0, 16: 0, 32: 6, 64: 6}[bits]
    rows = b"\0" * ((width * bits // 8 + 1) * height)
    pixels = chunk(b"IDAT", zlib.compress(rows, 9))
    head = header(width, height, bits if colour == 0 else bits // 4, colour)
    return SIGNATURE + head + b"".join(before) + pixels + chunk(b"IEND")


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    """An image as a file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


@functools.lru_cache(maxsize=1)
def samples() -> tuple[bytes, ...]:
    """Good files of all kinds that are read."""
    draw = np.random.default_rng(0)
    grey = Image.fromarray(draw.integers(0, 255, (28, 28), np.uint8))
    small = grey.resize((8, 8))
    large = Image.fromarray(draw.integers(0, 255, (90, 120, 3), np.uint8))
    clear = large.convert("RGBA")
    clear.putalpha(77)
    exif = Image.Exif()
    exif[0x0112] = 6
    frames = [large.rotate(turn) for turn in (10, 20, 30)]
    deep = Image.fromarray(draw.integers(0, 65535, (28, 28), np.uint16))
    return (
        *(saved(image, "PNG") for image in (grey, small, large, clear, deep, grey.convert("1"))),
        saved(large.convert("P"), "PNG", transparency=3),
        saved(large, "PNG", exif=exif, icc_profile=b"x" * 300),
        saved(large, "PNG", save_all=True, append_images=frames),
        *(saved(image, "JPEG", quality=60) for image in (grey, large, large.convert("CMYK"))),
        saved(large, "JPEG", progressive=True, exif=exif, comment=b"hello"),
        *(saved(image, "WEBP", quality=50) for image in (grey, large, clear)),
        saved(large, "WEBP", lossless=True, exif=exif),
        saved(large, "WEBP", save_all=True, append_images=frames),
    )


def mutated(seed: int, count: int, files: Sequence[bytes] = ()) -> Iterator[bytes]:
    """So many damaged files, of `samples` if no others are given; the same for the same seed."""
    draw = random.Random(seed)
    files = files or samples()
    for _ in range(count):
        data = bytearray(draw.choice(files))
        for _ in range(draw.choice((1, 1, 1, 2, 3, 8))):
            data = draw.choice(_MUTATIONS)(data, draw)
        yield bytes(data[:LIMIT])


def _flip(data: bytearray, draw: random.Random) -> bytearray:
    for _ in range(draw.randint(1, 8)):
        if data:
            data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    return data


def _replace(data: bytearray, draw: random.Random) -> bytearray:
    """Overwrite, remove, insert, repeat, cut short, or go on with another file."""
    at = draw.randrange(min(len(data), draw.choice((32, 200, 10**6))) + 1)
    length = draw.choice((0, 0, 1, 2, 4, 30, len(data)))
    other = draw.choice(samples())
    pieces = (
        draw.choice(_SIZES).to_bytes(4, draw.choice(("big", "little"))),
        draw.choice((b"", draw.randbytes(draw.randint(1, 40)), b"\xff" * 9, b"\0" * 9)),
        data[at : at + draw.randint(1, 400)] * draw.choice((1, 2, 50)),
        other[draw.randrange(len(other)) :],
    )
    data[at : at + length] = draw.choice(pieces)
    return data


def _chunks(data: bytearray, draw: random.Random) -> bytearray:
    """Mutate a PNG behind its checksums: else nothing but the checksum is ever tried."""
    found = _split(bytes(data))
    if not found:
        return data
    place = draw.randrange(len(found))
    kind, content = found[place]
    deed = draw.randrange(5)
    if deed == 0 and kind == b"IHDR":
        fields = [draw.choice((0, 1, 28, 5000, 10_000, 2**31 - 1)) for _ in range(2)]
        rest = [draw.choice((0, 1, 2, 3, 4, 6, 8, 16, 255)) for _ in range(5)]
        content = struct.pack(">IIBBBBB", *fields, *rest)
    elif deed <= 1:
        content = bytes(_flip(bytearray(content), draw))
    elif deed == 2:
        found.insert(draw.randrange(len(found)), (kind, content))
    elif deed == 3:
        other = draw.randrange(len(found))
        found[place], found[other] = found[other], found[place]
        kind, content = found[place]
    else:
        kind = draw.choice((b"tRNS", b"PLTE", b"iCCP", b"zTXt", b"iTXt", b"eXIf", b"fcTL", b"acTL"))
    found[place] = (kind, content)
    return bytearray(SIGNATURE + b"".join(chunk(kind, content) for kind, content in found))


def _split(data: bytes) -> list[tuple[bytes, bytes]]:
    if not data.startswith(SIGNATURE):
        return []
    found, at = [], 8
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        found.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    return found


_MUTATIONS = (_flip, _replace, _replace, _replace, _chunks)


def refused() -> dict[str, bytes]:
    """What is too large and must be a 4xx, by name."""
    bomb = chunk(b"IDAT", zlib.compress(b"\0" * 100_000_000, 9))
    huge = Image.new("L", (10_000, 10_000))
    return {
        "10,000 x 10,000 PNG": png(10_000, 10_000),
        "10,000 x 10,000 JPEG": saved(huge, "JPEG"),
        "10,000 x 10,000 WebP": saved(huge, "WEBP", method=0, quality=0),
        "30,000 x 30,000 by its header": SIGNATURE + header(30_000, 30_000) + bomb,
        "2^31 x 2^31 by its header": SIGNATURE + header(2**31 - 1, 2**31 - 1) + bomb,
        "65,535 x 65,535 JPEG": _resized_jpeg(samples()[10], 65_535, 65_535),
    }


def _resized_jpeg(data: bytes, width: int, height: int) -> bytes:
    at = data.index(b"\xff\xc0")
    return data[: at + 5] + struct.pack(">HH", height, width) + data[at + 9 :]


def tedious() -> dict[str, bytes]:
    """What may be answered or refused, but at once; `test_preprocess_files.py` has more."""
    frames = [Image.new("RGB", (300, 300), (turn, 0, 0)) for turn in range(200)]
    plain = Image.new("RGB", (5000, 5000))
    return {
        "a PNG whose pixels swell": SIGNATURE
        + header(28, 28)
        + chunk(b"IDAT", zlib.compress(b"\0" * 500_000_000, 9))
        + chunk(b"IEND"),
        "25 megapixels, PNG": png(5000, 5000),
        "25 megapixels, PNG, RGBA": png(5000, 5000, bits=32),
        "25 megapixels, PNG, 16 bits": png(5000, 5000, bits=16),
        "25 megapixels, PNG, RGBA, 16 bits": png(5000, 5000, bits=64),
        "25 megapixels, JPEG": saved(plain, "JPEG"),
        "25 megapixels, JPEG, CMYK": saved(plain.convert("CMYK"), "JPEG"),
        "25 megapixels, WebP": saved(plain, "WEBP", method=0),
        "25 megapixels, WebP, lossless": saved(plain, "WEBP", method=0, lossless=True),
        "an animated WebP": saved(
            frames[0], "WEBP", save_all=True, append_images=frames[1:], method=0
        ),
        "an animated PNG": saved(frames[0], "PNG", save_all=True, append_images=frames[1:]),
    }
