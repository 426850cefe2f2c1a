"""Attacks on the head of a request: too long, too many, twice, and from another protocol."""

from __future__ import annotations

import random

from tests.endurance.attack import REFUSED, Attack, Words


def many_headers(draw: random.Random, words: Words) -> Attack:
    count = draw.choice((2_000, 20_000))
    lines = [b"x-%d: %s" % (number, b"v" * draw.choice((0, 1, 30))) for number in range(count)]
    return Attack("many headers", [words.good(*lines)], REFUSED)


def long_header(draw: random.Random, words: Words) -> Attack:
    size = draw.choice((17_000, 70_000, 1_000_000))
    line = draw.choice((b"x-long: ", b"cookie: ", b"x-request-id: ", b"authorization: Bearer "))
    return Attack("a long header", [words.good(line + b"a" * size)], REFUSED)


def long_path(draw: random.Random, words: Words) -> Attack:
    path = draw.choice((b"/" + b"a" * 50_000, b"/inference?" + b"a=b&" * 20_000, b"/%00" * 9_000))
    return Attack("a long path", [words.head(method=b"GET", path=path)], REFUSED)


def endless_head(draw: random.Random, words: Words) -> Attack:
    start = b"POST /inference HTTP/1.1\r\nhost: " + words.host + b"\r\nx-endless: "
    return Attack("an endless head", [start, *[b"y" * 65_536] * 8], REFUSED, complete=False)


def strange_path(draw: random.Random, words: Words) -> Attack:
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


def strange_method(draw: random.Random, words: Words) -> Attack:
    method = draw.choice(
        (b"FOO", b"get", b"POST\x00", b"", b"PRI", b"TRACE", b"CONNECT", b"PROPFIND", b"M" * 9_000)
    )
    return Attack("a strange method", [words.head(method=method)], complete=False)


def strange_version(draw: random.Random, words: Words) -> Attack:
    version = draw.choice(
        (b"HTTP/0.9", b"HTTP/1.0", b"HTTP/2.0", b"HTTP/9.9", b"http/1.1", b"X", b"")
    )
    return Attack(
        "a strange version", [words.good().replace(b"HTTP/1.1", version, 1)], complete=False
    )


def host(draw: random.Random, words: Words) -> Attack:
    line = b"host: " + words.host + b"\r\n"
    other = draw.choice(
        (b"", b"host: evil.example\r\n", line + b"host: evil.example\r\n", line + line,
         b"host:\r\n", b"host: " + b"h" * 9_000 + b"\r\n", b" " + line, b"host: a b\r\n")
    )  # fmt: skip
    return Attack("a strange host", [words.good().replace(line, other, 1)], REFUSED)


def header_line(draw: random.Random, words: Words) -> Attack:
    line = draw.choice(
        (b"x: a\r\n folded", b"no colon", b": no name", b"x\x00y: z", b"x: a\x00b", b"x: a\rb",
         b"x y: z", b"x:\x7f\x01", b"\xff\xfe: a", b"x-request-id: a\x00b", b"(x): y")
    )  # fmt: skip
    return Attack("a strange header line", [words.good(line)])


def line_feeds(draw: random.Random, words: Words) -> Attack:
    return Attack("line feeds alone", [words.good().replace(b"\r\n", b"\n")], complete=False)


def leading(draw: random.Random, words: Words) -> Attack:
    start = draw.choice((b"\r\n", b"\r\n" * 5, b"\n", b" ", b"\x00", b"\x16\x03\x01\x02\x00\x01"))
    return Attack("something before it", [start + words.good()], complete=False)


def empty_lines(draw: random.Random, words: Words) -> Attack:
    return Attack("nothing but empty lines", [b"\r\n" * 30_000] * 2, complete=False)


def http2(draw: random.Random, words: Words) -> Attack:
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
    return Attack("HTTP/2", [preface], REFUSED, complete=False)


def upgrade(draw: random.Random, words: Words) -> Attack:
    lines = draw.choice(
        (
            (b"upgrade: websocket", b"connection: upgrade", b"sec-websocket-version: 13",
             b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ=="),
            (b"upgrade: h2c", b"connection: upgrade, http2-settings", b"http2-settings: AAMAAABk"),
        )
    )  # fmt: skip
    return Attack("an upgrade", [words.head(*lines, method=b"GET", path=b"/models")])


def headers_twice(draw: random.Random, words: Words) -> Attack:
    line = draw.choice(
        (
            b"content-type: image/png",
            b"authorization: a\r\nauthorization: b",
            b"origin: http://evil.example\r\norigin: http://" + words.host,
        )
    )
    return Attack("a header twice", [words.good(line)], REFUSED)
