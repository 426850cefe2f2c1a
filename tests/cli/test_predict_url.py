"""`mindtrace predict --url`: documents, rows and exit codes."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.application.conftest import _serving as serving, bundle, png
from tests.cli.conftest import documents, error_of
from tests.conftest import RunCli

from mindtrace.config.settings import load_settings

__all__ = ["bundle"]


@pytest.fixture(scope="module")
def token_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("token") / "token.txt"
    file.write_text("a-token-of-the-test")
    return file


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, bundle: Path, token_file: Path) -> Iterator[str]:
    """Where a real server answers, to those who have the token."""
    root = tmp_path_factory.mktemp("root")
    sets = [f"DIR_PATHS.ROOT={root}", f"serve.token_file={token_file}"]
    with serving(load_settings(sets=sets, environ={}), str(bundle)) as client:
        yield str(client.base_url)


@pytest.fixture
def images(tmp_path: Path, root: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for level in (0, 120, 255):
        (folder / f"{level:03}.png").write_bytes(png(level))
    return folder


def test_the_documents_are_those_without_a_server(
    run_cli: RunCli, url: str, token_file: Path, images: Path, bundle: Path
) -> None:
    asked = ("--url", url, "--token-file", str(token_file))
    there = run_cli("predict", str(images), "--json", "--topk", "2", *asked)
    here = run_cli("predict", str(images), "--json", "--topk", "2", "--model", str(bundle))
    assert (there.exit_code, there.stderr) == (0, "")
    assert documents(there.stdout) == documents(here.stdout)
    plain = run_cli("predict", str(images), *asked).stdout
    assert plain == run_cli("predict", str(images), "--model", str(bundle)).stdout


def test_the_token_may_stand_in_the_configuration_and_is_needed(
    run_cli: RunCli, url: str, token_file: Path, images: Path
) -> None:
    at = ("--set", f"serve.token_file={token_file}")
    assert run_cli("predict", str(images), "--url", url, *at).exit_code == 0
    result = run_cli("predict", str(images), "--url", url)
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        f"error: {url}: a token is needed",
        f"hint: mindtrace predict {images} --url {url} --token-file FILE"
        "  # the one that the server was given",
    ]


def test_nobody_there(run_cli: RunCli, images: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # taken, and nobody listens
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        result = run_cli("predict", str(images), "--url", url, "--json")
    assert (result.exit_code, result.stdout) == (1, "")
    error = error_of(result)
    assert error["message"] == f"no answer from {url}: Connection refused"
    assert error["hint"] == "mindtrace serve  # starts it"


@pytest.mark.parametrize(
    "words",
    [
        ("--url", "http://127.0.0.1:1", "--model", "digits"),
        ("--token-file", "token.txt"),
        ("--url", "127.0.0.1:8000"),
        ("--url", "http://127.0.0.1:1", "--token-file", "/nonesuch"),
    ],
)
def test_wrong_usage_is_exit_2(run_cli: RunCli, images: Path, words: tuple[str, ...]) -> None:
    result = run_cli("predict", str(images), *words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "hint:" in result.stderr
