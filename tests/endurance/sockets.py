"""Requests that no client library would send, byte by byte: every kind in turn."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from tests.endurance import framing, heads
from tests.endurance.attack import Attack, Words

Make = Callable[[random.Random, Words], Attack]
KINDS: tuple[Make, ...] = (
    framing.pipelined,
    framing.pieces,
    framing.chunked,
    framing.bad_chunk,
    framing.endless_chunks,
    framing.two_lengths,
    framing.strange_length,
    framing.hundred,
    framing.cut_off,
    framing.garbage,
    framing.after,
    framing.flipped,
    framing.lying_length,
    framing.deaf_pipeline,
    framing.content_type,
    framing.multipart,
    heads.many_headers,
    heads.long_header,
    heads.long_path,
    heads.endless_head,
    heads.strange_path,
    heads.strange_method,
    heads.strange_version,
    heads.host,
    heads.header_line,
    heads.line_feeds,
    heads.leading,
    heads.empty_lines,
    heads.http2,
    heads.upgrade,
    heads.headers_twice,
)


def attacks(seed: int, count: int, words: Words) -> Iterator[Attack]:
    """So many, the same ones for the same seed, every kind in turn."""
    draw = random.Random(seed)
    for number in range(count):
        yield KINDS[number % len(KINDS)](draw, words)
