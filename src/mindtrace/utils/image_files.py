"""Floor 0: what an image file is made of, seen without decoding it.

In: the bytes of a file. Out: the pixels of the plainest small PNGs, read by Pillow's own
decoder without the rest of Pillow; the reason why a file would keep a decoder busy for
longer than its size is worth; and what a file is besides an image.
"""

from __future__ import annotations

import functools
import re
import struct
import zlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# Pillow reads so much of a PNG at once, and gives it to its decoder in one piece.
_ONE_PIECE = 65_536
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_END = b"\0\0\0\0IEND\xaeB`\x82"
_COLOUR_TYPES = {"L": 0, "RGB": 2}
_CHUNK = struct.Struct(">I4s")
# Chunks that Pillow inflates, to a megabyte each, whether anybody reads them or not.
_PACKED = frozenset({b"zTXt", b"iTXt", b"iCCP"})
_MAX_CHUNKS, _MAX_PACKED = 16_384, 64

_MARKER = re.compile(rb"\xff([^\x00\xff])")
# Markers of JPEG that stand alone; a length follows all others.
_ALONE = frozenset([0x01, 0xC8, *range(0xD0, 0xDA), *range(0xF0, 0xFE)])
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_ONE_BY_ONE = frozenset({0xC0, 0xC1})
_SCAN = b"\xff\xda"
_MAX_SEGMENTS, _MAX_SCANS, _MAX_GAPS = 4096, 64, 65_536

# The end of a ZIP archive on one disk, and how far from the end of a file it may stand.
_ZIP, _ZIP_REACH = b"PK\x05\x06\0\0\0\0", 65_557
# Readers of PDF look for its start in so many bytes.
_PDF, _NEAR = b"%PDF-", 1024
_PAGE = re.compile(rb"<(?:!doctype|html|head|body|script|svg|iframe|\?php)", re.IGNORECASE)


def plain_pixels(data: bytes, mode: str, height: int, width: int) -> NDArray[np.uint8] | None:
    """The pixels of a small PNG of exactly this kind, with one IDAT and nothing else.

    A PNG that is anything else, or damaged, is left to Pillow as a whole: it alone
    decides what is refused, and how. The pixels are those that it would have given,
    because its own decoder makes them from the same bytes.

    Args:
        data: the whole file.
        mode: `L` or `RGB`, of 8 bits.
        height: pixels.
        width: pixels.

    Returns:
        uint8, (height, width) for `L`, (height, width, 3) for `RGB`; None for any other file.
    """
    size = len(data) - 57  # of what is packed: signature, IHDR, the frame of IDAT, IEND are 57
    if not (data.startswith(_plain_head(mode, height, width)) and 0 < size <= _ONE_PIECE):
        return None
    if _CHUNK.unpack_from(data, 33) != (size, b"IDAT") or not data.endswith(_END):
        return None
    if _ZIP in data or _PDF in data:
        return None
    try:
        image = Image.frombytes(mode, (width, height), data[41:-16], "zip", mode)
    except ValueError:
        return None
    pixels = np.frombuffer(image.tobytes(), np.uint8)
    return pixels.reshape((height, width) if mode == "L" else (height, width, 3))


@functools.lru_cache(maxsize=32)
def _plain_head(mode: str, height: int, width: int) -> bytes:
    """How such a PNG begins: its signature and all of IHDR; 33 bytes."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, _COLOUR_TYPES[mode], 0, 0, 0)
    return _SIGNATURE + b"\0\0\0\x0d" + header + struct.pack(">I", zlib.crc32(header))


def excess(data: bytes) -> str | None:
    """What a file has so much of that its decoder would be busy for seconds, or None.

    A megabyte can hold a hundred thousand chunks that say nothing, or scans of a JPEG that
    each go over the whole image. No camera and no program writes such files.
    """
    if data.startswith(_SIGNATURE):
        return _excess_of_png(data)
    if data.startswith(b"\xff\xd8\xff"):
        return _excess_of_jpeg(data)
    return None


def _excess_of_png(data: bytes) -> str | None:
    at, chunks, packed = 8, 0, 0
    while at + 8 <= len(data):
        length, kind = _CHUNK.unpack_from(data, at)
        if kind == b"IEND":
            return None  # nobody reads what is behind it
        at += 12 + length
        chunks += 1
        packed += kind in _PACKED
        if chunks > _MAX_CHUNKS or packed > _MAX_PACKED:
            return "chunks"
    return None


def _excess_of_jpeg(data: bytes) -> str | None:
    at, gaps, frame = 2, 0, b""
    for _ in range(_MAX_SEGMENTS):
        found = _MARKER.search(data, at, at + _MAX_GAPS)
        if found is None:
            # Pillow walks over what is no marker byte by byte.
            return "bytes between its segments" if len(data) - at >= _MAX_GAPS else None
        marker, gaps = found[1][0], gaps + found.end() - at - 2
        if gaps > _MAX_GAPS:
            return "bytes between its segments"
        at = found.end()
        if marker in _ALONE:
            continue
        if marker in _FRAMES:
            frame = bytes([marker]) + data[at + 7 : at + 8]
        if marker == _SCAN[1]:
            return _excess_of_scans(data, at, frame if gaps == 0 else b"")
        at += max(2, int.from_bytes(data[at : at + 2]))
    return "segments"


def _excess_of_scans(data: bytes, at: int, frame: bytes) -> str | None:
    """Judge what begins at the first scan; `frame` is its kind and count of components."""
    if len(frame) == 2 and frame[0] in _ONE_BY_ONE and data[at + 2 : at + 3] == frame[1:]:
        return None  # one scan has all, and what follows it is not read
    return "scans" if data.count(_SCAN, at) >= _MAX_SCANS else None


def stowaway(data: bytes) -> str | None:
    """What an image file is as well, for another program; None if it is an image alone.

    Such files are made to pass as an image where that is asked for, and to be opened as
    something else later. What cameras put behind an image, as small pictures and films,
    is no such thing.
    """
    if _ZIP in data[-_ZIP_REACH:]:
        return "a ZIP archive"
    end = _end_of_image(data)
    if _PDF in data[:_NEAR] or _PDF in data[end : end + _NEAR]:
        return "a PDF document"
    if b"Rar!\x1a\x07" in data[end : end + _NEAR]:
        return "a RAR archive"
    return "a web page" if _PAGE.search(data, end, end + _NEAR) else None


def _end_of_image(data: bytes) -> int:
    """Where an image ends for those who look at it; the end of the file if that is unclear."""
    if data.startswith(_SIGNATURE):
        at = data.find(_END)
        return at + len(_END) if at >= 0 else len(data)
    if data.startswith(b"\xff\xd8\xff"):
        at = data.rfind(b"\xff\xd9")
        return at + 2 if at >= 0 else len(data)
    if data.startswith(b"RIFF"):
        return 8 + int.from_bytes(data[4:8], "little")
    return len(data)
