"""The outside is as it was: commands, endpoints, documents, exit codes, statuses.

`MINDTRACE_WRITE_SNAPSHOTS=1 pytest -m "" tests/contract/test_snapshots.py` writes
`snapshots/` anew; `git diff` then shows what has changed for users.
"""

from __future__ import annotations

import base64
import io
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections import defaultdict
from difflib import unified_diff
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer
from PIL import Image
from tests.contract.conftest import OldRoot
from tests.contract.process import documents, environment, run, running, server
from tests.contract.shapes import command_line, openapi, shape

from mindtrace.cli.main import program

SNAPSHOTS = Path(__file__).with_name("snapshots")
WRITE = os.environ.get("MINDTRACE_WRITE_SNAPSHOTS") == "1"
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
    check(commands=command_line(typer.main.get_command(program())))


def test_endpoints_and_their_schemas(tmp_path: Path) -> None:
    words = (
        "import json; from mindtrace.application.api import app; print(json.dumps(app.openapi()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", words],
        env={**os.environ, **environment(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )

    check(openapi=openapi(json.loads(done.stdout)))


class Course:
    """What commands on a ROOT print with `--json`: rows by command, by kind of row."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.commands = command_line(typer.main.get_command(program()))
        self.found: dict[str, dict[str, list[Any]]] = {
            kind: defaultdict(list) for kind in ("documents", "events", "errors")
        }

    def run(self, line: str, code: int = 0) -> list[dict[str, Any]]:
        """Run a command and keep what it prints; the documents of its stdout."""
        words = shlex.split(line)
        name = max((" ".join(words[:end]) for end in (2, 1)), key=self._is_command)
        done = run(self.root, *words, "--json")
        assert done.exit_code == code, (line, done.stdout, done.stderr)
        printed = [json.loads(line) for line in done.stdout.splitlines()]  # nothing but documents
        rows = self.found["documents"]
        rows[name] += [row for row in printed if not (name == "predict" and "error" in row)]
        if bad := [row for row in printed if name == "predict" and "error" in row]:
            rows[f"{name} (a bad file)"] += bad
        for row in documents(done.stderr):
            if "error" in row:
                self.found["errors"][f"{name}: {row['error']['type']}"].append(row)
            else:
                self.found["events"][f"{name}: {row['event']}"].append(row)
        return printed

    def _is_command(self, name: str) -> bool:
        return f"mindtrace {name}" in self.commands

    def shapes(self) -> dict[str, dict[str, Any]]:
        return {
            kind: {name: shape(rows) for name, rows in found.items()}
            for kind, found in self.found.items()
        }


# In the order of running. Version 1 of digits is the champion, 3 is worse, 4 was made by a job.
COURSE = [
    (2, "train --set train.max_epoch=1 --set train.lr=-1"),
    (0, "train --dry-run --set data.source=digits"),
    (0, "config show --origin"),
    (0, "config check good.ini"),
    (2, "config check bad.ini"),
    (0, "config init written.ini"),
    (1, "data check broken"),
    (3, "data check leaking"),
    (1, "predict image.png bad.png"),
    (2, "predict"),
    (4, "predict image.png --model nothing"),
    (0, "registry export digits/1 written"),
    (3, "registry verify changed"),
    (0, "registry list"),
    (2, "registry list --where 'val_acc >'"),
    (0, "registry show digits/1"),
    (0, "registry show digits/4"),
    (4, "registry show digits/9"),
    (0, "registry diff digits/1 digits/3"),
    (0, "registry compare digits/1 digits/3"),
    (0, "registry evaluate digits/1 --config good.ini"),
    (3, "registry promote digits/3"),
    (0, "registry promote digits/3 --force --reason 'why not'"),
    (0, "registry rollback digits"),
    (5, "registry rollback digits"),
    (0, "registry history digits"),
    (0, "registry verify --all"),
    (0, "registry gc --keep 1 --dry-run"),
    (0, "doctor"),
    (0, "jobs list"),
    (0, "jobs show {ended}"),
    (0, "jobs logs {ended}"),
    (0, "jobs show {waiting}"),
    (0, "jobs cancel {waiting}"),
    (5, "jobs cancel {waiting}"),
    (0, "jobs show {waiting}"),
    (4, "jobs show nothing"),
]
# Other exit codes, beside a server, without `--json`.
EXITS = [
    (0, "--version"),
    (0, "--help"),
    (0, "predict image.png --model digits"),
    (0, "predict image.png --model exported"),
    (0, "registry verify exported"),
    (1, "predict bad.png"),
    (1, "predict missing.png"),
    (2, ""),
    (2, "nothing"),
    (2, "predict image.png --topk 0"),
    (2, "train --max-epochs many"),
    (2, "registry list --columns nothing"),
    (2, "registry gc"),
    (2, "registry promote digits/2 --force"),
    (2, "serve --host 0.0.0.0 --port 0"),
    (3, "registry promote digits/3 --dry-run"),
    (4, "registry show nothing"),
    (4, "registry list nothing"),
    (4, "registry show digits@nothing"),
    (4, "predict image.png --model digits/99"),
    (4, "serve --port 0 --model digits/99"),
    (5, "registry promote digits/3 --if-revision 1 --force --reason late"),
    (5, "serve --port {port}"),
]


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
    shutil.copytree(folder / "exported", folder / "changed")
    (folder / "changed" / "data.json").write_text("{}")


def _image(number: int) -> Image.Image:
    return Image.new("L", (8, 8), 60 * number)


def _requests(folder: Path, job_id: str) -> dict[str, dict[str, Any]]:
    """Requests by a name that says what is asked; in the order of asking."""
    png = {"content": (folder / "image.png").read_bytes()}
    image = base64.b64encode(png["content"]).decode()
    as_png, as_text = {"Content-Type": "image/png"}, {"Content-Type": "text/plain"}
    as_json, first_key = {"Content-Type": "application/json"}, {"Idempotency-Key": "1"}
    old, any_revision = {"If-Match": '"1"'}, {"If-Match": "*"}
    foreign = {"Origin": "http://evil.example"}
    infer = {"inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": [image]}]}
    digits = {"data": {"source": "digits"}}
    small = {**digits, "train": {"max_epochs": 1, "seed": 3}}
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
        "POST /inference: a foreign page": {**png, "headers": {**as_png, **foreign}},
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
        "POST /models/digits/promote: an old revision": {"json": {"version": 2}, "headers": old},
        "POST /models/digits/promote: worse": {"json": {"version": 3}, "headers": any_revision},
        "POST /models/digits/promote: force": {
            "json": {"version": 3, "force": True, "reason": "why not"},
            "headers": any_revision,
        },
        "POST /models/digits/promote: unknown": {"json": {"version": 99}, "headers": any_revision},
        "POST /models/digits/rollback: no revision": {"json": {}},
        "POST /models/digits/rollback": {"json": {}, "headers": any_revision},
        "POST /retrain": {"json": small, "headers": first_key},
        "POST /retrain: again": {"json": small, "headers": first_key},
        "POST /retrain: another with its key": {"json": digits, "headers": first_key},
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
        f"GET /jobs/{job_id}": {},
        f"GET /jobs/{job_id}/events": {},
        f"GET /jobs/{job_id}/log": {},
        f"DELETE /jobs/{job_id}": {},
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


def _answers_without_a_token(root: Path) -> dict[str, dict[str, Any]]:
    found = {}
    with server(root, "--no-worker", "--token-file", "token") as client:
        for name in ("GET /models", "GET /healthz/ready", "GET /", "GET /metrics"):
            found[f"{name}: no token"] = _ask(client, name, {})
        client.headers["Authorization"] = f"Bearer {TOKEN}"
        found["GET /models: the token"] = _ask(client, "GET /models", {})
        client.headers["Authorization"] = "Bearer wrong"
        found["GET /models: another token"] = _ask(client, "GET /models", {})
    return found


@pytest.mark.slow
def test_documents_exit_codes_and_answers(old: OldRoot) -> None:
    _write_files(old.folder)
    course = Course(old.root)
    ended = next(job for job in course.run("jobs list") if job["state"] == "succeeded")["job_id"]
    waiting = course.run("retrain --set data.source=digits --set train.seed=9")[0]["job_id"]
    for code, line in COURSE:
        course.run(line.format(ended=ended, waiting=waiting), code)
    with server(old.root, "--no-worker") as client:
        exits = [(code, line.format(port=client.base_url.port)) for code, line in EXITS]
        found = [(run(old.root, *line.split()).exit_code, line) for _, line in exits]
        answers = {
            name.replace(ended, "{job_id}"): _ask(client, name, extra)
            for name, extra in _requests(old.folder, ended).items()
        }

    assert found == exits
    check(**course.shapes(), requests=answers | _answers_without_a_token(old.root))


@pytest.mark.slow
@pytest.mark.proof
def test_documents_of_trainings(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    course = Course(root)
    # One thread: two of them beside other tests wait for each other at every step.
    small = "--set data.source=digits --set compute.threads=1 --set train.max_epochs=2"
    for line in (f"train {small}", f"retrain {small} --set train.seed=1 --follow"):
        course.run(line)
    for row in course.run("reproduce digits/1"):  # the code may have uncommitted changes
        row["differences"] = [one for one in row["differences"] if one["what"] != "git_dirty"]
    course.run("jobs list")
    with running(root, "worker") as ready:
        course.found["documents"]["worker"] = [ready]
    check(trainings=course.shapes())
