"""Turns a function into a command: common options, settings, errors to exit codes."""

from __future__ import annotations

import functools
import inspect
import os
import signal
import sys
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from mindtrace.cli.console import BROKEN_PIPE, Console, is_terminal
from mindtrace.errors import InterruptedByUser

if TYPE_CHECKING:
    from mindtrace.config.settings import Settings

# Rich draws help on a terminal; a pipe gets plain text, and the import of Rich is saved.
MARKUP: Literal["rich"] | None = "rich" if is_terminal(sys.stdout) else None


ModelRef = Annotated[
    str | None,
    typer.Option(
        metavar="REF",
        help="NAME, NAME@ALIAS, NAME/VERSION or a bundle folder; the default is the champion.",
    ),
]


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
        return load_settings(self.config, sets=self.sets, overrides=given)


_option = functools.partial(typer.Option, rich_help_panel="Common options")


def _common(
    *,
    config: Annotated[
        str | None,
        _option(
            metavar="FILE",
            help="INI file with your settings; the default is the one that $MindtraceConfig names.",
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        _option(
            "--set",
            metavar="SECTION.KEY=VALUE",
            help="One setting, over the INI and the environment; may be repeated.",
        ),
    ] = None,
    json: Annotated[bool, _option("--json", help="Print JSON, one document a line.")] = False,
    quiet: Annotated[bool, _option("--quiet", "-q", help="Only results and errors.")] = False,
    verbose: Annotated[bool, _option("--verbose", "-v", help="Report each step.")] = False,
    debug: Annotated[bool, _option("--debug", help="Show the traceback of an error.")] = False,
) -> Call:
    console = Console(json=json, quiet=quiet, verbose=verbose, debug=debug)
    return Call(console, config, tuple(set_ or ()))


_COMMON_NAMES = tuple(inspect.signature(_common).parameters)


def command(
    app: typer.Typer, name: str | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add a command to `app`: a function whose first parameter is a `Call`."""

    def decorate(verb: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(verb)
        def run(**given: Any) -> None:
            call = _common(**{key: given.pop(key) for key in _COMMON_NAMES})
            code = guarded(call.console, lambda: verb(call, **given))
            if code:
                raise typer.Exit(code)

        _merge_signatures(run, verb)
        run.__doc__ = _one_line_a_paragraph(verb.__doc__)
        app.command(name)(run)
        return verb

    return decorate


def guarded(console: Console, work: Callable[[], object]) -> int:
    """Run `work`; report what it raises on stderr and return the exit code."""
    try:
        work()
        sys.stdout.flush()
    except typer.Exit as leaving:
        return leaving.exit_code
    except KeyboardInterrupt:
        return console.fail(InterruptedByUser(signal.SIGINT))
    except BrokenPipeError:
        _close_stdout()
        return BROKEN_PIPE
    except Exception as error:  # noqa: BLE001 - reported in one line, traceback on demand
        return console.fail(error)
    return 0


def group(help_text: str) -> typer.Typer:
    """A Typer application for a group of commands."""
    return typer.Typer(help=help_text, rich_markup_mode=MARKUP)


def _one_line_a_paragraph(text: str | None) -> str:
    """A docstring's paragraphs without their line breaks: Typer keeps those as they are."""
    paragraphs = inspect.cleandoc(text or "").split("\n\n")
    return "\n\n".join(" ".join(part.split()) for part in paragraphs)


def _merge_signatures(run: Callable[..., None], verb: Callable[..., None]) -> None:
    """Show Typer the command's own options, then the common ones."""
    own, shared = inspect.signature(verb), inspect.signature(_common)
    hints = {
        **typing.get_type_hints(_common, include_extras=True),
        **typing.get_type_hints(verb, include_extras=True),
    }
    parameters = [*list(own.parameters.values())[1:], *shared.parameters.values()]
    run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[parameter.name])
            for parameter in parameters
        ]
    )
    run.__annotations__ = {parameter.name: hints[parameter.name] for parameter in parameters}


def _close_stdout() -> None:
    """The reader is gone: the interpreter must not try to flush stdout at its end."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, sys.stdout.fileno())
    os.close(devnull)
