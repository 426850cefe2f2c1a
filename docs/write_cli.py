"""Write docs/cli.md from `--help`, or with `--check` say whether it is up to date.

python docs/write_cli.py [--check]
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command
from typer.testing import CliRunner

from mindtrace.cli.main import program

TARGET = Path(__file__).with_name("cli.md")
_HEAD = """# The command line

Written by `make docs` from `mindtrace --help`; change the help texts, not this file.
"""


def verbs(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of every command, groups before their verbs."""
    yield words
    for name, inner in getattr(command, "commands", {}).items():
        if not inner.hidden:
            yield from verbs(inner, (*words, name))


def reference() -> str:
    """The whole document."""
    parts = [_HEAD]
    for words in verbs(get_command(program())):
        result = CliRunner().invoke(program(), [*words, "--help"], prog_name="mindtrace")
        parts.append(
            f"## {' '.join(('mindtrace', *words))}\n\n```text\n{result.stdout.strip()}\n```\n"
        )
    return "\n".join(parts)


def main() -> int:
    """Exit code 1 if `--check` finds a difference."""
    text = reference()
    if "--check" not in sys.argv[1:]:
        TARGET.write_text(text, encoding="utf-8")
        return 0
    if TARGET.is_file() and TARGET.read_text(encoding="utf-8") == text:
        return 0
    sys.stderr.write("docs/cli.md is out of date: make docs\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
