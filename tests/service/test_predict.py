"""Answers to many files: in order, in batches, one bad file hurting only itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.application.conftest import png, probabilities
from tests.service.conftest import no_stdin

from mindtrace.bundle.predictor import Predictor
from mindtrace.errors import ImageError
from mindtrace.service import predict
from mindtrace.service.predict import (
    LoadedModel,
    predict_paths,
    until_failure,
)


@pytest.fixture(scope="module")
def model(bundle: Path) -> LoadedModel:
    return LoadedModel(Predictor.open(bundle), "squares", 3)


def test_one_answer_a_file_in_their_order(model: LoadedModel, files: list[str]) -> None:
    found = list(predict_paths(model, files, stdin=no_stdin))
    assert [one["path"] for one in found] == files
    levels = [*range(256), *range(20)]
    expected = probabilities(np.stack([np.full((8, 8), n, np.uint8) for n in levels]))
    rows = [one["probabilities"] for one in found if "label" in one]
    np.testing.assert_allclose(np.array(rows), expected, atol=1e-6)


@pytest.mark.parametrize("bad", [0, 1, 127, 128, 275])
def test_a_bad_file_stands_in_its_place(
    model: LoadedModel, files: list[str], bad: int, tmp_path: Path
) -> None:
    files[bad] = str(tmp_path / "missing.png")
    found = list(predict_paths(model, files, stdin=no_stdin))
    assert [one["path"] for one in found] == files
    failures = [place for place, one in enumerate(found) if "error" in one]
    assert failures == [bad]


def test_a_batch_of_bad_files_alone(model: LoadedModel, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no image")
    found = list(predict_paths(model, [str(tmp_path / "a.png")] * 200, stdin=no_stdin))
    assert len(found) == 200
    assert all("error" in one for one in found)


@pytest.mark.parametrize("bad", [0, 130])
def test_fail_fast_gives_the_answers_before(
    model: LoadedModel, files: list[str], bad: int, tmp_path: Path
) -> None:
    files[bad] = str(tmp_path / "missing.png")
    found = []
    with pytest.raises(ImageError, match=r"missing\.png: cannot be read"):
        for one in until_failure(predict_paths(model, files, stdin=no_stdin)):
            found.append(one["path"])
    assert found == files[:bad]


def test_no_more_than_a_batch_is_read_ahead(
    model: LoadedModel, files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    real: Callable[[str], bytes] = predict.read_file

    def read_file(path: str) -> bytes:
        read.append(path)
        return real(path)

    monkeypatch.setattr(predict, "read_file", read_file)
    answers: Any = predict_paths(model, files * 10, stdin=no_stdin)
    next(answers)
    assert len(read) <= 128


def test_standard_input_in_the_middle(model: LoadedModel, files: list[str]) -> None:
    found = list(predict_paths(model, [files[0], "-", files[9]], stdin=lambda: png(255)))
    assert [one["path"] for one in found] == [files[0], "-", files[9]]
    assert found[1]["class_name"] == "bright"


def test_a_file_without_an_end_is_an_error_row(
    model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predict, "LARGEST_FILE", 1_000_000)
    (one,) = predict_paths(model, ["/dev/zero"], stdin=no_stdin)
    assert "error" in one
    assert "1,000,000 bytes" in one["error"]["message"]
