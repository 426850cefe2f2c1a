"""Where a version comes from: code, machine, time, person."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mindtrace.registry.provenance import environment, git_state, times, who
from mindtrace.version import VERSION


def git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    done = subprocess.run(
        ["git", "-C", str(folder), *identity, *words], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q")
    (tmp_path / "train.py").write_text("1\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "one")
    return tmp_path


def test_the_commit_and_whether_there_are_changes(repository: Path) -> None:
    head = git(repository, "rev-parse", "HEAD")

    assert git_state(repository) == {"git_commit": head, "git_dirty": "false"}
    (repository / "notes.txt").write_text("untracked is no change")
    assert git_state(repository)["git_dirty"] == "false"
    (repository / "train.py").write_text("2\n")
    assert git_state(repository) == {"git_commit": head, "git_dirty": "true"}


def test_without_a_repository_or_without_git_nothing_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert git_state(tmp_path / "nowhere") == {}
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state(tmp_path) == {}


def test_a_repository_without_a_commit_has_none(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")

    assert git_state(tmp_path) == {}


def test_the_environment_names_what_trains() -> None:
    found = environment()

    assert found["mindtrace"] == VERSION
    assert set(found) >= {"mindtrace", "torch", "lightning", "python", "platform"}
    assert all(found.values())


def test_a_user_without_a_name_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 4711")

    monkeypatch.setattr("getpass.getuser", nobody)
    assert who() == "unknown"


def test_times_are_utc_and_iso_8601() -> None:
    start = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)

    assert times(start, start + timedelta(seconds=1.5)) == {
        "started_at": "2026-01-02T03:04:05.678+00:00",
        "ended_at": "2026-01-02T03:04:07.178+00:00",
        "duration_s": "1.500",
    }
