"""Requests that no client library would send, byte by byte: every kind in turn."""

from __future__ import annotations

import base64
import itertools
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

OK, REFUSED, ANY = "200 each", "no 2xx", "any answer or none"
# What each of the kinds sends; `Attack.complete` says whether the server has all it needs.
Kind = tuple[str, bool, Callable[[random.Random], list[bytes]]]


@dataclass
class Attack:
    """What is sent on one connection, piece by piece; if it is not complete, we hang up then."""

    name: str
    answers: str
    complete: bool
    pieces: list[bytes]
    ids: list[bytes] = field(default_factory=list)  # request ids of the answers, in this order


class Words:
    """What attacks are made of: the right Host and a good image."""

    def __init__(self, host: bytes, image: bytes) -> None:
        self.host, self.image = host, image
        self.body = json.dumps({"image": base64.b64encode(image).decode()}).encode()

    def head(self, *lines: bytes, method: bytes = b"POST", path: bytes = b"/inference") -> bytes:
        """A head that ends; Content-Type is JSON."""
        usual = (b"host: " + self.host, b"content-type: application/json")
        return b"\r\n".join((method + b" " + path + b" HTTP/1.1", *usual, *lines, b"", b""))

    def good(self, *lines: bytes) -> bytes:
        """A good request."""
        return self.head(b"content-length: %d" % len(self.body), *lines) + self.body

    def chunked(self, rest: bytes) -> bytes:
        """A request whose body comes in chunks."""
        return self.head(b"transfer-encoding: chunked") + rest

    def changed(self, old: bytes, *new: bytes) -> list[bytes]:
        """Good requests with something else in one place."""
        return [self.good().replace(old, one, 1) for one in new]


def attacks(seed: int, count: int, words: Words) -> Iterator[Attack]:
    """So many, the same ones for the same seed, every kind in turn."""
    draw = random.Random(seed)
    kinds = {**_listed(words), **_drawn(words)}
    for number, name in zip(range(count), itertools.cycle(("pipelined", *kinds))):
        if name == "pipelined":
            ids = [b"id-%d" % one for one in range(draw.randint(2, 40))]
            requests = b"".join(_one(draw, words, one) for one in ids)
            yield Attack(name, OK, True, _cut(draw, requests), ids)
        else:
            answers, complete, make = kinds[name]
            yield Attack(f"{number}, {name}", answers, complete, make(draw))


def _one_of(*variants: bytes | list[bytes]) -> Callable[[random.Random], list[bytes]]:
    def make(draw: random.Random) -> list[bytes]:
        found = draw.choice(variants)
        return found if isinstance(found, list) else [found]

    return make


def _cut(draw: random.Random, data: bytes, pieces: int = 3) -> list[bytes]:
    marks = sorted(draw.randrange(len(data) + 1) for _ in range(draw.randrange(pieces)))
    return [data[a:b] for a, b in zip([0, *marks], [*marks, len(data)], strict=True) if a < b]


def _one(draw: random.Random, words: Words, name: bytes) -> bytes:
    """A good request by one of several ways, slow and quick ones."""
    line = b"x-request-id: " + name
    way = draw.randrange(4)
    if way == 0:
        return words.head(line, method=b"GET", path=b"/healthz/live")
    if way == 1:
        raw = words.head(line, b"content-length: %d" % len(words.image))
        return raw.replace(b"application/json", b"image/png") + words.image
    if way == 2:
        body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(words.body), words.body)
        return words.head(line, b"transfer-encoding: chunked") + body
    return words.good(line)


def _drawn(words: Words) -> dict[str, Kind]:
    """Where an attack is drawn, and not one of a few."""
    good, body = words.good(), words.body

    def chunked(draw: random.Random) -> list[bytes]:
        parts, left = [], body
        while left:
            size = draw.choice((1, 2, 7, 100))
            part, left = left[:size], left[size:]
            extension = draw.choice((b"", b";a=b", b';a="c d"'))
            parts.append(b"%x%s\r\n%s\r\n" % (len(part), extension, part))
        end = draw.choice((b"0\r\n\r\n", b"000\r\n\r\n", b"0\r\nx-trailer: 1\r\n\r\n"))
        return _cut(draw, words.chunked(b"".join(parts) + end))

    def flipped(draw: random.Random) -> list[bytes]:
        request = bytearray(words.good(b"accept: */*"))
        for _ in range(draw.randint(1, 4)):
            request[draw.randrange(len(request))] ^= 1 << draw.randrange(8)
        return [bytes(request)]

    def lying(draw: random.Random) -> list[bytes]:
        return [words.head(b"content-length: %d" % draw.randint(0, 20)) + body]

    return {
        "in pieces": (OK, True, lambda draw: _cut(draw, good, 12)),
        "chunked": (OK, True, chunked),
        "cut off": (REFUSED, False, lambda draw: [good[: draw.randrange(len(good))]]),
        "garbage": (REFUSED, False, lambda draw: [draw.randbytes(draw.randint(1, 3000))]),
        "garbage after a request": (ANY, False, lambda draw: [good + draw.randbytes(200)]),
        "bits flipped": (ANY, False, flipped),
        "more than it said": (ANY, False, lying),
    }


def _listed(words: Words) -> dict[str, Kind]:
    """What is one of a few; `test_protocol.py` has those with an answer of their own."""
    head, good = words.head, words.good
    types = (
        b"", b"application/json; charset=utf-16", b"text/json", b"image/*", b"*/*", b"text/plain",
        b"multipart/form-data", b"multipart/form-data; boundary=", b"application/octet-stream",
        b"multipart/form-data; boundary=x", b"multipart/form-data; boundary=" + b"b" * 5_000,
        b"application/json\x00", b"image/svg+xml", b"application/x-www-form-urlencoded",
        b"application/json, image/png"
    )  # fmt: skip
    part = b'--b\r\ncontent-disposition: form-data; name="image"; filename="a"\r\n\r\n'
    field = b'--b\r\ncontent-disposition: form-data; name="x"\r\n\r\ny\r\n'
    forms = (
        part * 2000, part + words.image, part + words.image + b"\r\n--b--\r\n",
        field * 5000 + b"--b--\r\n", b"--b\r\n" + b"x: y\r\n" * 20_000 + b"\r\n\r\n--b--\r\n",
        part.replace(b"image", b"i" * 100_000) + b"\r\n--b--\r\n", b"--b--\r\n", b"",
    )  # fmt: skip

    def form(content: bytes) -> bytes:
        request = head(b"content-length: %d" % len(content)) + content
        return request.replace(b"application/json", b"multipart/form-data; boundary=b", 1)

    paths = (
        b"//inference", b"/inference/", b"/./inference", b"/../../etc/passwd", b"inference",
        b"/models/%00", b"/models/..%2f..", b"/jobs/%ff%fe", b"/models/\xff", b"*",
        b"http://evil.example/models", b"/static/../api.py", b"/static/%2e%2e/api.py",
        b"/models/a/versions/1e999", b"/models/a/versions/" + b"9" * 5000,
        b"/jobs/" + b"a" * 5000, b"/models/a/versions?cursor=" + b"9" * 400, b"/v2/models/%2f",
    )  # fmt: skip
    asking = (b"GET", b"HEAD", b"OPTIONS")
    strange = [head(method=m, path=p) for m, p in itertools.product(asking, paths)]
    methods = (
        b"FOO", b"get", b"POST\x00", b"", b"PRI", b"TRACE", b"CONNECT", b"PROPFIND", b"M" * 9_000
    )  # fmt: skip
    lines = (
        b"x: a\r\n folded", b"no colon", b": no name", b"x\x00y: z", b"x: a\x00b", b"x: a\rb",
        b"x y: z", b"x:\x7f\x01", b"\xff\xfe: a", b"x-request-id: a\x00b", b"(x): y",
        b"expect: 200-maybe",
    )  # fmt: skip
    starts = (b"\r\n", b"\r\n" * 5, b"\n", b" ", b"\x00", b"\x16\x03\x01\x02\x00\x01")
    endless = b"POST /inference HTTP/1.1\r\nhost: " + words.host + b"\r\nx-endless: "
    chunk = b"%x\r\n%s\r\n" % (65_536, b" " * 65_536)
    typed = words.changed(
        b"content-type: application/json", *(b"content-type: " + one for one in types)
    )
    return {
        "an endless head": (REFUSED, False, _one_of([endless, *[b"y" * 65_536] * 8])),
        "17 MiB in chunks": (REFUSED, False, _one_of([words.chunked(b""), *[chunk * 16] * 17])),
        "hangs up on its answers": (ANY, False, _one_of(good() * 300)),
        "another content type": (ANY, True, _one_of(*typed)),
        "a form": (ANY, True, _one_of(*map(form, forms))),
        "a strange path": (ANY, True, _one_of(*strange)),
        "a strange method": (ANY, False, _one_of(*(head(method=method) for method in methods))),
        "a strange header line": (ANY, True, _one_of(*(good(line) for line in lines))),
        "something before it": (ANY, False, _one_of(*(start + good() for start in starts))),
    }
