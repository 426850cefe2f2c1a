"""Chromium, a ROOT with versions worth looking at, and servers of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, sync_playwright
from tests.browser.visiting import Serve, Server, Visit, Visited
from tests.conftest import made_once

PHOTOS = {
    "pets": ["cats", "dogs, and wolves"],
    "hundred": [f"class number {number:02}" for number in range(100)],
}
CHROMIUM = Path("/usr/bin/chromium")
_ARGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--screenshots docs`: `test_looks.py` keeps what it saw, for the README."""
    parser.addoption("--screenshots", type=Path, default=None, help="folder to write them to")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium; of one module, for Playwright keeps an event loop in its thread."""
    if not CHROMIUM.exists():
        assert os.environ.get("CI") != "true", "continuous integration installs Chromium"
        pytest.skip("no Chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=_ARGS.split())
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Browser) -> Iterator[Visit]:
    """`visit(url, "#models", color_scheme="dark")`: a page of its own; faults fail the test."""
    visited: list[Visited] = []

    def visit(url: str, part: str = "#try", **options: Any) -> Visited:
        options.setdefault("viewport", {"width": 1180, "height": 860})
        page = browser.new_context(**options).new_page()
        visited.append(Visited(page, url))
        page.goto(f"{url}/{part}")
        return visited[-1]

    yield visit
    for one in visited:
        one.page.context.close()
    assert [one.unforgiven() for one in visited] == [[]] * len(visited)


@pytest.fixture(scope="session")
def versions(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ROOT with four versions of digits, and `many`; to be copied, made once for all."""

    def make(folder: Path) -> None:
        shutil.copytree(trained, folder)
        _run(Path(__file__).with_name("make_versions.py"), folder)

    return made_once(tmp_path_factory, "versions", make)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`photos("pets")`: a ROOT with that model of `PHOTOS`, and its pictures."""

    def make(folder: Path) -> None:
        draw, name = np.random.default_rng(0), folder.name
        for class_name in PHOTOS[name]:
            place = folder / "pictures" / class_name
            place.mkdir(parents=True)
            ground = draw.integers(20, 235, (2, 2, 3)).repeat(12, 0).repeat(16, 1)
            for number in range(6 if len(PHOTOS[name]) > 2 else 24):
                pixels = ground + draw.integers(-20, 20, ground.shape)
                Image.fromarray(pixels.astype(np.uint8)).save(place / f"{number}.png")
        # Enough that it does not answer one class to everything, and is champion.
        words = ("--model", "mlp", "--max-epochs", "10", "--lr", "0.003", "--model-name", name)
        for key in ("data.image_size=24", "data.batch_size=16", "data.augment=none"):
            words += ("--set", key)
        words += ("--set", "compute.threads=1")
        env = {**os.environ, "DIR_PATHS__ROOT": str(folder)}
        _run("-m", "mindtrace", "train", folder / "pictures", *words, env=env)

    return lambda name: made_once(tmp_path_factory, name, make)


def _run(*words: str | Path, **options: Any) -> None:
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """`serve(root, "--no-worker")`: a real server of a copy of this ROOT, until the module ends."""
    servers: list[Server] = []

    def serve(root: Path, *args: str, **env: str) -> Server:
        copy = tmp_path_factory.mktemp("served") / "root"
        shutil.copytree(root, copy)
        # Two models are registered: which one is served must be said.
        servers.append(Server(copy, *args, env={"REGISTRY__MODEL_NAME": "digits", **env}))
        return servers[-1]

    yield serve
    for server in servers:
        server.stop()


@pytest.fixture(scope="module")
def server(versions: Path, serve: Serve) -> Server:
    """A server of the four versions, shared by the tests of a module."""
    return serve(versions, "--no-worker")
