"""What every verb shares: a plain function comes in, a command with the common options goes out.

A verb is written as `def verb(call: Call, *, its own options)`. `command` adds `--config
--set --json -q -v --debug` behind its options, opens the console, and turns whatever the
verb raises into lines on stderr and an exit code. No verb catches errors itself.
"""

from __future__ import annotations

import functools
import inspect
import os
import signal
import sys
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mindtrace.cli.console import Console
from mindtrace.cli.exits import BROKEN_PIPE
from mindtrace.cli.light import LightCommand
from mindtrace.errors import InterruptedByUser

if TYPE_CHECKING:
    from mindtrace.config.settings import Settings

_PANEL = "Common options"


@dataclass(frozen=True)
class Call:
    """One call of a verb.

    Attributes:
        console: where its results and words go.
        config: the INI that `--config` names, or None.
        sets: every `--set section.key=value`, in order.
    """

    console: Console
    config: str | None
    sets: Sequence[str]

    def settings(self, options: Mapping[str, str | None] | None = None) -> Settings:
        """The settings in force for this call.

        Args:
            options: values of the verb's own options by `section.key`; None was not given.

        Raises:
            ConfigError: with every fault of every layer.
        """
        from mindtrace.config.settings import load_settings

        given = {name: value for name, value in (options or {}).items() if value is not None}
        return load_settings(self.config, sets=self.sets, overrides=given)


def _common(
    *,
    config: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="INI file with your settings; else the one that $MindtraceConfig names.",
            rich_help_panel=_PANEL,
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="SECTION.KEY=VALUE",
            help="One setting, above the INI and the environment; may be repeated.",
            rich_help_panel=_PANEL,
        ),
    ] = None,
    json: Annotated[
        bool,
        typer.Option("--json", help="JSON, one document a line.", rich_help_panel=_PANEL),
    ] = False,
    quiet: Annotated[
        bool,
        typer.Option("--quiet", "-q", help="Results and errors only.", rich_help_panel=_PANEL),
    ] = False,
    verbose: Annotated[
        bool,
        typer.Option("--verbose", "-v", help="Say what is being done.", rich_help_panel=_PANEL),
    ] = False,
    debug: Annotated[
        bool,
        typer.Option("--debug", help="Show an error's traceback.", rich_help_panel=_PANEL),
    ] = False,
) -> Call:
    console = Console(json=json, quiet=quiet, verbose=verbose, debug=debug)
    return Call(console, config, tuple(set_ or ()))


_COMMON_NAMES = tuple(inspect.signature(_common).parameters)


def command(
    app: typer.Typer, name: str | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a verb of `app` from a function whose first parameter is a `Call`."""

    def decorate(verb: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(verb)
        def run(**given: Any) -> None:
            call = _common(**{key: given.pop(key) for key in _COMMON_NAMES})
            code = guarded(call.console, lambda: verb(call, **given))
            if code:
                raise typer.Exit(code)

        _take_signature(run, verb)
        app.command(name, cls=LightCommand)(run)
        return verb

    return decorate


def guarded(console: Console, work: Callable[[], object]) -> int:
    """Do `work`; whatever it raises becomes lines on stderr.

    Returns:
        The exit code, 0 if nothing was raised.
    """
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
    except Exception as error:  # noqa: BLE001 - the edge: told in one line, traceback on demand
        return console.fail(error)
    return 0


def _take_signature(run: Callable[..., None], verb: Callable[..., None]) -> None:
    """Show Typer the verb's own options, then the common ones."""
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
    """The reader left: nothing more can be said, and the interpreter must not try to."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, sys.stdout.fileno())
    os.close(devnull)
