"""The README is typed from its first block to its last, and what it shows is what comes out.

A block fenced as `console` is a shell session: `$ ` begins a command, the lines below are
its output. `...` stands for anything, within a line or for lines. The commands of indented blocks
and the `python` blocks must succeed. All run in order in one shell with an empty HOME, in a fresh
folder with a copy of `examples/` and some images, on a port that is free.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image
from tests.cli.test_train_path import pets
from tests.data.conftest import idx_contents

PROJECT = Path(__file__).parents[1]
README = PROJECT / "README.md"
PORT = "8000"
END = "end-of-command"


@dataclass(frozen=True)
class Step:
    """A command and the output that the README promises."""

    command: str
    output: str


_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$|((?:^    [^\n]+\n)+)", re.MULTILINE | re.DOTALL)
# What is typed otherwise here: a worker runs until somebody stops it.
_WORKER = """mindtrace worker 2> worker.log &
until grep "takes jobs" worker.log; do sleep 0.1; done; kill -TERM $!; wait $!"""
# Nothing was interrupted; and the tests run no tests.
_ENDS = {"mindtrace train --resume last": 4}
_LEFT_OUT = ("make demo", "make test")


def steps(text: str) -> list[Step]:
    found = []
    for kind, block, indented in _BLOCK.findall(text):
        lines = indented.splitlines() if indented else []
        commands = [line.partition("#")[0].strip() for line in lines]
        if kind == "python":
            fewer = block.replace("MNIST()", "MNIST(num_train=5000, num_val=1000)")  # as there are
            commands = [f"python - <<'END'\n{fewer}END"]
        for command in commands:
            if command not in _LEFT_OUT:
                typed = _WORKER if command == "mindtrace worker" else command
                ends = f"exit {_ENDS.get(command, 0)}"
                found.append(Step(f"({typed}\n) > said.txt 2>&1; echo exit $?", ends))
        if kind != "console":
            continue
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            lines = part.splitlines()
            length = 1
            while lines[length - 1].endswith("\\"):
                length += 1
            found.append(Step("\n".join(lines[:length]), "\n".join(lines[length:]).strip()))
    return found


# What differs from run to run, as the README shows it, and what may stand there instead.
CHANGING = (
    (r"\d{4}-\d{2}-\d{2}T[\d:.]+\+00:00", r"[\dT:.+-]+"),
    (r"\d{8}T\d{12}-[0-9a-f]{8}", r"\d{8}T\d{12}-[0-9a-f]{8}"),
    (r"\b[0-9a-f]{32,64}\b", r"[0-9a-f]{32,64}"),
    (r"\b\d+\.\d+(?:e-\d+)?\b(?!\.)", r"\d+\.\d+(?:e-\d+)?"),
)


def as_pattern(output: str) -> re.Pattern[str]:
    """`...` for anything, another number for a number with a point, white space as it comes."""
    parts = [r"\s+".join(map(_word, part.split())) for part in output.split("...")]
    joined = r".*?".join(rf"\s*{part}\s*" for part in parts)
    return re.compile(rf"\s*{joined}\s*", re.DOTALL)


def _word(word: str) -> str:
    for shown, allowed in CHANGING:
        found = re.search(shown, word)
        if found and "127.0.0.1" not in word:
            return _word(word[: found.start()]) + allowed + _word(word[found.end() :])
    return re.escape(word)


class Shell:
    """One bash for all commands, so that jobs and variables live on."""

    def __init__(self, folder: Path) -> None:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self._process = subprocess.Popen(
            ["bash"],
            cwd=folder,
            env={**os.environ, "PATH": path, "HOME": str(folder.parent / "home")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, command: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{command}\necho; echo {END}\n")
        self._process.stdin.flush()
        lines: list[str] = []
        for line in self._process.stdout:
            if line.strip() == END:
                return "".join(lines)
            lines.append(line)
        raise AssertionError(f"the shell ended in: {command}\n{''.join(lines)}")

    def close(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    folder = tmp_path / "work"
    folder.mkdir()
    shutil.copytree(PROJECT / "examples", folder / "examples")
    pets(folder / "photos")
    (folder / "My labels.csv").rename(folder / "labels.csv")
    (folder / "scans").mkdir()
    Image.new("L", (8, 8)).save(folder / "scans" / "1.jpg")
    # What a download would bring.
    raw = tmp_path / "home/.cache/mindtrace/data/MNIST/raw"
    raw.mkdir(parents=True)
    for name, content in idx_contents({"train": 6000, "t10k": 500}, (28, 28)).items():
        (raw / name).write_bytes(content)
    opened = Shell(folder)
    yield opened
    opened.close()


@pytest.mark.proof
@pytest.mark.slow
@pytest.mark.long
def test_what_the_readme_shows_is_what_comes_out(shell: Shell) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    found = steps(README.read_text(encoding="utf-8"))
    assert len(found) >= 25, "the README shows too little"

    for step in found:
        output = shell.run(step.command.replace(PORT, port)).replace(port, PORT)
        assert as_pattern(step.output).fullmatch(output), (
            f"$ {step.command}\nshould print\n{step.output}\nand printed\n{output}"
            + shell.run("cat said.txt serve.log")
        )


def test_the_pattern_takes_only_what_fits() -> None:
    pattern = as_pattern('version ...  ok\n...\n"label":0,"confidence":0.98')
    assert pattern.fullmatch('version 3 ok\nmore\n"label":0,"confidence":0.7\n')
    assert not pattern.fullmatch('version 3 not\nmore\n"label":0,"confidence":0.98\n')
    assert not pattern.fullmatch('version 3 ok\nmore\n"label":1,"confidence":0.98\n')


def test_every_file_that_the_documents_link_to_exists() -> None:
    for document in ("README.md", "DESIGN.md", "CONTRIBUTING.md"):
        text = (PROJECT / document).read_text(encoding="utf-8")
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)\)", text):
            assert (PROJECT / target).exists(), f"{document} links to {target}"
