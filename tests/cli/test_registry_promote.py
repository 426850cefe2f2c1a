"""`mindtrace registry compare|promote|rollback|history` and `mindtrace reproduce`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mindtrace.bundle import manifest

RunCli = Callable[..., Any]
Mindtrace = Callable[..., Any]

pytestmark = pytest.mark.slow

COMPARE = {
    *("schema_version", "a", "b", "test_digest", "n", "acc_a", "acc_b", "diff", "ci", "mcnemar_p"),
    *("wrong_to_right", "right_to_wrong", "per_class", "minimum_detectable", "verdict"),
}
HISTORY = [
    *("schema_version", "revision", "model_name", "at", "by", "action", "from", "to", "reason"),
    "verdict",
]


@pytest.fixture(scope="module")
def versions(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ROOT with the session's version 1, the same again as 2, and one of a single epoch as 3."""
    folder = tmp_path_factory.mktemp("versions") / "root"
    shutil.copytree(trained, folder)
    train = [sys.executable, "-m", "mindtrace", "train", "--source", "digits", "--quiet"]
    for words in (["--max-epochs", "3", "--lr", "0.003"], ["--max-epochs", "1"]):
        environment = {**os.environ, "DIR_PATHS__ROOT": str(folder)}
        subprocess.run([*train, *words], check=True, env=environment, capture_output=True)
    return folder


@pytest.fixture
def root(versions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it; its store names the artifacts of the original, which only are read."""
    folder = tmp_path / "root"
    shutil.copytree(versions, folder, ignore=shutil.ignore_patterns("mlartifacts"))
    monkeypatch.setenv("DIR_PATHS__ROOT", str(folder))
    return folder


def last_json(text: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(text.strip().splitlines()[-1])
    return found


def history(run_cli: RunCli) -> list[dict[str, Any]]:
    result = run_cli("registry", "history", "digits", "--json")
    assert result.exit_code == 0
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_compare_as_json_and_in_a_pipe(run_cli: RunCli, root: Path) -> None:
    document = last_json(run_cli("registry", "compare", "digits/1", "3", "--json").stdout)
    assert set(document) >= COMPARE
    assert (document["a"], document["b"], document["verdict"]) == ("digits/1", "digits/3", "REJECT")
    assert document["diff"] < 0
    result = run_cli("registry", "compare", "1", "3")
    assert result.exit_code == 0, "a comparison answers; it does not judge"
    cells = dict(line.split("\t") for line in result.stdout.splitlines())
    assert float(cells["diff"]) == document["diff"]


def test_compare_writes_a_page(run_cli: RunCli, root: Path, tmp_path: Path) -> None:
    page = tmp_path / "changes.html"
    result = run_cli("registry", "compare", "digits", "3", "--html", str(page))
    assert result.exit_code == 0
    assert f"wrote {page}" in result.stderr
    assert "data:image/png;base64," in page.read_text(encoding="utf-8")
    gone = run_cli("registry", "compare", "digits", "3", "--html", str(tmp_path / "no" / "x.html"))
    assert gone.exit_code == 2


def test_a_version_of_one_epoch_is_refused_with_3(run_cli: RunCli, root: Path) -> None:
    result = run_cli("registry", "promote", "digits/3", "--json")
    assert result.exit_code == 3
    document = last_json(result.stdout)
    assert (document["promoted"], document["verdict"], document["champion"]) == (False, "REJECT", 1)
    assert last_json(result.stderr)["error"]["type"] == "VerdictError"
    (refusal, first) = history(run_cli)
    assert list(refusal) == HISTORY
    assert (refusal["action"], refusal["from"], refusal["to"]) == ("refuse", 1, 3)
    assert (first["action"], first["from"], first["revision"]) == ("promote", None, 1)


def test_a_dry_run_says_no_too_and_leaves_no_trace(run_cli: RunCli, root: Path) -> None:
    assert run_cli("registry", "promote", "3", "--dry-run").exit_code == 3
    assert run_cli("registry", "promote", "2", "--dry-run").exit_code == 0
    assert len(history(run_cli)) == 1


def test_promote_then_roll_back_until_nothing_is_left(run_cli: RunCli, root: Path) -> None:
    assert run_cli("registry", "promote", "2", "-q").stdout == "digits/2\n"
    result = run_cli("registry", "promote", "3", "--force", "--reason", "why not", "-q")
    assert (result.exit_code, result.stdout) == (0, "digits/3\n")
    assert run_cli("registry", "promote", "3").exit_code == 0, "the champion again: no change"
    assert run_cli("registry", "rollback", "-q").stdout == "digits/2\n"
    assert run_cli("registry", "rollback", "digits", "-q").stdout == "digits/1\n"
    result = run_cli("registry", "rollback")
    assert result.exit_code == 5
    assert "nothing to roll back" in result.stderr
    table = run_cli("registry", "history", "--limit", "2").stdout.splitlines()
    assert table[0].split("\t")[:3] == ["model_name", "revision", "at"]
    assert [row.split("\t")[1] for row in table[1:]] == ["5", "4"]


def test_force_without_a_reason_is_usage(run_cli: RunCli, root: Path) -> None:
    assert run_cli("registry", "promote", "3", "--force").exit_code == 2


def test_a_revision_that_is_gone_is_a_conflict(run_cli: RunCli, root: Path) -> None:
    assert run_cli("registry", "promote", "2", "--if-revision", "7").exit_code == 5


def test_what_does_not_exist_is_4(run_cli: RunCli, root: Path) -> None:
    for words in (
        ("compare", "digits/1", "digits/9"),
        ("promote", "digit/1"),
        ("rollback", "digit"),
        ("history", "digit"),
    ):
        result = run_cli("registry", *words)
        assert (result.exit_code, result.stdout) == (4, ""), words


def test_reproduce_is_exact_on_the_same_machine(
    mindtrace: Mindtrace, run_cli: RunCli, root: Path
) -> None:
    before = run_cli("registry", "list", "--json").stdout
    finished = mindtrace("reproduce", "digits/3", "--json")
    assert finished.returncode == 0, finished.stderr
    document = last_json(finished.stdout)
    assert document["verdict"] == "EXACT"
    assert document["weights_digest"] == document["registered_digest"]
    assert (document["max_difference"], document["changed_answers"]) == (0.0, 0)
    assert run_cli("registry", "list", "--json").stdout == before, "nothing was registered"


def test_reproduce_of_another_training_diverges_with_3(
    mindtrace: Mindtrace, versions: Path, root: Path
) -> None:
    """A bundle whose configuration has another seed than its weights had."""
    newest = max(
        versions.glob("mlartifacts/**/bundle/manifest.json"), key=lambda path: path.stat().st_mtime
    )
    bundle = root / "bundle"
    shutil.copytree(newest.parent, bundle)
    config = bundle / "config.ini"
    config.write_text(config.read_text().replace("\nseed = 0", "\nseed = 1"))
    (bundle / "manifest.json").unlink()
    manifest.seal(bundle)
    finished = mindtrace("reproduce", str(bundle), "--json")
    assert finished.returncode == 3, finished.stderr
    document = last_json(finished.stdout)
    assert document["verdict"] == "DIVERGED"
    assert document["max_difference"] > 0.01
    near = mindtrace("reproduce", str(bundle), "--tolerance", "1", "-q")
    assert (near.returncode, near.stdout) == (0, "NUMERIC\n")
