"""`mindtrace predict` with a real version of digits."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

RunCli = Callable[..., Any]

pytestmark = pytest.mark.slow  # the fixture trains


@pytest.fixture
def model(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ROOT of this test is the one with a version in it."""
    monkeypatch.setenv("DIR_PATHS__ROOT", str(trained))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder with two images in it, one of them in a sub-folder, and a text beside them."""
    folder = tmp_path / "images"
    (folder / "below").mkdir(parents=True)
    for name, grey in (("b.png", 200), ("below/a.PNG", 20)):
        Image.new("L", (8, 8), grey).save(folder / name, format="PNG")
    (folder / "notes.txt").write_text("no image")
    return folder


def _documents(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_document_a_file(run_cli: RunCli, model: None, images: Path) -> None:
    result = run_cli("predict", str(images), "--json", "--topk", "3")
    assert result.exit_code == 0, result.stderr
    documents = _documents(result.stdout)
    assert [one["path"] for one in documents] == sorted(
        [str(images / "b.png"), str(images / "below" / "a.PNG")]
    )
    for one in documents:
        assert (one["schema_version"], one["model_name"], one["version"]) == (1, "digits", 1)
        assert sum(one["probabilities"]) == pytest.approx(1, abs=1e-5)
        assert one["confidence"] == max(one["probabilities"])
        assert one["top_k"][0]["class_name"] == one["class_name"]
        assert len(one["top_k"]) == 3


def test_a_row_a_file_in_a_pipe(run_cli: RunCli, model: None, images: Path) -> None:
    result = run_cli("predict", str(images / "*.png"))
    header, row = (line.split("\t") for line in result.stdout.splitlines())
    cells = dict(zip(header, row, strict=True))
    assert (cells["path"], cells["version"], cells["error"]) == (str(images / "b.png"), "1", "")
    assert cells["label"] == cells["class_name"]


def test_one_bad_file_hurts_itself_alone(run_cli: RunCli, model: None, images: Path) -> None:
    bad, good = str(images / "notes.txt"), str(images / "b.png")
    result = run_cli("predict", bad, good, "--json")
    documents = _documents(result.stdout)
    assert result.exit_code == 1
    assert [one["path"] for one in documents] == [bad, good]
    assert set(documents[0]) == {"schema_version", "path", "error"}
    assert documents[0]["error"]["type"] == "ImageError"
    assert "label" in documents[1]
    assert "1 of 2 images" in json.loads(result.stderr.splitlines()[-1])["error"]["message"]


def test_fail_fast_stops(run_cli: RunCli, model: None, images: Path) -> None:
    bad, good = str(images / "notes.txt"), str(images / "b.png")
    result = run_cli("predict", good, bad, good, "--json", "--fail-fast")
    assert (result.exit_code, len(_documents(result.stdout))) == (1, 1)
    assert bad in result.stderr


def test_one_image_on_stdin(run_cli: RunCli, model: None, images: Path) -> None:
    result = run_cli("predict", "-", "--json", input=(images / "b.png").read_bytes())
    (document,) = _documents(result.stdout)
    assert (result.exit_code, document["path"]) == (0, "-")


@pytest.mark.parametrize("ref", ["digits", "digits@champion", "digits/1", "1"])
def test_every_way_to_name_a_version(run_cli: RunCli, model: None, images: Path, ref: str) -> None:
    result = run_cli("predict", str(images / "b.png"), "--model", ref, "--json")
    assert result.exit_code == 0, result.stderr
    assert _documents(result.stdout)[0]["version"] == 1


@pytest.mark.parametrize("ref", ["digits/7", "digits@nobody", "mnist", "mnist/1"])
def test_a_version_that_does_not_exist(
    run_cli: RunCli, model: None, images: Path, ref: str
) -> None:
    result = run_cli("predict", str(images / "b.png"), "--model", ref)
    assert (result.exit_code, result.stdout) == (4, "")
    assert "digits" in result.stderr


def test_an_empty_folder(run_cli: RunCli, model: None, tmp_path: Path) -> None:
    result = run_cli("predict", str(tmp_path))
    assert result.exit_code == 2
    assert result.stderr.splitlines()[0] == f"error: no images in folder '{tmp_path}'"
