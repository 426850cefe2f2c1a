"""`mindtrace registry compare|promote|rollback|history` and `mindtrace reproduce`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import documents, rows
from tests.conftest import Mindtrace, RunCli, invoke

from mindtrace.bundle import manifest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def versions(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ROOT with the session's version 1, the same again as 2, and one of a single epoch as 3."""
    folder = tmp_path_factory.mktemp("versions") / "root"
    shutil.copytree(trained, folder)
    train = ("train", "--source", "digits", "--quiet", "--set", "compute.threads=1")
    for words in (("--max-epochs", "3", "--lr", "0.003"), ("--max-epochs", "1")):
        done = invoke(*train, *words, env={"DIR_PATHS__ROOT": str(folder)})
        assert done.exit_code == 0, done.stderr
    return folder


@pytest.fixture
def root(versions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it."""
    folder = tmp_path / "root"
    shutil.copytree(versions, folder)
    monkeypatch.setenv("DIR_PATHS__ROOT", str(folder))
    return folder


def last_json(text: str) -> dict[str, Any]:
    return documents(text)[-1]


def history(run_cli: RunCli) -> list[dict[str, Any]]:
    result = run_cli("registry", "history", "digits", "--json")
    assert result.exit_code == 0
    return documents(result.stdout)


def test_compare_as_json_in_a_pipe_and_as_a_page(
    run_cli: RunCli, root: Path, tmp_path: Path
) -> None:
    document = last_json(run_cli("registry", "compare", "digits/1", "3", "--json").stdout)
    assert (document["a"], document["b"], document["verdict"]) == ("digits/1", "digits/3", "REJECT")
    assert document["diff"] < 0
    result = run_cli("registry", "compare", "1", "3")
    assert result.exit_code == 0, "a comparison answers; it does not judge"
    cells = dict(rows(result.stdout))
    assert float(cells["diff"]) == document["diff"]

    page = tmp_path / "changes.html"
    result = run_cli("registry", "compare", "digits", "3", "--html", str(page))
    assert (result.exit_code, f"wrote {page}" in result.stderr) == (0, True)
    assert "data:image/png;base64," in page.read_text(encoding="utf-8")
    gone = run_cli("registry", "compare", "digits", "3", "--html", str(tmp_path / "no" / "x.html"))
    assert gone.exit_code == 2


def test_a_version_of_one_epoch_is_refused_with_3(run_cli: RunCli, root: Path) -> None:
    assert run_cli("registry", "promote", "3", "--dry-run").exit_code == 3
    assert run_cli("registry", "promote", "2", "--dry-run").exit_code == 0
    result = run_cli("registry", "promote", "digits/3", "--json")
    assert result.exit_code == 3
    document = last_json(result.stdout)
    assert (document["promoted"], document["verdict"], document["champion"]) == (False, "REJECT", 1)
    assert last_json(result.stderr)["error"]["type"] == "VerdictError"
    (refusal, first) = history(run_cli)
    assert (refusal["action"], refusal["from"], refusal["to"]) == ("refuse", 1, 3)
    assert (first["action"], first["from"], first["revision"]) == ("promote", None, 1)


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
    header, *entries = rows(run_cli("registry", "history", "--limit", "2").stdout)
    assert header[:3] == ["model_name", "revision", "at"]
    assert [row[1] for row in entries] == ["5", "4"]


def test_what_does_not_exist(run_cli: RunCli, root: Path) -> None:
    for line in ("compare 1 9", "promote digit/1", "rollback digit", "history digit"):
        result = run_cli("registry", *line.split())
        assert (result.exit_code, result.stdout) == (4, ""), line


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


@pytest.mark.proof
def test_reproduce_of_another_training_diverges_with_3(run_cli: RunCli, root: Path) -> None:
    """A bundle whose configuration has another seed than its weights had."""
    bundle = root / "bundle"
    exported = run_cli("registry", "export", "digits/3", str(bundle))
    assert exported.exit_code == 0, exported.stderr
    config = bundle / "config.ini"
    config.write_text(config.read_text().replace("\nseed = 0", "\nseed = 1"))
    (bundle / "manifest.json").unlink()
    manifest.seal(bundle)
    finished = run_cli("reproduce", str(bundle), "--json")
    assert finished.exit_code == 3, finished.stderr
    document = last_json(finished.stdout)
    assert document["verdict"] == "DIVERGED"
    assert document["max_difference"] > 0.01
    near = run_cli("reproduce", str(bundle), "--tolerance", "1", "-q")
    assert (near.exit_code, near.stdout) == (0, "NUMERIC\n")
