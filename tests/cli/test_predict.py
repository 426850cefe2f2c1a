"""`mindtrace predict` with a real version of digits."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from tests.cli.conftest import documents, error_of, rows
from tests.conftest import RunCli

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("digits")]  # the fixture trains


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder with two images in it, one of them in a sub-folder, and a text beside them."""
    folder = tmp_path / "images"
    (folder / "below").mkdir(parents=True)
    for name, grey in (("b.png", 200), ("below/a.PNG", 20)):
        Image.new("L", (8, 8), grey).save(folder / name, format="PNG")
    (folder / "notes.txt").write_text("no image")
    return folder


def test_a_document_or_a_row_a_file(run_cli: RunCli, images: Path) -> None:
    result = run_cli("predict", str(images), "--json", "--topk", "3")
    assert result.exit_code == 0, result.stderr
    found = documents(result.stdout)
    paths = sorted([str(images / "b.png"), str(images / "below" / "a.PNG")])
    assert [one["path"] for one in found] == paths
    for one in found:
        assert (one["schema_version"], one["model_name"], one["version"]) == (1, "digits", 1)
        assert sum(one["probabilities"]) == pytest.approx(1, abs=1e-5)
        assert one["confidence"] == max(one["probabilities"])
        assert one["top_k"][0]["class_name"] == one["class_name"]
        assert len(one["top_k"]) == 3

    header, row = rows(run_cli("predict", str(images / "*.png")).stdout)
    cells = dict(zip(header, row, strict=True))
    assert (cells["path"], cells["version"], cells["error"]) == (str(images / "b.png"), "1", "")
    assert cells["label"] == cells["class_name"]

    stdin = run_cli("predict", "-", "--json", input=(images / "b.png").read_bytes())
    assert (stdin.exit_code, documents(stdin.stdout)[0]["path"]) == (0, "-")


def test_one_bad_file_hurts_itself_alone(run_cli: RunCli, images: Path) -> None:
    bad, good = str(images / "notes.txt"), str(images / "b.png")
    result = run_cli("predict", bad, good, "--json")
    first, second = documents(result.stdout)
    assert result.exit_code == 1
    assert (first["path"], second["path"]) == (bad, good)
    assert set(first) == {"schema_version", "path", "error"}
    assert first["error"]["type"] == "ImageError"
    assert "label" in second
    assert "1 of 2 images" in error_of(result)["message"]

    fast = run_cli("predict", good, bad, good, "--json", "--fail-fast")
    assert (fast.exit_code, len(documents(fast.stdout)), bad in fast.stderr) == (1, 1, True)


@pytest.mark.parametrize(
    ("ref", "hint"),
    [
        ("digits/7", "digits/1"),
        ("digits@champoin", "did you mean 'digits@champion'"),
        ("digit", "did you mean 'digits'"),
        ("mnist", "there are: digits"),
    ],
)
def test_a_version_that_does_not_exist(run_cli: RunCli, images: Path, ref: str, hint: str) -> None:
    result = run_cli("predict", str(images / "b.png"), "--model", ref)
    assert (result.exit_code, result.stdout) == (4, "")
    assert ref in result.stderr and hint in result.stderr
