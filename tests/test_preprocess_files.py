"""What a file is made of: the short cut for plain PNGs changes nothing, excess is seen."""

from __future__ import annotations

import io
import random
import time
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image
from tests.endurance.images import LIMIT, SIGNATURE, chunk, header

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
END = b"\0\0\0\0IEND\xaeB`\x82"
ENDS = (b"", b"IEND", b"\0\0\0\1IENDx", END[:-1], END[:-1] + b"\0", END * 2)
KINDS = "tRNS gAMA tEXt bKGD PLTE abCd IDAT sBIT ABCD pHYs eXIf hIST tIME IHDR acTL iCCP zTXt"


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


def head(mode: str) -> bytes:
    return SIGNATURE + header(SIZE, SIZE, colour={"L": 0, "RGB": 2}[mode])


def packed(data: bytes) -> bytes:
    """What IDAT holds in a file of one IDAT."""
    return data[41:-16]


def odd(mode: str, draw: random.Random) -> bytes:
    """A PNG as an encoder or an accident may write it; each oddity is there now and then."""

    def now(chance: float = 0.12) -> bool:
        return draw.random() < chance

    rows = bytearray(zlib.decompress(packed(png(mode, draw, now(0.5)))))
    for _ in range(draw.randint(1, 5) if now() else 0):
        rows[draw.randrange(SIZE) * (len(rows) // SIZE)] = draw.choice([0, 1, 2, 3, 4, 5, 255])
    if now():
        rows = rows[: draw.randrange(len(rows))] if now(0.5) else rows + bytes(3000)
    window = draw.choice([9, 10, 31, -15]) if now() else 15
    packer = zlib.compressobj(draw.randrange(10), 8, window, draw.randint(1, 9), draw.randrange(5))
    body = bytearray(packer.compress(rows) + packer.flush())
    last = 4 if now(0.3) else len(body)  # the checksum alone, or anywhere
    for _ in range(draw.randint(1, 3) if now() else 0):
        body[-draw.randint(1, last)] ^= 1 << draw.randrange(8)
    if now():
        body = body[: -draw.randint(1, 30)] if now(0.5) else body + draw.randbytes(9)
    size = draw.choice([1, 2, 50, 400]) if now() else len(body)
    pieces = [chunk(b"IDAT", bytes(body[at : at + size])) for at in range(0, len(body), size)]
    for _ in range(draw.randint(1, 2) if now() else 0):
        kind = draw.choice(KINDS.split()).encode()
        extra = chunk(kind, draw.randbytes(draw.choice([0, 1, 2, 9])))
        pieces.insert(draw.choice([0, len(pieces)]), extra)
    data = bytearray(head(mode) + b"".join(pieces) + (draw.choice(ENDS) if now() else END))
    for _ in range(draw.randint(1, 4) if now() else 0):
        data[draw.randrange(len(data))] = draw.randrange(256)
    if now():
        data = data[: draw.randrange(len(data))] if now(0.5) else data + draw.randbytes(40)
    return bytes(data)


def _told(read: Callable[[], np.ndarray]) -> tuple[object, ...]:
    try:
        pixels = read()
    except ImageError as error:
        return error.message, error.hint
    return pixels.shape, pixels.dtype, pixels.tobytes()


@pytest.mark.filterwarnings("ignore:::PIL")
@pytest.mark.parametrize("rounds", [250, pytest.param(3000, marks=pytest.mark.proof)])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_with_and_without_the_short_cut(mode: str, rounds: int, soak: int) -> None:
    """The same pixels, or the same words of refusal, whatever is odd about the file."""
    spec, draw = SPECS[mode], random.Random(mode)
    cut_short = 0
    for _ in range(rounds * soak):
        data = odd(mode, draw)
        with_it = _told(lambda: decode(data, spec))  # noqa: B023 - called at once
        without = _told(lambda: np.asarray(resized(open_pixels(data, mode), spec)))  # noqa: B023
        assert with_it == without, data
        cut_short += plain_pixels(data, mode, SIZE, SIZE) is not None
    assert 0 < cut_short < rounds * soak


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
