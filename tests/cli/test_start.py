"""What a start of the command loads, and what its help says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.main import get_command

from mindtrace.cli.console import EXIT_CODE_MEANINGS
from mindtrace.cli.main import program
from mindtrace.version import VERSION

HEAVY = {
    *("torch", "torchvision", "pytorch_lightning", "mlflow", "onnx", "onnxruntime"),
    *("fastapi", "uvicorn", "numpy", "PIL", "sklearn", "pandas", "asyncio"),
}
RunCli = Callable[..., Any]


def _verbs(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield words, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from _verbs(inner, (*words, name))


VERBS = dict(_verbs(get_command(program())))
LEAVES = {words: verb for words, verb in VERBS.items() if not hasattr(verb, "commands")}


def _loaded_by(*args: str) -> set[str]:
    """The top-level packages that a process of the command ends with."""
    code = (
        "import json, sys\n"
        "from mindtrace.cli.main import main\n"
        "try:\n    main()\n"
        "finally:\n    print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})),"
        " file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *args], capture_output=True, text=True, env=dict(os.environ)
    )
    return set(json.loads(done.stderr.splitlines()[-1]))


@pytest.mark.parametrize(
    "args", [["--help"], ["train", "--help"], ["--version"], ["config", "show"], ["predict"]]
)
def test_a_light_start(args: list[str], root: Path) -> None:
    allowed = {"asyncio", "numpy"} if args == ["predict"] else set()
    assert _loaded_by(*args) & (HEAVY - allowed) == set()


@pytest.mark.slow
def test_a_light_prediction(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIR_PATHS__ROOT", str(trained))
    image = tmp_path / "grey.png"
    Image.new("L", (8, 8), 90).save(image)
    needed = {"numpy", "PIL", "onnxruntime"}
    loaded = _loaded_by("predict", str(image))
    assert loaded >= needed
    assert loaded & (HEAVY - needed) == set()


def test_a_pipe_needs_no_rich(root: Path) -> None:
    assert "rich" not in _loaded_by("config", "show")
    assert "rich" not in _loaded_by("--help")


def test_help_tells_every_exit_code(run_cli: RunCli) -> None:
    text = run_cli("--help").stdout
    assert text.startswith("Usage: mindtrace ")
    for code, meaning in EXIT_CODE_MEANINGS:
        assert f"{code:<5}{meaning}" in text


@pytest.mark.parametrize("words", VERBS, ids=" ".join)
def test_everything_has_a_help_text(words: tuple[str, ...], run_cli: RunCli) -> None:
    result = run_cli(*words, "--help")
    assert result.exit_code == 0
    assert VERBS[words].help
    for parameter in VERBS[words].params:
        assert parameter.help, f"{words}: {parameter.name}"


@pytest.mark.parametrize("words", LEAVES, ids=" ".join)
def test_every_verb_has_the_common_options(words: tuple[str, ...]) -> None:
    options = {option for parameter in LEAVES[words].params for option in parameter.opts}
    assert options >= {"--config", "--set", "--json", "--quiet", "-q", "--verbose", "-v", "--debug"}


def test_short_help(run_cli: RunCli) -> None:
    assert run_cli("train", "-h").stdout == run_cli("train", "--help").stdout


def test_version(run_cli: RunCli) -> None:
    assert run_cli("--version").stdout == f"mindtrace {VERSION}\n"


def test_no_verb_shows_the_help_and_is_wrong_usage(run_cli: RunCli) -> None:
    result = run_cli()
    assert result.exit_code == 2
    assert "Commands:" in result.stdout


def test_a_verb_that_does_not_exist(run_cli: RunCli) -> None:
    result = run_cli("trian")
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        "error: No such command 'trian'. Did you mean 'train', 'retrain'?",
        "hint: mindtrace --help",
    ]


def test_a_group_without_its_verb(run_cli: RunCli) -> None:
    result = run_cli("registry")
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1] == "hint: mindtrace registry --help"


def test_shell_completion(mindtrace: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = mindtrace(
        env={
            "_MINDTRACE_COMPLETE": "complete_bash",
            "COMP_WORDS": "mindtrace tr",
            "COMP_CWORD": "1",
        }
    )
    assert done.stdout.split() == ["train"]


def test_the_reference_is_up_to_date() -> None:
    script = Path(__file__).parents[2] / "docs" / "write_reference.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_reader_of_a_pipe_may_leave(root: Path) -> None:
    """A closed pipe is no error to talk about."""
    program = [sys.executable, "-m", "mindtrace", "config", "show"]
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(program, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")
