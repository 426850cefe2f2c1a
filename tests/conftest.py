"""Fixtures that all tests share: a clean environment, a ROOT, the command itself."""

from __future__ import annotations

import fcntl
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest import mock

import hypothesis
import pytest

from mindtrace.config.sections import SECTIONS

RunCli = Callable[..., Any]
Mindtrace = Callable[..., "subprocess.CompletedProcess[str]"]

_SECTION_NAMES = frozenset(name.upper() for name in SECTIONS)
_FOREIGN = ("MindtraceConfig", "COLUMNS", "FORCE_COLOR", "GITHUB_ACTIONS", "NO_COLOR", "PY_COLORS")
_QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "TERM": "dumb"}
_TIMEOUT = 300  # seconds: a process that hangs fails its test, not the whole run


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--soak 10`: ten times the examples and rounds, for `make proofs SOAK=10`."""
    parser.addoption("--soak", type=int, default=1, help="multiply examples and rounds by N")


def pytest_configure(config: pytest.Config) -> None:
    """Property tests draw the same examples everywhere; load must not fail them."""
    hypothesis.settings.register_profile(
        "mindtrace",
        deadline=None,
        derandomize=True,
        max_examples=100 * config.getoption("--soak"),
        suppress_health_check=[hypothesis.HealthCheck.too_slow],
    )
    hypothesis.settings.load_profile("mindtrace")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of the cases of a test marked `sampled(n)`, run n without `--soak`, evenly spread."""
    # The longest tests come first, or one process would still be at them after all others.
    items.sort(key=lambda item: item.get_closest_marker("long") is None)
    if config.getoption("--soak") > 1:
        return
    cases: dict[str, list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("sampled") and item.get_closest_marker("proof"):
            cases.setdefault(item.nodeid.partition("[")[0], []).append(item)
    left_out: set[pytest.Item] = set()
    for found in cases.values():
        count = found[0].get_closest_marker("sampled").args[0]  # type: ignore[union-attr]
        kept = {place * len(found) // count for place in range(count)}
        left_out |= {item for place, item in enumerate(found) if place not in kept}
    if left_out:
        config.hook.pytest_deselected(items=list(left_out))
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="session")
def soak(pytestconfig: pytest.Config) -> int:
    """By how much to multiply the rounds of an endurance test; 1 by default."""
    return int(pytestconfig.getoption("--soak"))


def _is_ours(name: str) -> bool:
    section, separator, _ = name.partition("__")
    return (bool(separator) and section.upper() in _SECTION_NAMES) or name.startswith("MLFLOW_")


def clean_environment() -> dict[str, str]:
    """The environment without anything that would change what mindtrace does."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not _is_ours(name) and name not in _FOREIGN
    }
    return {**kept, **_QUIET}


@pytest.fixture(scope="session", autouse=True)
def _signals() -> None:
    """Under `nohup`, or behind a shell's `&`, processes would not hear the signals of tests."""
    for signum in (signal.SIGHUP, signal.SIGINT):
        if signal.getsignal(signum) is signal.SIG_IGN:
            default = signal.default_int_handler if signum == signal.SIGINT else signal.SIG_DFL
            signal.signal(signum, default)


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test starts from the clean environment and gives it back."""
    clean = clean_environment()
    for name in set(os.environ) - set(clean):
        monkeypatch.delenv(name)
    for name, value in _QUIET.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is ROOT for this test and the processes it starts."""
    folder = tmp_path / "root"
    folder.mkdir()
    monkeypatch.setenv("DIR_PATHS__ROOT", str(folder))
    return folder


def invoke(
    *args: str, input: str | bytes | None = None, env: Mapping[str, str | None] | None = None
) -> Any:
    """The command in this process, through Typer's runner."""
    from typer.testing import CliRunner

    from mindtrace.cli.main import program

    given: Any = {"input": input, "env": env, "prog_name": "mindtrace"}
    with mock.patch.object(sys, "argv", ["mindtrace", *args]):  # hints begin with what was typed
        return CliRunner().invoke(program(), list(args), **given)


@pytest.fixture
def run_cli() -> RunCli:
    """`run_cli("predict", "a.png")`: the command in this process."""
    return invoke


@pytest.fixture
def mindtrace() -> Mindtrace:
    """`mindtrace("predict", "a.png")`: the command as a real process."""

    def run(
        *args: str, env: Mapping[str, str] | None = None, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "mindtrace", *args],
            capture_output=True,
            text=True,
            env={**os.environ, **(env or {})},
            timeout=_TIMEOUT,
            check=False,
            **options,
        )

    return run


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """The folder of this name, made by whichever process of a test run comes first."""
    base = factory.getbasetemp()
    shared = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    folder, done = shared / name, shared / f"{name}.done"
    with (shared / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            make(folder)
            done.touch()
    return folder


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ROOT with version 1 of `digits`; copy the folder before you change it."""
    return made_once(tmp_path_factory, "trained", _train_digits)


@pytest.fixture(scope="session")
def trained_bundle(trained: Path) -> Path:
    """The bundle of version 1 of `digits`; a copied ROOT puts its own beside it."""
    from mindtrace.config.settings import load_settings
    from mindtrace.registry.reference import locate

    settings = load_settings(environ={"DIR_PATHS__ROOT": str(trained)})
    return locate(settings, "digits/1").folder


def _train_digits(folder: Path) -> None:
    args = ("train", "--source", "digits", "--max-epochs", "3", "--lr", "0.003", "--quiet")
    # One thread: two of them beside other tests wait for each other at every step.
    args += ("--set", "compute.threads=1")
    clean = clean_environment()
    foreign = dict.fromkeys(set(os.environ) - set(clean))  # None takes a variable away
    done = invoke(*args, env={**foreign, **clean, "DIR_PATHS__ROOT": str(folder)})
    assert done.exit_code == 0, done.stderr
    assert done.stdout == "digits/1\n"  # with --quiet, the version and nothing else
    with closing(sqlite3.connect(folder / "mlflow.db")) as connection:
        connection.execute("pragma wal_checkpoint(truncate)")  # it may be copied
