"""What an attack on one connection is, and the words that it is made of."""

from __future__ import annotations

import base64
import json
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
