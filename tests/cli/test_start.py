"""The help of every command, and how the command itself is called."""

from __future__ import annotations

import re
import runpy
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import RunCli
from typer.main import get_command

from mindtrace.cli.console import EXIT_CODE_MEANINGS
from mindtrace.cli.main import program
from mindtrace.config.schema import ini_text
from mindtrace.config.sections import KEYS
from mindtrace.version import VERSION


def _verbs(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield words, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from _verbs(inner, (*words, name))


VERBS = dict(_verbs(get_command(program())))
GROUPS = {words[-2] for words in VERBS if len(words) > 1}
COMMON = {"--config", "--set", "--json", "--quiet", "-q", "--verbose", "-v", "--debug"}


def test_help_tells_every_exit_code(run_cli: RunCli) -> None:
    text = run_cli("--help").stdout
    assert text.startswith("Usage: mindtrace ")
    for code, meaning in EXIT_CODE_MEANINGS:
        assert f"{code:<5}{meaning}" in text


@pytest.mark.parametrize("words", VERBS, ids=" ".join)
def test_everything_has_a_help_text_and_every_verb_the_common_options(
    words: tuple[str, ...],
) -> None:
    verb = VERBS[words]
    assert verb.help
    for parameter in verb.params:
        assert parameter.help, f"{words}: {parameter.name}"
    options = {option for parameter in verb.params for option in parameter.opts}
    assert hasattr(verb, "commands") or options >= COMMON


# Without them nothing is left out, written, waited for or asked.
OFF = {"--base", "--columns", "--html", "--if-revision", "--key", "--out", "--reason", "--resume"}
OFF |= {"--set", "--sheet", "--sort", "--url", "--where"}


@pytest.mark.parametrize("words", [words for words in VERBS if words and words[-1] not in GROUPS])
def test_help_shows_defaults_and_two_examples_that_parse(
    words: tuple[str, ...], run_cli: RunCli
) -> None:
    verb = VERBS[words]
    for parameter in verb.params:
        if parameter.param_type_name == "argument" or parameter.hidden or parameter.is_flag:
            continue
        if place := re.search(r"\((\w+)\.(\w+)\)\.", parameter.help):
            declared = KEYS[place[1], place[2]]
            default = ini_text(declared, declared.default)
            assert parameter.help.partition("  ")[2] == (f"[default: {default}]" if default else "")
        else:
            shown = parameter.default is not None or "default" in parameter.help
            assert shown or parameter.required or parameter.opts[0] in OFF, parameter.name

    text = run_cli(*words, "--help", env={"COLUMNS": "80"}).stdout
    assert max(map(len, text.splitlines())) <= 80
    examples = text.partition("\n  Examples:\n")[2].splitlines()
    assert len(examples) == len({*examples}) == 2
    for example in examples:
        first, *typed = shlex.split(example)
        assert (first, *typed[: len(words)]) == ("mindtrace", *words)
        verb.make_context(example, typed[len(words) :])


def test_short_help_and_version(run_cli: RunCli) -> None:
    assert run_cli("train", "-h").stdout == run_cli("train", "--help").stdout
    assert run_cli("--version").stdout == f"mindtrace {VERSION}\n"


@pytest.mark.parametrize(
    ("words", "out", "errors"),
    [
        ([], "Commands:", []),
        (
            ["trian"],
            "",
            [
                "error: No such command 'trian'. Did you mean 'train', 'retrain'?",
                "hint: mindtrace --help",
            ],
        ),
        (["registry"], "", ["error: Missing command.", "hint: mindtrace registry --help"]),
    ],
)
def test_no_command(run_cli: RunCli, words: list[str], out: str, errors: list[str]) -> None:
    result = run_cli(*words)
    assert (result.exit_code, result.stderr.splitlines()) == (2, errors)
    assert out in result.stdout


def test_the_reference_is_up_to_date() -> None:
    docs = Path(__file__).parents[2] / "docs"
    made = runpy.run_path(str(docs / "write_reference.py"))
    for name in ("cli", "api"):
        assert (docs / f"{name}.md").read_text(encoding="utf-8") == made[name](), "make docs"
