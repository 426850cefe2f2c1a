"""Requests that no client library would send, byte by byte, and what must become of them."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

OK, REFUSED, ANY = "200 each", "no 2xx", "any answer or none"


@dataclass
class Attack:
    """What is sent on one connection.

    Attributes:
        name: of its kind.
        pieces: sent one after the other.
        answers: `OK` with their number, `REFUSED` or `ANY`.
        count: of answers, where that is known.
        complete: whether the server has all it needs; else we hang up after it.
        ids: request ids that the answers must carry, in this order.
    """

    name: str
    pieces: list[bytes]
    answers: str = ANY
    count: int = 1
    complete: bool = True
    ids: list[bytes] = field(default_factory=list)


Make = Callable[[random.Random, "Words"], Attack]


@dataclass(frozen=True)
class Words:
    """What attacks are made of.

    Attributes:
        host: the value of a right Host header.
        image: a good image file.
    """

    host: bytes
    image: bytes

    @property
    def body(self) -> bytes:
        """A good body."""
        return json.dumps({"image": base64.b64encode(self.image).decode()}).encode()

    def head(self, *lines: bytes, method: bytes = b"POST", path: bytes = b"/inference") -> bytes:
        """A head that ends; Content-Type is JSON."""
        usual = (b"host: " + self.host, b"content-type: application/json")
        return b"\r\n".join((method + b" " + path + b" HTTP/1.1", *usual, *lines, b"", b""))

    def good(self, *lines: bytes) -> bytes:
        """A good request."""
        return self.head(b"content-length: %d" % len(self.body), *lines) + self.body


def attacks(seed: int, count: int, words: Words) -> Iterator[Attack]:
    """So many, the same ones for the same seed, every kind in turn."""
    draw = random.Random(seed)
    for number in range(count):
        yield _KINDS[number % len(_KINDS)](draw, words)


def _pipelined(draw: random.Random, words: Words) -> Attack:
    count = draw.randint(2, 40)
    ids = [b"id-%d" % number for number in range(count)]
    requests = [_one(draw, words, one) for one in ids]
    return Attack("pipelined", _cut(draw, b"".join(requests)), OK, count, ids=ids)


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


def _pieces(draw: random.Random, words: Words) -> Attack:
    return Attack("in pieces", _cut(draw, words.good(), 12), OK)


def _chunked(draw: random.Random, words: Words) -> Attack:
    body, parts = words.body, []
    while body:
        size = draw.choice((1, 2, 7, 100))
        part, body = body[:size], body[size:]
        extension = draw.choice((b"", b";a=b", b';a="c d"', b"  "))
        parts.append(b"%x%s\r\n%s\r\n" % (len(part), extension.strip(), part))
    end = draw.choice((b"0\r\n\r\n", b"000\r\n\r\n", b"0\r\nx-trailer: 1\r\n\r\n"))
    request = words.head(b"transfer-encoding: chunked") + b"".join(parts) + end
    return Attack("chunked", _cut(draw, request), OK)


def _bad_chunk(draw: random.Random, words: Words) -> Attack:
    bad = (b"zz", b"-1", b"0x10", b"ffffffffffffffffff", b"", b"1;" + b"x" * 30_000, b"5\n", b" 5")
    size = draw.choice(bad)
    return Attack(
        "bad chunk size",
        [
            words.head(b"transfer-encoding: chunked")
            + size
            + b"\r\n"
            + words.body
            + b"\r\n0\r\n\r\n"
        ],
        REFUSED,
    )


def _endless_chunks(draw: random.Random, words: Words) -> Attack:
    chunk = b"%x\r\n%s\r\n" % (65_536, b" " * 65_536)
    head = words.head(b"transfer-encoding: chunked")
    return Attack("17 MiB in chunks", [head, *[chunk * 16] * 17], REFUSED, complete=False)


def _two_lengths(draw: random.Random, words: Words) -> Attack:
    length = len(words.body)
    other = draw.choice((0, 1, length - 1, length + 1))
    pair = draw.choice(
        (
            (b"content-length: %d" % length, b"content-length: %d" % other),
            (b"content-length: %d, %d" % (length, other),),
            (b"content-length: %d" % length, b"transfer-encoding: chunked"),
            (b"transfer-encoding: chunked", b"content-length: %d" % length),
            (b"transfer-encoding: chunked, identity",),
            (b"transfer-encoding: xchunked",),
            (b"transfer-encoding : chunked",),
            (b"content-length: %d" % length, b"transfer-encoding: gzip, chunked"),
        )
    )
    return Attack("two lengths", [words.head(*pair) + words.body], REFUSED, complete=False)


def _strange_length(draw: random.Random, words: Words) -> Attack:
    value = draw.choice((b"-1", b"+5", b"0x10", b"1e3", b"5 5", b"", b"9" * 30, b"99999999999999"))
    return Attack("strange length", [words.head(b"content-length: " + value) + words.body], REFUSED)


def _many_headers(draw: random.Random, words: Words) -> Attack:
    count = draw.choice((2_000, 20_000))
    lines = [b"x-%d: %s" % (number, b"v" * draw.choice((0, 1, 30))) for number in range(count)]
    return Attack("many headers", [words.good(*lines)], REFUSED)


def _long_header(draw: random.Random, words: Words) -> Attack:
    size = draw.choice((17_000, 70_000, 1_000_000))
    line = draw.choice((b"x-long: ", b"cookie: ", b"x-request-id: ", b"authorization: Bearer "))
    return Attack("a long header", [words.good(line + b"a" * size)], REFUSED)


def _long_path(draw: random.Random, words: Words) -> Attack:
    path = draw.choice((b"/" + b"a" * 50_000, b"/inference?" + b"a=b&" * 20_000, b"/%00" * 9_000))
    return Attack("a long path", [words.head(method=b"GET", path=path)], REFUSED)


def _endless_head(draw: random.Random, words: Words) -> Attack:
    start = b"POST /inference HTTP/1.1\r\nhost: " + words.host + b"\r\nx-endless: "
    return Attack("an endless head", [start, *[b"y" * 65_536] * 8], REFUSED, complete=False)


def _strange_path(draw: random.Random, words: Words) -> Attack:
    path = draw.choice(
        (
            b"//inference", b"/inference/", b"/./inference", b"/../../etc/passwd", b"inference",
            b"/models/%00", b"/models/..%2f..", b"/jobs/%ff%fe", b"/models/\xff", b"*",
            b"http://evil.example/models", b"/static/../api.py", b"/static/%2e%2e/api.py",
            b"/models/a/versions/1e999", b"/models/a/versions/" + b"9" * 5000,
            b"/jobs/" + b"a" * 5000, b"/models/a/versions?cursor=" + b"9" * 400, b"/v2/models/%2f",
        )
    )  # fmt: skip
    method = draw.choice((b"GET", b"HEAD", b"OPTIONS"))
    return Attack("a strange path", [words.head(method=method, path=path)])


def _strange_method(draw: random.Random, words: Words) -> Attack:
    method = draw.choice(
        (b"FOO", b"get", b"POST\x00", b"", b"PRI", b"TRACE", b"CONNECT", b"PROPFIND", b"M" * 9_000)
    )
    return Attack("a strange method", [words.head(method=method)], complete=False)


def _strange_version(draw: random.Random, words: Words) -> Attack:
    version = draw.choice(
        (b"HTTP/0.9", b"HTTP/1.0", b"HTTP/2.0", b"HTTP/9.9", b"http/1.1", b"X", b"")
    )
    return Attack(
        "a strange version", [words.good().replace(b"HTTP/1.1", version, 1)], complete=False
    )


def _host(draw: random.Random, words: Words) -> Attack:
    line = b"host: " + words.host + b"\r\n"
    other = draw.choice(
        (b"", b"host: evil.example\r\n", line + b"host: evil.example\r\n", line + line,
         b"host:\r\n", b"host: " + b"h" * 9_000 + b"\r\n", b" " + line, b"host: a b\r\n")
    )  # fmt: skip
    return Attack("a strange host", [words.good().replace(line, other, 1)], REFUSED)


def _header_line(draw: random.Random, words: Words) -> Attack:
    line = draw.choice(
        (b"x: a\r\n folded", b"no colon", b": no name", b"x\x00y: z", b"x: a\x00b", b"x: a\rb",
         b"x y: z", b"x:\x7f\x01", b"\xff\xfe: a", b"x-request-id: a\x00b", b"(x): y")
    )  # fmt: skip
    return Attack("a strange header line", [words.good(line)])


def _line_feeds(draw: random.Random, words: Words) -> Attack:
    return Attack("line feeds alone", [words.good().replace(b"\r\n", b"\n")], complete=False)


def _leading(draw: random.Random, words: Words) -> Attack:
    start = draw.choice((b"\r\n", b"\r\n" * 5, b"\n", b" ", b"\x00", b"\x16\x03\x01\x02\x00\x01"))
    return Attack("something before it", [start + words.good()], complete=False)


def _empty_lines(draw: random.Random, words: Words) -> Attack:
    return Attack("nothing but empty lines", [b"\r\n" * 30_000] * 2, complete=False)


def _http2(draw: random.Random, words: Words) -> Attack:
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
    return Attack("HTTP/2", [preface], REFUSED, complete=False)


def _upgrade(draw: random.Random, words: Words) -> Attack:
    lines = draw.choice(
        (
            (b"upgrade: websocket", b"connection: upgrade", b"sec-websocket-version: 13",
             b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ=="),
            (b"upgrade: h2c", b"connection: upgrade, http2-settings", b"http2-settings: AAMAAABk"),
        )
    )  # fmt: skip
    return Attack("an upgrade", [words.head(*lines, method=b"GET", path=b"/models")])


def _hundred(draw: random.Random, words: Words) -> Attack:
    expect = draw.choice((b"100-continue", b"100-Continue", b"200-maybe"))
    request = words.head(b"content-length: %d" % len(words.body), b"expect: " + expect)
    return Attack("expects a word", [request, words.body])


def _cut_off(draw: random.Random, words: Words) -> Attack:
    request = words.good()
    return Attack("cut off", [request[: draw.randrange(len(request))]], REFUSED, complete=False)


def _garbage(draw: random.Random, words: Words) -> Attack:
    return Attack("garbage", [draw.randbytes(draw.randint(1, 3000))], REFUSED, complete=False)


def _after(draw: random.Random, words: Words) -> Attack:
    return Attack(
        "garbage after a request", [words.good() + draw.randbytes(200)], ANY, complete=False
    )


def _flipped(draw: random.Random, words: Words) -> Attack:
    request = bytearray(words.good(b"accept: */*"))
    for _ in range(draw.randint(1, 4)):
        request[draw.randrange(len(request))] ^= 1 << draw.randrange(8)
    return Attack("bits flipped", [bytes(request)], complete=False)


def _lying_length(draw: random.Random, words: Words) -> Attack:
    less = words.head(b"content-length: %d" % draw.randint(0, 20)) + words.body
    return Attack("more than it said", [less], complete=False)


def _deaf_pipeline(draw: random.Random, words: Words) -> Attack:
    return Attack("hangs up on its answers", [words.good() * 300], complete=False)


def _headers_twice(draw: random.Random, words: Words) -> Attack:
    line = draw.choice(
        (
            b"content-type: image/png",
            b"authorization: a\r\nauthorization: b",
            b"origin: http://evil.example\r\norigin: http://" + words.host,
        )
    )
    return Attack("a header twice", [words.good(line)], REFUSED)


def _content_type(draw: random.Random, words: Words) -> Attack:
    kind = draw.choice(
        (b"", b"application/json; charset=utf-16", b"text/json", b"image/*", b"*/*", b"text/plain",
         b"multipart/form-data", b"multipart/form-data; boundary=", b"application/octet-stream",
         b"multipart/form-data; boundary=x", b"multipart/form-data; boundary=" + b"b" * 5_000,
         b"application/json\x00", b"image/svg+xml", b"application/x-www-form-urlencoded",
         b"application/json, image/png")
    )  # fmt: skip
    request = words.good().replace(b"content-type: application/json", b"content-type: " + kind)
    return Attack("another content type", [request])


def _multipart(draw: random.Random, words: Words) -> Attack:
    part = b'--b\r\ncontent-disposition: form-data; name="image"; filename="a"\r\n\r\n'
    field = b'--b\r\ncontent-disposition: form-data; name="x"\r\n\r\ny\r\n'
    body = draw.choice(
        (
            part * 2000, part + words.image, part + words.image + b"\r\n--b--\r\n",
            field * 5000 + b"--b--\r\n", b"--b\r\n" + b"x: y\r\n" * 20_000 + b"\r\n\r\n--b--\r\n",
            part.replace(b"image", b"i" * 100_000) + b"\r\n--b--\r\n", b"--b--\r\n", b"",
        )
    )  # fmt: skip
    head = words.head(b"content-length: %d" % len(body))
    request = head.replace(b"application/json", b"multipart/form-data; boundary=b") + body
    return Attack("a form", [request])


def _cut(draw: random.Random, data: bytes, pieces: int = 3) -> list[bytes]:
    marks = sorted(draw.randrange(len(data) + 1) for _ in range(draw.randrange(pieces)))
    return [data[a:b] for a, b in zip([0, *marks], [*marks, len(data)], strict=True) if a < b]


_KINDS: tuple[Make, ...] = (
    _pipelined,
    _pieces,
    _chunked,
    _bad_chunk,
    _endless_chunks,
    _two_lengths,
    _strange_length,
    _many_headers,
    _long_header,
    _long_path,
    _endless_head,
    _strange_path,
    _strange_method,
    _strange_version,
    _host,
    _header_line,
    _line_feeds,
    _leading,
    _empty_lines,
    _http2,
    _upgrade,
    _hundred,
    _cut_off,
    _garbage,
    _after,
    _flipped,
    _lying_length,
    _deaf_pipeline,
    _headers_twice,
    _content_type,
    _multipart,
)
