"""The decorator that makes verbs: common options in, one line and an exit code out."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from mindtrace.cli.command import Call, command, option
from mindtrace.cli.main import Program
from mindtrace.errors import ConfigError, Fault, NotFoundError

Run = Callable[..., Any]


@pytest.fixture
def verb() -> Run:
    """Runs a command line over a program whose verb `do` does what the test says."""

    def run(work: Callable[[Call], None], *args: str) -> Any:
        program = typer.Typer(cls=Program, pretty_exceptions_enable=False)

        @program.callback()
        def _root() -> None: ...

        @command(program)
        def do(call: Call, size: int = option("INT", "A number.", default=1, min=1)) -> None:
            """Do it."""
            call.console.line(f"size {size}")
            work(call)

        return CliRunner().invoke(program, ["do", *args])

    return run


def _raising(error: BaseException) -> Callable[[Call], None]:
    def work(call: Call) -> None:
        raise error

    return work


def test_own_and_common_options_reach_the_verb(verb: Run) -> None:
    seen: list[Call] = []
    result = verb(
        seen.append, "--size", "3", "--config", "a.ini", "--set", "train.lr=1", "--set", "x.y=2"
    )
    assert (result.exit_code, result.stdout) == (0, "size 3\n")
    assert (seen[0].config, seen[0].sets) == ("a.ini", ("train.lr=1", "x.y=2"))


def test_an_error_is_a_line_and_a_hint(verb: Run) -> None:
    error = NotFoundError("model", "mnits", ["mnist"], hint="mindtrace registry list")
    message = "no model 'mnits', did you mean 'mnist'? there are: mnist"
    lines = [f"error: {message}", "hint: mindtrace registry list"]
    result = verb(_raising(error))
    assert (result.exit_code, result.stderr.splitlines()) == (4, lines)

    debug = verb(_raising(error), "--debug")
    assert (debug.exit_code, debug.stderr.splitlines()[-2:]) == (4, lines)
    assert "Traceback" in debug.stderr

    fields = {"type": "NotFoundError", "message": message, "hint": "mindtrace registry list"}
    last = json.loads(verb(_raising(error), "--json").stderr.splitlines()[-1])
    assert last == {"schema_version": 1, "error": fields}


def test_every_fault_of_a_configuration_is_a_line(verb: Run) -> None:
    faults = [Fault("a.ini", 3, "train", "lr", "one"), Fault("--set", None, None, None, "two")]
    lines = ["error: a.ini:3: one", "error: --set: two"]
    assert verb(_raising(ConfigError(faults))).stderr.splitlines() == lines
    last = json.loads(verb(_raising(ConfigError(faults)), "--json").stderr.splitlines()[-1])
    assert last["error"]["faults"] == [asdict(fault) for fault in faults]


def test_ctrl_c_is_130_and_an_exit_code_of_the_verbs_own_stays(verb: Run) -> None:
    result = verb(_raising(KeyboardInterrupt()))
    assert (result.exit_code, result.stderr) == (130, "error: stopped by SIGINT\n")
    assert verb(_raising(typer.Exit(3))).exit_code == 3


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--size", "0"], "--size"),
        (["--size", "many"], "--size"),
        (["--sise", "3"], "--sise"),
        (["extra"], "extra"),
    ],
)
def test_wrong_usage_is_one_line_and_2(verb: Run, words: list[str], part: str) -> None:
    result = verb(lambda call: None, *words)
    assert (result.exit_code, result.stdout) == (2, "")
    error, hint = result.stderr.splitlines()
    assert error.startswith("error: ")
    assert part in error
    assert hint.endswith("do --help")
    as_json = verb(lambda call: None, "--json", *words)
    assert (as_json.exit_code, json.loads(as_json.stderr)["error"]["type"]) == (2, "UsageError")
