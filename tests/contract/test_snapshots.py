"""The outside is as it was: commands, endpoints, documents, exit codes, statuses.

`MINDTRACE_WRITE_SNAPSHOTS=1 pytest -m "" tests/contract/test_snapshots.py` writes
`snapshots/` anew; `git diff` then shows what has changed for users.
"""

from __future__ import annotations

import base64
import importlib
import io
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from difflib import unified_diff
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer
from PIL import Image
from tests.contract.process import documents, environment, program, run, server
from tests.contract.shapes import command_line, openapi, shape

SNAPSHOTS = Path(__file__).with_name("snapshots")
WRITE = os.environ.get("MINDTRACE_WRITE_SNAPSHOTS") == "1"
# One thread: two of them beside other tests wait for each other at every step.
DIGITS = ("data.source=digits", "train.lr=0.003", "compute.threads=1", "compute.precision=32")
SETS = tuple(word for setting in DIGITS for word in ("--set", setting))
TOKEN = "0123456789abcdef0123456789abcdef"


def check(**found: Any) -> None:
    """Compare each with the snapshot of its name, or write it."""
    differences = []
    for name, value in found.items():
        path = SNAPSHOTS / f"{name}.json"
        text = json.dumps(value, indent=1, sort_keys=True) + "\n"
        if WRITE:
            path.write_text(text, encoding="utf-8")
        before = path.read_text(encoding="utf-8")
        differences += unified_diff(before.splitlines(), text.splitlines(), path.name, "found")
    assert not differences, "\n".join(differences)


def test_commands_and_their_options() -> None:
    (script,) = {
        point.value for point in entry_points(group="console_scripts") if point.name == "mindtrace"
    }
    module = importlib.import_module(script.partition(":")[0])
    (app,) = [value for value in vars(module).values() if isinstance(value, typer.Typer)]

    check(commands=command_line(typer.main.get_command(app)))


def test_endpoints_and_their_schemas(tmp_path: Path) -> None:
    words = (
        "import json; from mindtrace.application.api import app; print(json.dumps(app.openapi()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", words],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=True,
    )

    check(openapi=openapi(json.loads(done.stdout)))


@dataclass
class Course:
    """What one course through all commands printed, and the ROOT that it left.

    Version 1 of digits is the champion, 2 is worse and made by a job.

    Attributes:
        folder: with the files that the commands are asked about.
        results: documents on stdout, by command.
        errors: the last documents on stderr of those that failed, by command and type.
        events: the other documents on stderr, by command and event.
        job_id: of the job that succeeded.
    """

    folder: Path
    results: dict[str, list[Any]] = field(default_factory=dict)
    errors: dict[str, list[Any]] = field(default_factory=dict)
    events: dict[str, list[Any]] = field(default_factory=dict)
    job_id: str = ""

    @property
    def root(self) -> Path:
        return self.folder / "root"

    def run(self, name: str, *words: str, code: int = 0) -> None:
        """Run `mindtrace NAME WORDS --json` and keep what it prints."""
        done = run(self.root, *name.split(), *words, "--json")
        assert done.returncode == code, (name, words, done.stdout, done.stderr)
        self.results.setdefault(name, []).extend(documents(done.stdout))
        for document in documents(done.stderr):
            if "error" in document:
                key = f"{name}: {document['error']['type']}"
                self.errors.setdefault(key, []).append(document)
            else:
                key = f"{name}: {document['event']}"
                self.events.setdefault(key, []).append(document)


def _take_the_course(folder: Path) -> Course:
    course = Course(folder)
    course.root.mkdir()
    _write_files(course.folder)
    with ThreadPoolExecutor(1) as beside:
        training = beside.submit(course.run, "train", *SETS, "--max-epochs", "8")
        _ask_about_files(course)
        training.result()
        job = beside.submit(course.run, "retrain", *SETS, "--set", "train.max_epochs=1", "--follow")
        _ask_about_one_version(course)
        job.result()
        reproducing = beside.submit(course.run, "reproduce", "digits/1")
        _ask_about_two_versions(course)
        _ask_about_jobs(course)
        reproducing.result()
    return course


def _write_files(folder: Path) -> None:
    """A configuration and one with faults; images, and folders with what is wrong with them."""
    (folder / "good.ini").write_text("[data]\nsource = digits\n[compute]\nthreads = 1\n")
    (folder / "bad.ini").write_text("[train]\nmax_epoch = 3\nlr = -1\n[nothing]\n")
    (folder / "token").write_text(TOKEN)
    (folder / "token").chmod(0o600)
    _image(0).save(folder / "image.png")
    (folder / "bad.png").write_bytes(b"no image")
    for number, path in enumerate(("a/1.png", "a/2.png", "b/1.png", "b/2.png")):
        for place in ("broken", "leaking/train", "leaking/test"):
            file = folder / place / path
            file.parent.mkdir(parents=True, exist_ok=True)
            _image(number).save(file)
    (folder / "broken" / "a" / "3.png").write_bytes(b"no image")


def _image(number: int) -> Image.Image:
    return Image.new("L", (8, 8), 60 * number)


def _ask_about_files(course: Course) -> None:
    course.run("train", "--set", "train.max_epoch=1", "--set", "train.lr=-1", code=2)
    course.run("config show", "--origin")
    course.run("config check", "good.ini")
    course.run("config check", "bad.ini", code=2)
    course.run("config init", "written.ini")
    course.run("data check", "broken", code=1)
    course.run("data check", "leaking", code=3)


def _ask_about_one_version(course: Course) -> None:
    course.run("train --dry-run", *SETS)
    course.run("predict", "image.png", "bad.png", code=1)
    course.run("predict", code=2)
    course.run("predict", "image.png", "--model", "nothing", code=4)
    course.run("registry export", "digits/1", "exported")
    shutil.copytree(course.folder / "exported", course.folder / "changed")
    (course.folder / "changed" / "data.json").write_text("{}")
    course.run("registry verify", "changed", code=3)


def _ask_about_two_versions(course: Course) -> None:
    course.run("registry list")
    course.run("registry list", "--where", "val_acc >", code=2)
    course.run("registry show", "digits/1")
    course.run("registry show", "digits/2")
    course.run("registry show", "digits/9", code=4)
    course.run("registry diff", "digits/1", "digits/2")
    course.run("registry compare", "digits/1", "digits/2")
    course.run("registry evaluate", "digits/1", "--config", "good.ini")
    course.run("registry promote", "digits/2", code=3)
    course.run("registry promote", "digits/2", "--force", "--reason", "why not")
    course.run("registry rollback", "digits")
    course.run("registry rollback", "digits", code=5)
    course.run("registry history", "digits")
    course.run("registry verify", "--all")
    course.run("registry gc", "--keep", "1", "--dry-run")
    course.run("doctor")


def _ask_about_jobs(course: Course) -> None:
    course.job_id = course.results["retrain"][0]["job_id"]
    course.run("retrain", *SETS, "--set", "train.seed=9")
    waiting = course.results["retrain"][-1]["job_id"]
    course.run("jobs list")
    for job_id in (course.job_id, waiting):
        course.run("jobs show", job_id)
    course.run("jobs logs", course.job_id)
    course.run("jobs cancel", waiting)
    course.run("jobs cancel", waiting, code=5)
    course.run("jobs show", waiting)
    course.run("jobs show", "nothing", code=4)
    with program(course.root, "worker") as ready:
        course.results["worker"] = [ready]


EXITS = [
    (0, "--version"),
    (0, "--help"),
    (0, "predict image.png --model digits"),
    (0, "predict image.png --model exported"),
    (0, "registry history digits"),
    (0, "registry verify exported"),
    (0, "config check good.ini"),
    (1, "predict bad.png"),
    (1, "predict missing.png"),
    (2, ""),
    (2, "nothing"),
    (2, "predict"),
    (2, "predict image.png --topk 0"),
    (2, "train --max-epochs many"),
    (2, "train --set train.max_epoch=3"),
    (2, "config check bad.ini"),
    (2, "registry list --where val_acc"),
    (2, "registry list --columns nothing"),
    (2, "registry gc"),
    (2, "registry promote digits/2 --force"),
    (2, "serve --host 0.0.0.0 --port 0"),
    (3, "registry promote digits/2 --dry-run"),
    (3, "registry verify changed"),
    (4, "registry show nothing"),
    (4, "registry list nothing"),
    (4, "registry show digits@nothing"),
    (4, "predict image.png --model digits/99"),
    (4, "jobs show nothing"),
    (4, "serve --port 0 --model digits/99"),
    (5, "registry promote digits/2 --if-revision 1 --force --reason late"),
    (5, "registry rollback digits"),
    (5, "jobs cancel {job_id}"),
    (5, "serve --port {port}"),
]


def _exits(course: Course, port: int) -> list[tuple[int, str]]:
    def code(line: str) -> tuple[int, str]:
        words = line.format(job_id=course.job_id, port=port).split()
        return run(course.root, *words).returncode, line

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(code, [line for _, line in EXITS]))


def _requests(course: Course) -> dict[str, dict[str, Any]]:
    """Requests by a name that says what is asked; in the order of asking."""
    png = {"content": (course.folder / "image.png").read_bytes()}
    image = base64.b64encode(png["content"]).decode()
    as_png, as_text = {"Content-Type": "image/png"}, {"Content-Type": "text/plain"}
    as_json, match = {"Content-Type": "application/json"}, {"If-Match": '"1"'}
    infer = {"inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": [image]}]}
    small = {"data": {"source": "digits"}, "train": {"max_epochs": 1, "seed": 3}}
    return {
        "GET /": {},
        "GET /docs": {},
        "GET /openapi.json": {},
        "GET /nothing": {},
        "GET /healthz/live": {},
        "GET /healthz/ready": {},
        "GET /metrics": {},
        "GET /inference": {},
        "POST /inference: a PNG": {**png, "headers": as_png},
        "POST /inference: JSON": {"json": {"image": image, "top_k": 2}},
        "POST /inference: JSON with the input": {"json": {"image": image, "show_input": True}},
        "POST /inference: several": {"json": {"images": [image, "AAAA"]}},
        "POST /inference: a form": {"files": {"image": ("a.png", io.BytesIO(png["content"]))}},
        "POST /inference: not JSON": {"content": b"{", "headers": as_json},
        "POST /inference: not base64": {"json": {"image": "*"}},
        "POST /inference: no image in JSON": {"json": {}},
        "POST /inference: an unknown field": {"json": {"image": image, "nothing": 1}},
        "POST /inference: top_k 0": {"json": {"image": image, "top_k": 0}},
        "POST /inference: not an image": {"content": b"none", "headers": as_png},
        "POST /inference: nothing": {"content": b"", "headers": as_png},
        "POST /inference: text": {"content": b"none", "headers": as_text},
        "POST /inference: no type": {"content": b"none"},
        "POST /inference: too long": {"content": bytes(17 * 2**20), "headers": as_png},
        "POST /inference: a foreign page": {
            **png,
            "headers": {**as_png, "Origin": "http://evil.example"},
        },
        "GET /models: a foreign host": {"headers": {"Host": "evil.example"}},
        "GET /models": {},
        "GET /models/digits/versions": {},
        "GET /models/digits/versions?where=val_acc%20%3E%200&sort=-version": {},
        "GET /models/digits/versions?where=val_acc": {},
        "GET /models/digits/versions?cursor=nothing": {},
        "GET /models/digits/versions/1": {},
        "GET /models/digits/versions/99": {},
        "GET /models/nothing/versions": {},
        "GET /models/digits/compare?a=1&b=2": {},
        "GET /models/digits/history": {},
        "POST /models/digits/promote: no revision": {"json": {"version": 2}},
        "POST /models/digits/promote: an old revision": {"json": {"version": 2}, "headers": match},
        "POST /models/digits/promote: worse": {
            "json": {"version": 2},
            "headers": {"If-Match": "*"},
        },
        "POST /models/digits/promote: force": {
            "json": {"version": 2, "force": True, "reason": "why not"},
            "headers": {"If-Match": "*"},
        },
        "POST /models/digits/promote: unknown": {
            "json": {"version": 99},
            "headers": {"If-Match": "*"},
        },
        "POST /models/digits/rollback: no revision": {"json": {}},
        "POST /models/digits/rollback": {"json": {}, "headers": {"If-Match": "*"}},
        "POST /retrain": {"json": small, "headers": {"Idempotency-Key": "1"}},
        "POST /retrain: again": {"json": small, "headers": {"Idempotency-Key": "1"}},
        "POST /retrain: another with its key": {
            "json": {"data": {"source": "digits"}},
            "headers": {"Idempotency-Key": "1"},
        },
        "POST /retrain: an INI": {
            "content": b"[data]\nsource = digits\n",
            "headers": {"Content-Type": "text/x-ini"},
        },
        "POST /retrain: faults": {"json": {"train": {"max_epoch": 1, "lr": -1}}},
        "POST /retrain: a path": {"json": {"DIR_PATHS": {"ROOT": "/"}}},
        "POST /retrain: text": {"content": b"none", "headers": as_text},
        "POST /retrain/check": {"json": small},
        "GET /jobs": {},
        "GET /jobs/nothing": {},
        f"GET /jobs/{course.job_id}": {},
        f"GET /jobs/{course.job_id}/events": {},
        f"GET /jobs/{course.job_id}/log": {},
        f"DELETE /jobs/{course.job_id}": {},
        "GET /v2": {},
        "GET /v2/health/live": {},
        "GET /v2/health/ready": {},
        "GET /v2/models/digits": {},
        "GET /v2/models/digits/ready": {},
        "GET /v2/models/nothing": {},
        "POST /v2/models/digits/infer": {"json": infer},
        "POST /v2/models/digits/infer: no input": {"json": {"inputs": []}},
    }


def _outcome(response: httpx.Response) -> dict[str, Any]:
    media_type = response.headers.get("Content-Type", "").partition(";")[0]
    found: dict[str, Any] = {"status": response.status_code, "type": media_type}
    for name in ("ETag", "Location", "Retry-After", "WWW-Authenticate", "Allow"):
        if name in response.headers:
            found.setdefault("headers", []).append(name)
    if media_type.endswith("json") and response.request.url.path != "/openapi.json":
        found["body"] = shape([response.json()])
        if media_type == "application/problem+json":
            found["problem"] = response.json()["type"]
    return found


def _ask(client: httpx.Client, name: str, extra: dict[str, Any]) -> dict[str, Any]:
    method, path = name.partition(": ")[0].split()
    return _outcome(client.request(method, path, **extra))


def _answers_without_a_token(course: Course) -> dict[str, dict[str, Any]]:
    found = {}
    with server(course.root, "--no-worker", "--token-file", "token") as client:
        for name in ("GET /models", "GET /healthz/ready", "GET /", "GET /metrics"):
            found[f"{name}: no token"] = _ask(client, name, {})
        client.headers["Authorization"] = f"Bearer {TOKEN}"
        found["GET /models: the token"] = _ask(client, "GET /models", {})
        client.headers["Authorization"] = "Bearer wrong"
        found["GET /models: another token"] = _ask(client, "GET /models", {})
    return found


def _documents(course: Course) -> dict[str, list[Any]]:
    predicted = course.results["predict"]
    return {
        **course.results,
        "predict": [row for row in predicted if "error" not in row],
        "predict (a bad file)": [row for row in predicted if "error" in row],
    }


@pytest.mark.slow
def test_documents_exit_codes_and_answers(tmp_path: Path) -> None:
    """One test, so that tests beside each other do not train for it twice."""
    course = _take_the_course(tmp_path)
    with server(course.root, "--no-worker") as client:
        exits = _exits(course, client.base_url.port or 0)
        answers = {
            name.replace(course.job_id, "{job_id}"): _ask(client, name, extra)
            for name, extra in _requests(course).items()
        }

    assert exits == EXITS
    check(
        documents={name: shape(rows) for name, rows in _documents(course).items()},
        events={name: shape(rows) for name, rows in course.events.items()},
        errors={name: shape(rows) for name, rows in course.errors.items()},
        requests=answers | _answers_without_a_token(course),
    )
