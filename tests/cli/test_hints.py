"""Every command that mindtrace prints can be pasted: it exists, and so does each option."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from PIL import Image
from tests.conftest import RunCli

import mindtrace
from mindtrace.cli.main import program

# Where an explanation begins, after a command.
_END = re.compile(r"  #| - |, |; |: |\.$|\.\.\.|<|[`'\"]")
_PROSE = {"cannot", "did", "keeps", "mlflow", "server", "name", "reads"}


def _texts(tree: ast.Module) -> Iterator[str]:
    """Strings of a module that are no docstrings; what is filled in reads X."""
    inner: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr):  # a docstring
            inner.add(id(node.value))
        elif isinstance(node, ast.JoinedStr):
            inner |= {id(part) for part in node.values}
            yield "".join(
                str(part.value) if isinstance(part, ast.Constant) else "X" for part in node.values
            )
        elif (
            isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inner
        ):
            yield node.value


def _printed() -> list[str]:
    found = set()
    for path in Path(mindtrace.__path__[0]).rglob("*.py"):
        for text in _texts(ast.parse(path.read_text(encoding="utf-8"))):
            for start in re.finditer(r"\bmindtrace (?=[a-z])", text):
                command = _END.split(text[start.start() :] + " ")[0].strip()
                if command.split()[1] not in _PROSE:
                    found.add(command.rstrip("."))
    return sorted(found)


def _hints() -> Iterator[str]:
    """The texts that are given as hints: to errors, to checks of doctor, in tables of hints."""
    for path in Path(mindtrace.__path__[0]).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword) and node.arg == "hint":
                yield from _texts(ast.Module([ast.Expr(ast.Tuple([node.value]))], []))
            elif isinstance(node, ast.Assign):
                names = [ast.unparse(target).rpartition(".")[2] for target in node.targets]
                if any(re.search("(?i)hint|^_LISTS", name) for name in names):
                    yield from _texts(ast.Module([ast.Expr(ast.Tuple([node.value]))], []))


def test_a_hint_that_names_a_command_or_an_option_begins_with_it() -> None:
    found = {text for text in _hints() if re.search(r"\bmindtrace [a-z]|(?<!\S)--[a-z]", text)}
    assert len(found) > 40
    for text in found:
        code, _, remark = text.partition("  #")
        assert re.match("mindtrace [a-z]|--[a-z]|openssl |pip install |X --[a-z]", code), text
        assert not re.search(r" - |, |\.$", code) and remark.startswith(" ") is bool(remark), text


def test_there_are_such_commands() -> None:
    assert "mindtrace train" in _printed() and len(_printed()) > 20


@pytest.mark.parametrize("line", _printed())
def test_a_printed_command_exists_with_its_options(line: str) -> None:
    command: Any = typer.main.get_command(program())
    words = shlex.split(line)[1:]
    while hasattr(command, "commands"):
        assert words and words[0] in command.commands, line
        command = command.commands[words.pop(0)]
    known = {name for one in command.params for name in one.opts}
    options = [word for word in words if word.startswith("--")]
    assert set(options) <= known | {"--help"}, line
    if words and "--help" not in options:
        command.make_context(line, [word.replace("N", "7") for word in words])


@pytest.mark.parametrize(
    ("command", "placeholders"),
    [
        ("train --source digits --max-epochs 1 --set compute.threads=1", {"IMAGE": "image.png"}),
        ("data check 'my images'", {}),
        ("config init 'my file.ini'", {}),
        ("registry export digits/1 'my version'", {}),
        ("retrain --set data.source=digits", {}),
        ("registry show nothing", {}),
        ("registry show digits/9", {}),
        ("registry show digits@nothing", {}),
        ("jobs show nothing", {}),
        ("config init taken.ini", {}),
        ("train --set train.epochs=3", {}),
        ("predict image.png --model digits/1 --url http://127.0.0.1:1", {"REF": "digits/1"}),
        ("registry verify digits --all", {}),
        ("registry rollback digits", {}),
        ("nothing", {}),
        ("data check leaky", {}),
        ("train --source digits --device cuda", {}),
        ("train --source digits --max-epochs 1 --batch-size 1 --model resnet18", {}),
        ("train 'my images' --source digits", {}),
        ("train --source digits --set DIR_PATHS.ROOT=taken.ini", {"FOLDER": "new"}),
        ("train --config 'my missing.ini'", {}),
        ("config init nowhere/a.ini", {}),
        ("predict image.png --token-file t", {"URL": "http://127.0.0.1:1"}),
        ("predict image.png --url http://127.0.0.1:1", {}),
        ("predict image.png --url nothing", {}),
        ("predict image.png --set DIR_PATHS.ROOT=new", {}),
        ("reproduce digits/9", {}),
        ("retrain --warm-start", {"NAME": "digits"}),
        ("registry list --where 'val_ac > 1'", {}),
        ("registry list --sort=nothing", {}),
        ("registry list --columns nothing", {}),
        ("registry promote digits/1 --force", {"TEXT": "why"}),
        ("registry alias digits/1 champion", {}),
        ("registry delete digits/1", {}),
        ("registry gc --keep 0", {}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.slow
def test_what_is_printed_runs(
    digits_copy: Path,
    run_cli: RunCli,
    command: str,
    placeholders: dict[str, str],
) -> None:
    stderr = run_cli(*shlex.split(command)).stderr
    (line,) = [text for text in stderr.splitlines() if text.startswith(("next: ", "hint: "))]
    typed = line[6:]
    for name, value in {**placeholders, "PATH": "image.png"}.items():
        typed = re.sub(rf"\b{name}\b", value, typed)
    words = shlex.split(typed, comments=True)  # as a shell reads the whole line
    assert words[0] == "mindtrace", line
    ends = {
        "train": ["--dry-run", "--set", "data.source=digits", "--set", "model.weights=none"],
        "serve": ["--host", "0.0.0.0"],  # it would go on; without a token it ends
    }
    done = run_cli(*words[1:], *ends.get(words[1], []))
    known = ("needs a token", "no answer from http://127.0.0.1:")
    assert done.exit_code == 0 or any(one in done.stderr for one in known), done.stderr


@pytest.fixture
def digits_copy(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder and a copy of the ROOT with version 1 of digits, which may be changed."""
    import shutil

    root = tmp_path / "root"
    shutil.copytree(trained, root)
    monkeypatch.setenv("DIR_PATHS__ROOT", str(root))
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate("aabb" * 5):
        folder = tmp_path / "my images" / name
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), number * 10).save(folder / f"{number}.png")
    for folder in ("train/a", "train/b", "test/a", "test/b"):
        (tmp_path / "leaky" / folder).mkdir(parents=True)
        for number in range(5 if folder.startswith("train") else 1):
            grey = Image.new("L", (8, 8), 10 * number + ord(folder[-1]))
            grey.save(tmp_path / "leaky" / folder / f"{number}.png")
    Image.new("L", (8, 8)).save(tmp_path / "image.png")
    (tmp_path / "taken.ini").write_text("")
    return root
