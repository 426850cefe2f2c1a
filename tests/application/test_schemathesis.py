"""Schemathesis over every route of a real server: what fits the document and what does not.

It reads /openapi.json, makes requests from it, and holds each answer to what is declared:
status, content type, headers, schema, the refusal of what does not fit. A 503 must say
when to try again; any other 5xx is a fault.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.application.conftest import Serve, png

from mindtrace.application.schemas import EXAMPLE_IMAGE
from mindtrace.config.settings import load_settings

pytestmark = [
    pytest.mark.slow,
    pytest.mark.proof,
    pytest.mark.skipif(
        importlib.util.find_spec("schemathesis") is None and not os.environ.get("CI"),
        reason="schemathesis is not installed",
    ),
]

EXAMPLES = 12  # for each route and way to make requests, times --soak
PHASES = ("examples", "coverage", "fuzzing", "stateful")
_SUMMARY = re.compile(r"^\s*(\d+) generated, \1 passed", re.M)

CONFIG = f"""
seed = 20
suppress-health-check = ["all"]
output.truncation.enabled = false
# The events of a job go on for as long as it does.
max-stream-events = 1
request-timeout = 20

[cache]
enabled = false

[checks]
# A body without a type is refused before anybody looks who would take it.
unsupported_method.enabled = false
# DELETE cancels a job; what became of it can be looked at all the same.
use_after_free.enabled = false
not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", 503]
# The promotion that somebody else made meanwhile, and the header that would have told.
positive_data_acceptance.expected-statuses = ["2xx", "3xx", 401, 403, 404, 409, 412, 429, 503]
missing_required_header.expected-statuses = [400, 401, 403, 404, 415, 422, 428, 503]

[dictionaries]
names = {{ values = ["digits", "mnist"] }}
versions = {{ values = [1, 2] }}
wheres = {{ values = ["val_acc > 0.5", "alias = champion", "val_acc >", "nonsense = 1"] }}
sorts = {{ values = ["-val_acc", "version", "x y"] }}
jobs = {{ values = ["JOB"] }}
images = {{ values = ["{EXAMPLE_IMAGE}", "bm8gaW1hZ2U="] }}

[parameters]
"path.name" = {{ dictionary = "names", probability = 0.6 }}
"path.version" = {{ dictionary = "versions", probability = 0.6 }}
"path.job_id" = {{ dictionary = "jobs", probability = 0.6 }}
"query.a" = {{ dictionary = "versions", probability = 0.6 }}
"query.b" = {{ dictionary = "versions", probability = 0.6 }}
"query.where" = {{ dictionary = "wheres", probability = 0.5 }}
"query.sort" = {{ dictionary = "sorts", probability = 0.5 }}
"body.image" = {{ dictionary = "images", probability = 0.7 }}
"body.images[*]" = {{ dictionary = "images", probability = 0.7 }}
"body.inputs[*].data[*]" = {{ dictionary = "images", probability = 0.7 }}

# That a text is no image, no learning rate and no query, a schema cannot say.
[[operations]]
include-path-regex = "^/inference$|/infer$|^/retrain|/versions$"
checks.positive_data_acceptance.enabled = false
"""


def _schemathesis(
    client: httpx.Client, folder: Path, examples: int, config: str, *phases: str
) -> None:
    (folder / "schemathesis.toml").write_text(config)
    done = subprocess.run(
        [
            *(str(Path(sys.executable).with_name("schemathesis")), "--no-color"),
            *("--config-file", str(folder / "schemathesis.toml"), "run"),
            *(f"{client.base_url}/openapi.json", "--max-examples", str(examples)),
            *("--continue-on-failure", "--warnings", "off", "--phases", ",".join(phases)),
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=60 * examples,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    counts = _SUMMARY.search(done.stdout)
    assert counts is not None, done.stdout
    assert int(counts[1]) > 10 * examples
    # The server is as well as before.
    assert client.get("/healthz/live").status_code == 200


def _never_train(application: Any) -> None:
    application.state.worker = False
    application.state.sidecar.wake = lambda: None


def test_every_answer_is_as_declared(
    trained: Path, tmp_path: Path, serve: Serve, soak: int
) -> None:
    root = tmp_path / "root"
    shutil.copytree(trained, root)
    settings = load_settings(sets=[f"DIR_PATHS.ROOT={root}"], environ={})
    with serve(settings, "digits", change=_never_train) as client:
        job = client.post("/retrain", json={"data": {"source": "digits"}}).json()["job_id"]
        config = CONFIG.replace("JOB", job)
        _schemathesis(client, tmp_path, EXAMPLES * soak, config, *PHASES)
        answer = client.post("/inference", content=png(0), headers={"content-type": "image/png"})
        assert answer.status_code == 200


def test_without_a_model_and_a_registry_too(tmp_path: Path, serve: Serve, soak: int) -> None:
    settings = load_settings(sets=[f"DIR_PATHS.ROOT={tmp_path / 'root'}"], environ={})
    with serve(settings, change=_never_train) as client:
        _schemathesis(client, tmp_path, EXAMPLES * soak, CONFIG, "examples", "fuzzing")
        assert json.loads(client.get("/healthz/ready").content)["status"] == 503
