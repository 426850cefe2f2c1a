"""Attacks on where a request ends: lengths, chunks, pipelines, bodies, bytes without sense."""

from __future__ import annotations

import random

from tests.endurance.attack import ANY, OK, REFUSED, Attack, Words


def pipelined(draw: random.Random, words: Words) -> Attack:
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


def pieces(draw: random.Random, words: Words) -> Attack:
    return Attack("in pieces", _cut(draw, words.good(), 12), OK)


def chunked(draw: random.Random, words: Words) -> Attack:
    body, parts = words.body, []
    while body:
        size = draw.choice((1, 2, 7, 100))
        part, body = body[:size], body[size:]
        extension = draw.choice((b"", b";a=b", b';a="c d"', b"  "))
        parts.append(b"%x%s\r\n%s\r\n" % (len(part), extension.strip(), part))
    end = draw.choice((b"0\r\n\r\n", b"000\r\n\r\n", b"0\r\nx-trailer: 1\r\n\r\n"))
    request = words.head(b"transfer-encoding: chunked") + b"".join(parts) + end
    return Attack("chunked", _cut(draw, request), OK)


def bad_chunk(draw: random.Random, words: Words) -> Attack:
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


def endless_chunks(draw: random.Random, words: Words) -> Attack:
    chunk = b"%x\r\n%s\r\n" % (65_536, b" " * 65_536)
    head = words.head(b"transfer-encoding: chunked")
    return Attack("17 MiB in chunks", [head, *[chunk * 16] * 17], REFUSED, complete=False)


def two_lengths(draw: random.Random, words: Words) -> Attack:
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


def strange_length(draw: random.Random, words: Words) -> Attack:
    value = draw.choice((b"-1", b"+5", b"0x10", b"1e3", b"5 5", b"", b"9" * 30, b"99999999999999"))
    return Attack("strange length", [words.head(b"content-length: " + value) + words.body], REFUSED)


def hundred(draw: random.Random, words: Words) -> Attack:
    expect = draw.choice((b"100-continue", b"100-Continue", b"200-maybe"))
    request = words.head(b"content-length: %d" % len(words.body), b"expect: " + expect)
    return Attack("expects a word", [request, words.body])


def cut_off(draw: random.Random, words: Words) -> Attack:
    request = words.good()
    return Attack("cut off", [request[: draw.randrange(len(request))]], REFUSED, complete=False)


def garbage(draw: random.Random, words: Words) -> Attack:
    return Attack("garbage", [draw.randbytes(draw.randint(1, 3000))], REFUSED, complete=False)


def after(draw: random.Random, words: Words) -> Attack:
    return Attack(
        "garbage after a request", [words.good() + draw.randbytes(200)], ANY, complete=False
    )


def flipped(draw: random.Random, words: Words) -> Attack:
    request = bytearray(words.good(b"accept: */*"))
    for _ in range(draw.randint(1, 4)):
        request[draw.randrange(len(request))] ^= 1 << draw.randrange(8)
    return Attack("bits flipped", [bytes(request)], complete=False)


def lying_length(draw: random.Random, words: Words) -> Attack:
    less = words.head(b"content-length: %d" % draw.randint(0, 20)) + words.body
    return Attack("more than it said", [less], complete=False)


def deaf_pipeline(draw: random.Random, words: Words) -> Attack:
    return Attack("hangs up on its answers", [words.good() * 300], complete=False)


def content_type(draw: random.Random, words: Words) -> Attack:
    kind = draw.choice(
        (b"", b"application/json; charset=utf-16", b"text/json", b"image/*", b"*/*", b"text/plain",
         b"multipart/form-data", b"multipart/form-data; boundary=", b"application/octet-stream",
         b"multipart/form-data; boundary=x", b"multipart/form-data; boundary=" + b"b" * 5_000,
         b"application/json\x00", b"image/svg+xml", b"application/x-www-form-urlencoded",
         b"application/json, image/png")
    )  # fmt: skip
    request = words.good().replace(b"content-type: application/json", b"content-type: " + kind)
    return Attack("another content type", [request])


def multipart(draw: random.Random, words: Words) -> Attack:
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
