"""Write docs/cli.md from `--help` and docs/api.md from the docstrings of the public names.

python docs/write_reference.py [--check]    --check only says what is out of date
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command
from typer.testing import CliRunner

from mindtrace.cli.main import program

HERE = Path(__file__).parent
_CLI = """# The command line

Written by `make docs` from `mindtrace --help`; change the help texts, not this file.
"""
_API = """# The Python API

Written by `make docs` from the docstrings; change those, not this file.
"""
_MODULES = ("mindtrace", "mindtrace.data", "mindtrace.models", "mindtrace.registry")
#: Names that are public, but not exported by a package above.
_MORE = (
    ("mindtrace.config.settings", ("Settings", "load_settings")),
    ("mindtrace.utils", None),
)


def cli() -> str:
    """The help of every command."""
    parts, app = [_CLI], program()
    for words in _commands(get_command(app)):
        result = CliRunner().invoke(app, [*words, "--help"], prog_name="mindtrace")
        title = " ".join(("mindtrace", *words))
        parts.append(f"## {title}\n\n```text\n{result.stdout.strip()}\n```\n")
    return "\n".join(parts)


def api() -> str:
    """Signature and docstring of every public name and of its methods."""
    parts = [_API]
    for module_name, names in (*((name, None) for name in _MODULES), *_MORE):
        module = importlib.import_module(module_name)
        parts.append(f"## {module_name}\n\n{inspect.getdoc(module)}\n")
        for name in names or module.__all__:
            found = getattr(module, name)
            if inspect.isclass(found) or inspect.isfunction(found):
                parts += _described(name, found)
    return "\n".join(parts)


def _commands(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of every command, groups before their commands."""
    yield words
    for name, inner in getattr(command, "commands", {}).items():
        if not inner.hidden:
            yield from _commands(inner, (*words, name))


def _described(name: str, found: Any) -> Iterator[str]:
    """A class or function, then the methods and properties that a class defines itself."""
    yield f"### `{name}{_signature(found)}`\n\n{_text(found)}"
    members = vars(found).items() if inspect.isclass(found) else ()
    for own, member in members:
        inner = getattr(member, "fget", None) or getattr(member, "__func__", member)
        # A hook of Lightning's is not for callers, unless it has more than a line to say.
        hook = any(hasattr(base, own) for base in found.__mro__[1:-1] if not _is_ours(base))
        if own.startswith("_") or not inspect.isfunction(inner) or not inner.__doc__:
            continue
        if not hook or "\n" in inner.__doc__:
            shown = own if isinstance(member, property) else f"{own}{_signature(inner)}"
            yield f"#### `{name}.{shown}`\n\n{_text(inner)}"


def _is_ours(kind: type) -> bool:
    return kind.__module__.startswith("mindtrace")


def _signature(found: Any) -> str:
    try:
        whole = inspect.signature(found)
    except ValueError:  # of a built-in base
        return ""
    shown = [one for name, one in whole.parameters.items() if name not in ("self", "cls")]
    text = str(whole.replace(parameters=shown)).removesuffix(" -> None").removesuffix(" -> 'None'")
    # Names without the quotes of a postponed annotation, and without their modules.
    text = re.sub(r"(: |-> )'([^']*)'", r"\1\2", text)
    return re.sub(r"\b(?:[a-z_]+\.)+(?=[A-Za-z])", "", text)


def _text(found: Any) -> str:
    return f"```text\n{inspect.getdoc(found) or ''}\n```\n"


def main() -> int:
    """Exit code 1 if `--check` finds a difference."""
    stale = []
    for name, text in (("cli.md", cli()), ("api.md", api())):
        file = HERE / name
        if not file.is_file() or file.read_text(encoding="utf-8") != text:
            stale.append(name)
            if "--check" not in sys.argv[1:]:
                file.write_text(text, encoding="utf-8")
    if stale and "--check" in sys.argv[1:]:
        sys.stderr.write(f"out of date in docs/: {', '.join(stale)}: make docs\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
