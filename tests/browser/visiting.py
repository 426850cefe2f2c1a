"""A server as a process, a page that is watched for faults, and a hand that draws digits."""

from __future__ import annotations

import base64
import contextlib
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import ConsoleMessage, Page, expect
from tests.application.servers import serve, url_of

# Other tests share the processors: a wait may be long, and ends as soon as it may.
PATIENCE = 90_000  # milliseconds
expect.set_options(timeout=PATIENCE)

Point = tuple[float, float]
Visit = Callable[..., "Visited"]
Serve = Callable[..., "Server"]


class Server:
    """`mindtrace serve` of a ROOT, which can be killed and started again on the same port."""

    def __init__(self, root: Path, *args: str, env: Mapping[str, str]) -> None:
        self.root = root
        self.url = ""
        self._args = args
        self._env = {**os.environ, "DIR_PATHS__ROOT": str(root), **env}
        self.start()

    def start(self) -> None:
        self._end = contextlib.ExitStack()
        log = self._end.enter_context((self.root / "serve.log").open("a"))
        words = ("--port", self.url.rpartition(":")[2] or "0", *self._args)
        self._process = self._end.enter_context(serve(*words, stderr=log, env=self._env))
        self.url = url_of(self._process)

    def kill(self) -> None:
        self._end.close()

    def stop(self) -> None:
        """SIGTERM, and wait for its end; what it started ends with it."""
        try:
            self._process.terminate()
            self._process.communicate(timeout=60)
        finally:
            self.kill()


class Visited:
    """A page that was opened; `faults` are errors on its console and requests elsewhere."""

    def __init__(self, page: Page, base: str) -> None:
        self.page = page
        self.faults: list[str] = []
        self._forgiven: list[str] = []
        self._host = urlsplit(base).netloc
        page.set_default_timeout(PATIENCE)
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.faults.append(f"uncaught: {error}"))
        page.on("request", lambda request: self._see(request.url))

    def forgive(self, pattern: str) -> None:
        """Leave out what a test has brought about on purpose, also if the page asks again."""
        found = [fault for fault in self.faults if re.search(pattern, fault)]
        assert found, f"{pattern} is not among {self.faults}"
        self._forgiven.append(pattern)

    def unforgiven(self) -> list[str]:
        return [
            fault
            for fault in self.faults
            if not any(re.search(pattern, fault) for pattern in self._forgiven)
        ]

    def _hear(self, message: ConsoleMessage) -> None:
        # Breaches of the Content-Security-Policy come here, too.
        if message.type in ("error", "warning"):
            self.faults.append(f"{message.type}: {message.text}")

    def _see(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("data", "blob") and parts.netloc != self._host:
            self.faults.append(f"request to another host: {url}")


def _arc(x: float, y: float, wide: float, high: float, begin: int, end: int) -> list[Point]:
    steps = 24
    angles = [math.radians(begin + (end - begin) * step / steps) for step in range(steps + 1)]
    return [(x + wide * math.cos(angle), y + high * math.sin(angle)) for angle in angles]


# Strokes of points from 0 to 1, from the left and from the top.
ZERO = [_arc(0.5, 0.5, 0.22, 0.33, -90, 270)]
THREE = [_arc(0.48, 0.33, 0.18, 0.17, -150, 90) + _arc(0.48, 0.67, 0.2, 0.17, -90, 150)]
FOUR = [[(0.35, 0.18), (0.3, 0.52), (0.7, 0.52)], [(0.62, 0.2), (0.62, 0.85)]]


def on_the_pad(page: Page, stroke: Sequence[Point]) -> list[Point]:
    expect(page.locator("#pad")).to_be_visible()
    box = page.locator("#pad").bounding_box()
    assert box is not None
    return [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in stroke]


def draw(page: Page, strokes: Sequence[Sequence[Point]]) -> None:
    """With the mouse."""
    for stroke in strokes:
        first, *rest = on_the_pad(page, stroke)
        page.mouse.move(*first)
        page.mouse.down()
        for place in rest:
            page.mouse.move(*place, steps=3)
        page.mouse.up()


def give(page: Page, event: str, files: Mapping[str, bytes]) -> None:
    """Drop or paste files onto the page."""
    page.evaluate(
        """([event, files]) => {
            const transfer = new DataTransfer();
            for (const [name, content] of files) {
                const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
                transfer.items.add(new File([bytes], name, { type: "image/png" }));
            }
            const [shape, place] = event === "drop" ? [DragEvent, "dataTransfer"]
                : [ClipboardEvent, "clipboardData"];
            const given = { bubbles: true, cancelable: true, [place]: transfer };
            document.querySelector("main").dispatchEvent(new shape(event, given));
        }""",
        [event, [[name, base64.b64encode(content).decode()] for name, content in files.items()]],
    )
