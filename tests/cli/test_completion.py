"""Completion of values, by the protocol between bash and the command."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.conftest import Mindtrace

from mindtrace.config.settings import load_settings
from mindtrace.service.jobs import submit
from mindtrace.service.retrain_request import RetrainRequest

HEAVY = ("torch", "timm", "mlflow", "dbos", "onnxruntime")


def completed(mindtrace: Mindtrace, line: str) -> list[str]:
    """What the shell offers for the last word of a line."""
    words = {"COMP_WORDS": f"mindtrace {line}", "COMP_CWORD": str(line.count(" ") + 1)}
    done = mindtrace(
        env={"_MINDTRACE_COMPLETE": "complete_bash", "PYTHONPROFILEIMPORTTIME": "1", **words}
    )
    imported = {row.rpartition("|")[2].strip() for row in done.stderr.splitlines()}
    assert not imported & {*HEAVY} and "Traceback" not in done.stderr, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("tr", {"train"}),
        ("train --source fa", {"fashion_mnist"}),
        ("train --model c", {"cnn", "convnext_tiny"}),
        ("train --model-name d", {"digits"}),
        ("train --set train.l", {"train.lr=", "train.label_smoothing="}),
        ("predict --model ", {"digits", "digits@champion", "digits/1"}),
        ("serve --model digits/", {"digits/1"}),
        ("registry compare digits/1 digits@", {"digits@champion"}),
        ("registry history ", {"digits"}),
        ("retrain --base digits/", {"digits/1"}),
        ("reproduce x", set()),
        ("registry show --config nowhere.ini ", set()),
        ("registry show --set registry.tracking_uri=http://127.0.0.1:9 ", set()),
        ("registry show --set DIR_PATHS.ROOT=/dev/null ", set()),
        ("jobs show --set jobs.database_url=postgresql://127.0.0.1:9/x ", set()),
    ],
)
@pytest.mark.slow
def test_values_are_completed(
    mindtrace: Mindtrace, digits: Path, line: str, offered: set[str]
) -> None:
    found = completed(mindtrace, line)
    assert {*found} >= offered
    assert all(word.startswith(line.rpartition(" ")[2]) for word in found)
    assert len(found) < 9 or "--model c" in line  # of timm there are many


def test_jobs_are_completed(mindtrace: Mindtrace, root: Path) -> None:
    assert completed(mindtrace, "jobs logs ") == []
    job = submit(load_settings(), RetrainRequest())
    assert completed(mindtrace, "jobs logs 2") == [job.job_id]
