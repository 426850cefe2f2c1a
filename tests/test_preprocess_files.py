"""What a file is made of: the short cut for plain PNGs changes nothing, excess is seen."""

from __future__ import annotations

import io
import random
import struct
import time
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from mindtrace.errors import ImageError
from mindtrace.preprocess import (
    ImageSpec,
    decode,
    decoding_cost_fault,
    open_pixels,
    plain_pixels,
    resized,
)

SIZE = 28
SPECS = {
    "L": ImageSpec("L", SIZE, SIZE, (0.5,), (0.5,)),
    "RGB": ImageSpec("RGB", SIZE, SIZE, (0.5,) * 3, (0.5,) * 3),
}
SIGNATURE = b"\x89PNG\r\n\x1a\n"
END = b"\0\0\0\0IEND\xaeB`\x82"
LIMIT = 16 * 1024 * 1024


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def head(mode: str, size: int = SIZE) -> bytes:
    colour = {"L": 0, "RGB": 2}[mode]
    return SIGNATURE + chunk(b"IHDR", struct.pack(">IIBBBBB", size, size, 8, colour, 0, 0, 0))


def png(mode: str, draw: random.Random, smooth: bool) -> bytes:
    pixels = np.random.default_rng(draw.randrange(1 << 30)).integers(
        0, 256, (SIZE, SIZE, 3), np.uint8
    )
    image = Image.fromarray(pixels)
    if smooth:  # so that every kind of filter pays
        image = image.resize((4, 4)).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.convert(mode).save(buffer, "PNG")
    return buffer.getvalue()


def packed(data: bytes) -> bytes:
    """What IDAT holds in a file of one IDAT."""
    return data[41:-16]


def _flip(data: bytes, draw: random.Random) -> bytes:
    found = bytearray(data)
    for _ in range(draw.randint(1, 4)):
        found[draw.randrange(len(found))] = draw.randrange(256)
    return bytes(found)


def _flip_packed(data: bytes, draw: random.Random) -> bytes:
    found = bytearray(packed(data))
    last = 4 if draw.random() < 0.3 else len(found)  # the checksum alone, or anywhere
    for _ in range(draw.randint(1, 3)):
        found[-draw.randint(1, last)] ^= 1 << draw.randrange(8)
    return data[:33] + chunk(b"IDAT", bytes(found)) + END


def _filters(data: bytes, draw: random.Random) -> bytes:
    rows = bytearray(zlib.decompress(packed(data)))
    stride = len(rows) // SIZE
    for _ in range(draw.randint(1, 5)):
        rows[draw.randrange(SIZE) * stride] = draw.choice([0, 1, 2, 3, 4, 5, 255])
    return data[:33] + chunk(b"IDAT", zlib.compress(bytes(rows), draw.randrange(10))) + END


def _other_length(data: bytes, draw: random.Random) -> bytes:
    rows = zlib.decompress(packed(data))
    rows = rows[: draw.randrange(len(rows))] if draw.random() < 0.5 else rows + bytes(3000)
    return data[:33] + chunk(b"IDAT", zlib.compress(rows)) + END


def _pieces(data: bytes, draw: random.Random) -> bytes:
    left, parts = packed(data), []
    while left:
        size = draw.choice([0, 1, 2, 50, 400])
        parts.append(chunk(b"IDAT", left[:size]))
        left = left[size:]
    return data[:33] + b"".join(parts) + END


def _garbage(data: bytes, draw: random.Random) -> bytes:
    garbage = draw.randbytes(draw.randrange(1, 50))
    if draw.random() < 0.5:
        return data + garbage
    return data[:33] + chunk(b"IDAT", packed(data) + garbage) + END


def _cut(data: bytes, draw: random.Random) -> bytes:
    if draw.random() < 0.5:
        return data[: draw.randrange(len(data))]
    return data[:33] + chunk(b"IDAT", packed(data)[: -draw.randint(1, 30)]) + END


def _other_end(data: bytes, draw: random.Random) -> bytes:
    ends = (b"", b"IEND", chunk(b"IEND", b"x"), END[:-1], END[:-1] + b"\0", END * 2)
    return data[:-12] + draw.choice(ends)


def _other_chunk(data: bytes, draw: random.Random) -> bytes:
    kinds = "tRNS gAMA tEXt bKGD PLTE abCd IDAT sBIT ABCD pHYs eXIf hIST tIME IHDR acTL iCCP zTXt"
    extra = chunk(draw.choice(kinds.split()).encode(), draw.randbytes(draw.choice([0, 1, 2, 9])))
    at = draw.choice([33, len(data) - 12])
    return data[:at] + extra + data[at:]


def _other_window(data: bytes, draw: random.Random) -> bytes:
    packer = zlib.compressobj(
        draw.randrange(10),
        zlib.DEFLATED,
        draw.choice([9, 10, 15, 31, -15]),
        draw.randint(1, 9),
        draw.randrange(5),
    )
    found = packer.compress(zlib.decompress(packed(data))) + packer.flush()
    return data[:33] + chunk(b"IDAT", found) + END


def _as_it_is(data: bytes, _: random.Random) -> bytes:
    return data


MUTATIONS = (
    *(_flip, _flip_packed, _filters, _other_length, _pieces),
    *(_garbage, _cut, _other_end, _other_chunk, _other_window, _as_it_is),
)


def _told(read: Callable[[], np.ndarray]) -> tuple[object, ...]:
    try:
        pixels = read()
    except ImageError as error:
        return error.message, error.hint
    return pixels.shape, pixels.dtype, pixels.tobytes()


@pytest.mark.filterwarnings("ignore:::PIL")
@pytest.mark.parametrize("rounds", [20, pytest.param(250, marks=pytest.mark.proof)])
@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.__name__)
def test_with_and_without_the_short_cut(
    mutation: Callable[[bytes, random.Random], bytes], mode: str, rounds: int, soak: int
) -> None:
    """The same pixels, or the same words of refusal, whatever is done to the file."""
    spec, draw = SPECS[mode], random.Random(mutation.__name__ + mode)
    cut_short = 0
    for _ in range(rounds * soak):
        data = mutation(png(mode, draw, draw.random() < 0.5), draw)
        with_it = _told(lambda: decode(data, spec))  # noqa: B023 - called at once
        without = _told(lambda: np.asarray(resized(open_pixels(data, mode), spec)))  # noqa: B023
        assert with_it == without, data
        cut_short += plain_pixels(data, mode, SIZE, SIZE) is not None
    if mutation in (_as_it_is, _filters):
        assert cut_short > 0


def test_the_short_cut_is_for_files_of_exactly_this_kind() -> None:
    draw = random.Random(0)
    for mode, other in (("L", "RGB"), ("RGB", "L")):
        data = png(mode, draw, False)
        assert plain_pixels(data, mode, SIZE, SIZE) is not None
        for no in ((other, SIZE, SIZE), (mode, SIZE, SIZE + 1), (mode, SIZE + 1, SIZE)):
            assert plain_pixels(data, *no) is None
    data = png("L", random.Random(0), False)
    assert decode(data, SPECS["L"], SIZE * SIZE).shape == (SIZE, SIZE)
    with pytest.raises(ImageError):
        decode(data, SPECS["L"], SIZE * SIZE - 1)


def filled(start: bytes, unit: bytes, end: bytes) -> bytes:
    return start + unit * ((LIMIT - len(start) - len(end)) // len(unit)) + end


def _text_that_breaks_off() -> bytes:
    packer = zlib.compressobj(9)
    text = packer.compress(bytes(1_000_000)) + packer.flush(zlib.Z_FULL_FLUSH) + b"\xff\xff"
    return chunk(b"zTXt", b"k\0\0" + text)


def _jpeg(size: int = SIZE, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (size, size), 128).save(buffer, "JPEG", **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def _scans(size: int) -> bytes:
    data = _jpeg(size, progressive=True)
    at = data.rindex(b"\xff\xda")
    return data[:at] + data[at:-2] * 2000 + data[-2:]


IDAT = chunk(b"IDAT", zlib.compress(bytes((SIZE + 1) * SIZE)))
PROFILE = chunk(b"iCCP", b"k\0\0" + zlib.compress(bytes(1_000_000), 9))
JPEG = _jpeg()
BOMBS = {
    "chunks before": lambda: filled(head("L"), chunk(b"abCd"), IDAT + END),
    "chunks behind": lambda: filled(head("L") + IDAT, chunk(b"abCd"), END),
    "empty pixels": lambda: filled(head("L"), chunk(b"IDAT"), IDAT + END),
    "texts that break off": lambda: filled(head("L"), _text_that_breaks_off(), IDAT + END),
    "profiles": lambda: filled(head("L"), PROFILE, IDAT + END),
    "comments": lambda: filled(JPEG[:2], b"\xff\xfe\0\2", JPEG[2:]),
    "applications": lambda: filled(JPEG[:2], b"\xff\xe5\0\2", JPEG[2:]),
    "restarts": lambda: filled(JPEG[:2], b"\xff\xd0", JPEG[2:]),
    "padding": lambda: filled(JPEG[:2], b"\xff", JPEG[2:]),
    "no markers": lambda: filled(JPEG[:2] + b"\xff", b"\0", JPEG[2:]),
    "padding between": lambda: filled(JPEG[:2], b"\xff" * 60_000 + b"\xff\xfe\0\2", JPEG[2:]),
    "scans": lambda: _scans(4999),
    "scans behind junk": lambda: _scans(4999)[:20] + b"x" + _scans(4999)[20:],
}


@pytest.mark.filterwarnings("ignore:::PIL")
@pytest.mark.parametrize("name", BOMBS)
def test_what_would_keep_a_decoder_busy_is_refused_before(name: str) -> None:
    """Each of these takes Pillow from three seconds to an hour."""
    data = BOMBS[name]()
    start = time.process_time()
    with pytest.raises(ImageError) as caught:
        decode(data, SPECS["L"])
    assert time.process_time() - start < 2
    assert "far too many" in caught.value.message


def test_what_cameras_and_programs_write_is_not_excess() -> None:
    profile = Image.new("RGB", (300, 200), (9, 99, 199))
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "x" * 5000
    icc = random.Random(0).randbytes(300_000)  # five segments of a JPEG
    for kind, options in (
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("JPEG", {"restart_marker_blocks": 1}),
        ("JPEG", {"comment": b"\xff\xda" * 1000}),
        ("PNG", {}),
        ("WEBP", {}),
    ):
        buffer = io.BytesIO()
        profile.save(buffer, kind, exif=exif, icc_profile=icc, **options)
        # What phones put behind a picture: a film, in which anything may stand.
        for behind in (b"", b"\xff\xda\xff\xd9" * 5000):
            data = buffer.getvalue() + behind
            progressive = "progressive" in options
            assert decoding_cost_fault(data) == ("scans" if progressive and behind else None)
            if decoding_cost_fault(data) is None:
                assert open_pixels(data, "RGB").size == (200, 300)


def test_a_large_png_in_many_pieces_is_read_and_nothing_behind_its_end() -> None:
    data = png("L", random.Random(0), False) + bytes(LIMIT - 1000)
    assert decode(data, SPECS["L"]).shape == (SIZE, SIZE)
    draw = np.random.default_rng(0)
    buffer = io.BytesIO()
    Image.fromarray(draw.integers(0, 256, (1500, 1500, 3), np.uint8)).save(buffer, "PNG")
    data = buffer.getvalue()
    assert data.count(b"IDAT") > 100
    assert decoding_cost_fault(data) is None
