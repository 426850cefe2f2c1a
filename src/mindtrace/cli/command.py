"""Turns a function into a command: common options, settings, errors to exit codes."""

from __future__ import annotations

import functools
import inspect
import os
import re
import signal
import sys
import typing
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import typer

from mindtrace.cli import completion
from mindtrace.cli.console import BROKEN_PIPE, Console, is_terminal
from mindtrace.config.schema import ini_text
from mindtrace.config.sections import KEYS
from mindtrace.errors import InterruptedByUser

if TYPE_CHECKING:
    from mindtrace.config.settings import Settings

# Rich draws help on a terminal; a pipe gets plain text, and the import of Rich is saved.
MARKUP: Literal["rich"] | None = "rich" if is_terminal(sys.stdout) else None


class Declared(NamedTuple):
    """How Typer shows a parameter of a command, and its default."""

    shown: Any
    default: Any


# They return Any, as what they declare is the default of a parameter of any type.
def option(metavar: str | None, text: str, *names: str, default: Any = None, **more: Any) -> Any:
    """Declare an option with a value; with `...` as its default it must be given."""
    return Declared(typer.Option(*names, metavar=metavar, help=_shown(text), **more), default)


def setting(metavar: str, key: str, text: str, complete: Any = None, *names: str) -> Any:
    """Declare the option of a key of the configuration; help names the key and its default."""
    section, _, name = key.partition(".")
    default = ini_text(KEYS[section, name], KEYS[section, name].default)
    shown = f"{text} ({key})." + (f"  [default: {default}]" if default else "")
    return option(metavar, shown, *names, autocompletion=complete)


def flag(name: str, text: str, *short: str, **more: Any) -> Any:
    """Declare an option without a value, off by default."""
    return Declared(typer.Option(name, *short, help=_shown(text), **more), False)


def argument(metavar: str, text: str, complete: Any = None, *, default: Any = ...) -> Any:
    """Declare an argument; without a default it must be given."""
    shown = typer.Argument(metavar=metavar, help=_shown(text), autocompletion=complete)
    return Declared(shown, default)


def _shown(text: str) -> str:
    """A text as help shows it; Rich would take `[jobs]` for one of its styles."""
    return re.sub(r"\[(?=[a-z])", r"\\[", text) if MARKUP else text


_REF = "NAME, NAME@ALIAS, NAME/VERSION or a bundle folder; the default is the champion."
MODEL = option("REF", _REF, autocompletion=completion.versions)
REF_OR_CHAMPION = argument("REF", _REF, completion.versions, default=None)
URL = option("URL", "A running server, for example http://127.0.0.1:8000.")
TOKEN_FILE = setting("FILE", "serve.token_file", "File with the server's token")
_PATH = "Images: a folder with one sub-folder a class, or a table (data.source, data.dir)."
PATH = argument("PATH", _PATH, default=None)
ALLOW_LEAKAGE = flag("--allow-leakage", "Accept images in more than one split of yours.")


@dataclass(frozen=True)
class Call:
    """One call of a command: its console, the INI of `--config`, and every `--set`."""

    console: Console
    config: str | None
    sets: Sequence[str]

    def settings(self, options: Mapping[str, str | None] | None = None) -> Settings:
        """The settings in force; `options` are the command's own, by `section.key`."""
        from mindtrace.config.settings import load_settings

        given = {name: value for name, value in (options or {}).items() if value is not None}
        settings = load_settings(self.config, sets=self.sets, overrides=given)
        # Torch's metrics import matplotlib, which leaves its list of fonts in HOME.
        if not os.path.isdir(os.path.expanduser("~/.config/matplotlib")):  # noqa: PTH111, PTH112
            os.environ.setdefault("MPLCONFIGDIR", str(settings.dirs.root / "cache" / "matplotlib"))
        return settings

    def reading(self, ref: str | None, options: Mapping[str, str | None] | None = None) -> Settings:
        """The same for a command that only reads, which may choose one of several models."""
        from mindtrace.registry.reference import or_latest

        return or_latest(self.settings(options), ref, self.console.note)


def _common(
    *,
    config: str | None = option(
        "FILE", "INI file with your settings; the default is the one that $MindtraceConfig names."
    ),
    set_: list[str] | None = option(
        "SECTION.KEY=VALUE",
        "One setting, over the INI and the environment; may be repeated.",
        "--set",
        autocompletion=completion.keys,
    ),
    json: bool = flag("--json", "Print JSON, one document a line."),
    quiet: bool = flag("--quiet", "Only results and errors.", "-q"),
    verbose: bool = flag("--verbose", "Report each step.", "-v"),
    debug: bool = flag("--debug", "Show the traceback of an error."),
) -> Call:
    console = Console(json=json, quiet=quiet, verbose=verbose, debug=debug)
    return Call(console, config, tuple(set_ or ()))


_COMMON_NAMES = tuple(inspect.signature(_common).parameters)


def command(
    app: typer.Typer, *examples: str, name: str | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add a command to `app`: a function whose first parameter is a `Call`; show its examples."""
    lines = "\n".join(f"  mindtrace {example}" for example in examples)

    def decorate(verb: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(verb)
        def run(**given: Any) -> None:
            call = _common(**{key: given.pop(key) for key in _COMMON_NAMES})
            with redirect_stdout(sys.stderr):  # what a library prints is no result
                code = guarded(call.console, lambda: verb(call, **given))
            if code:
                raise typer.Exit(code)

        _merge_signatures(run, verb)
        run.__doc__ = _one_line_a_paragraph(verb.__doc__)
        app.command(name, epilog=_shown(f"\b\nExamples:\n{lines}"))(run)
        return verb

    return decorate


def guarded(console: Console, work: Callable[[], object]) -> int:
    """Run `work`; report what it raises on stderr and return the exit code."""
    try:
        try:
            work()
        finally:
            console.write("", flush=True)  # what could not be written matters more than the rest
    except typer.Exit as leaving:
        return leaving.exit_code
    except KeyboardInterrupt:
        return console.fail(InterruptedByUser(signal.SIGINT))
    except BrokenPipeError:
        return BROKEN_PIPE
    except Exception as error:  # noqa: BLE001 - reported in one line, traceback on demand
        with suppress(BrokenPipeError):  # the exit code is all that is left to say
            return console.fail(error)
        return BROKEN_PIPE
    return 0


def group(help_text: str) -> typer.Typer:
    """A Typer application for a group of commands."""
    return typer.Typer(help=_shown(help_text), rich_markup_mode=MARKUP)


def _one_line_a_paragraph(text: str | None) -> str:
    """A docstring's paragraphs without their line breaks: Typer keeps those as they are."""
    paragraphs = inspect.cleandoc(text or "").split("\n\n")
    return _shown("\n\n".join(" ".join(part.split()) for part in paragraphs))


def _merge_signatures(run: Callable[..., None], verb: Callable[..., None]) -> None:
    """Show Typer the command's own options, then the common ones."""
    parameters: dict[str, inspect.Parameter] = {}
    for function, panel in ((verb, None), (_common, "Common options")):
        hints = typing.get_type_hints(function)
        for name, parameter in inspect.signature(function).parameters.items():
            if isinstance(parameter.default, Declared):
                shown, default = parameter.default
                shown.rich_help_panel = panel
                parameters[name] = parameter.replace(
                    kind=inspect.Parameter.KEYWORD_ONLY,
                    annotation=Annotated[hints[name], shown],
                    default=inspect.Parameter.empty if default is ... else default,
                )
    run.__signature__ = inspect.Signature([*parameters.values()])  # type: ignore[attr-defined]
    run.__annotations__ = {name: one.annotation for name, one in parameters.items()}
