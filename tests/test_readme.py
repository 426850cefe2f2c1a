"""The README's commands are run, and what it shows is what comes out.

A block fenced as `console` is a shell session: `$ ` begins a command, the lines below are
its output. `...` stands for anything, within a line or for lines. All blocks run in order
in one shell, in a fresh folder with a copy of `examples/`, on a port that is free.
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

PROJECT = Path(__file__).parents[1]
README = PROJECT / "README.md"
PORT = "8000"
END = "end-of-command"


@dataclass(frozen=True)
class Step:
    """A command and the output that the README promises."""

    command: str
    output: str


def steps(text: str) -> list[Step]:
    found = []
    for block in re.findall(r"^```console\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
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
            env={**os.environ, "PATH": path},
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
def shell(root: Path, tmp_path: Path) -> Iterator[Shell]:
    folder = tmp_path / "work"
    folder.mkdir()
    shutil.copytree(PROJECT / "examples", folder / "examples")
    opened = Shell(folder)
    yield opened
    opened.close()


@pytest.mark.proof
@pytest.mark.slow
def test_what_the_readme_shows_is_what_comes_out(shell: Shell) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    found = steps(README.read_text(encoding="utf-8"))
    assert len(found) >= 8, "the README shows too little"

    for step in found:
        output = shell.run(step.command.replace(PORT, port)).replace(port, PORT)
        assert as_pattern(step.output).fullmatch(output), (
            f"$ {step.command}\nshould print\n{step.output}\nand printed\n{output}"
        )


def test_the_pattern_takes_only_what_fits() -> None:
    pattern = as_pattern("version ...  ok\n...\nend")

    assert pattern.fullmatch("version 3 ok\nmore\nend\n")
    assert not pattern.fullmatch("version 3 not\nmore\nend\n")
    assert as_pattern('"label":0,"confidence":0.98').fullmatch('"label":0,"confidence":0.7')
    assert not as_pattern('"label":0,"confidence":0.98').fullmatch('"label":1,"confidence":0.98')


def test_every_file_that_the_documents_link_to_exists() -> None:
    for document in ("README.md", "DESIGN.md", "CONTRIBUTING.md"):
        text = (PROJECT / document).read_text(encoding="utf-8")
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)\)", text):
            assert (PROJECT / target).exists(), f"{document} links to {target}"
