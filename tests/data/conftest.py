"""A mirror on loopback, small data sets in torchvision's file formats, folders of images."""

from __future__ import annotations

import gzip
import hashlib
import io
import struct
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

Answer = Callable[[BaseHTTPRequestHandler, bytes], None]


@dataclass
class Mirror:
    """What the server has, what it was asked, and how it answers the next times."""

    url: str
    files: dict[str, bytes] = field(default_factory=dict)
    answers: list[Answer] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)


def whole(request: BaseHTTPRequestHandler, body: bytes) -> None:
    request.send_response(200)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    request.wfile.write(body)


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.rpartition("/")[2]
            state.asked.append(name)
            state.headers.append(dict(self.headers))
            if name not in state.files:
                self.send_error(404)
                return
            answer = state.answers.pop(0) if state.answers else whole
            answer(self, state.files[name])

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state = Mirror(f"http://127.0.0.1:{server.server_port}/sets")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


def idx(array: NDArray[np.uint8]) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def png(number: int, level: int = 6) -> bytes:
    """An image of three pixels that differs for each number, compressed at a level."""
    file = io.BytesIO()
    pixels = np.array([[number % 251, number // 251, 7]], np.uint8)
    Image.fromarray(pixels).save(file, "PNG", compress_level=level)
    return file.getvalue()


def write_images(folder: Path, images: Iterable[tuple[str, int]]) -> Path:
    """The image of a number at each path in the folder."""
    for path, number in images:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(png(number))
    return folder


def md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


@dataclass(frozen=True)
class TinySet:
    """A set in MNIST's format: 120 training and 40 test images of 10 classes, 12 x 10."""

    contents: dict[str, bytes]

    def gzipped(self) -> dict[str, bytes]:
        return {f"{name}.gz": gzip.compress(data, mtime=0) for name, data in self.contents.items()}

    def put(self, folder: Path, gzipped: bool) -> None:
        folder.mkdir(parents=True)
        for name, data in (self.gzipped() if gzipped else self.contents).items():
            (folder / name).write_bytes(data)


def idx_contents(prefixes: dict[str, int], shape: tuple[int, int] = (12, 10)) -> dict[str, bytes]:
    """IDX files of images and labels, by the prefix of their names and the number of images."""
    rng = np.random.default_rng(7)
    contents = {}
    for prefix, count in prefixes.items():
        images = rng.integers(0, 256, (count, *shape), dtype=np.uint8)
        contents[f"{prefix}-images-idx3-ubyte"] = idx(images)
        contents[f"{prefix}-labels-idx1-ubyte"] = idx((np.arange(count) % 10).astype(np.uint8))
    return contents


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> TinySet:
    """A small MNIST, whose checksums torchvision expects."""
    import torchvision.datasets

    found = TinySet(idx_contents({"train": 120, "t10k": 40}))
    resources = [(name, md5(data)) for name, data in found.gzipped().items()]
    monkeypatch.setattr(torchvision.datasets.MNIST, "resources", resources)
    return found


MakeFolder = Callable[..., Path]


@pytest.fixture
def make_folder(tmp_path: Path) -> MakeFolder:
    """`make_folder("train/a", "train/b", count=5, mode="L", size=(6, 8))`: PNGs of noise."""
    rng = np.random.default_rng(11)

    def make(
        *classes: str, count: int = 10, mode: str = "L", size: tuple[int, int] = (6, 8)
    ) -> Path:
        shape = size if mode == "L" else (*size, 3)
        for name in classes:
            home = tmp_path / "images" / name
            home.mkdir(parents=True, exist_ok=True)
            for number in range(count):
                noise = rng.integers(0, 256, shape, dtype=np.uint8)
                Image.fromarray(noise).save(home / f"{number:04d}.png")
        return tmp_path / "images"

    return make
