"""The `mindtrace` command. Commands import their service in their body, so that help is quick."""

import sys
from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from mindtrace.cli.command import MARKUP, command, guarded
from mindtrace.cli.console import EXIT_CODE_MEANINGS, Console
from mindtrace.errors import UsageError
from mindtrace.version import VERSION

#: Each command, in the order of the help: its module and its examples; without these, a group.
COMMANDS = {
    "train": ("train", "train photos/", "train --source digits --max-epochs 3"),
    "predict": ("predict", "predict digit.png", "predict photos/ --model flowers/2 --json"),
    "registry": ("registry",),
    "reproduce": ("train", "reproduce digits/1", "reproduce digits --tolerance 0.001"),
    "serve": ("serve", "serve", "serve --model digits --port 8080"),
    "retrain": ("jobs", "retrain --base digits --follow", "retrain --config mnist.ini"),
    "jobs": ("jobs",),
    "worker": ("jobs", "worker", "worker --config server.ini"),
    "config": ("config",),
    "data": ("data",),
    "doctor": ("doctor", "doctor", "doctor --json"),
}


class Program(TyperGroup):
    """The root group: usage errors are reported like all other errors."""

    def main(  # type: ignore[override]  # Typer's own further parameters stay in `extra`
        self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any
    ) -> Any:
        """Run the words in `args` (the shell's by default) and leave with an exit code."""
        words = list(sys.argv[1:] if args is None else args)
        console = Console(json="--json" in words, debug="--debug" in words)

        def work() -> None:
            extra["standalone_mode"] = False
            try:
                code = super(Program, self).main(words, prog_name or "mindtrace", **extra)
            except typer.TyperException as error:
                context = getattr(error, "ctx", None)
                hint = f"{context.command_path if context else 'mindtrace'} --help"
                message = " ".join(error.format_message().split())
                raise UsageError(message, hint=hint) from error
            raise typer.Exit(code if isinstance(code, int) else 0)

        sys.exit(guarded(console, work))


def _print_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"mindtrace {VERSION}\n")
        raise typer.Exit


_VERSION = typer.Option(
    "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
)


def _root(context: typer.Context, version: Annotated[bool, _VERSION] = False) -> None:
    """From an INI file to a served, versioned, verified image classifier.

    Start with `mindtrace train`; without a configuration it trains on MNIST.
    """
    if context.invoked_subcommand is None:
        sys.stdout.write(context.get_help() + "\n")
        raise typer.Exit(2)


def program(names: Iterable[str] = COMMANDS) -> typer.Typer:
    """The application with these commands."""
    app = typer.Typer(
        name="mindtrace",
        cls=Program,
        epilog="\b\nExit codes:\n"
        + "\n".join(f"  {code:<5}{text}" for code, text in EXIT_CODE_MEANINGS),
        context_settings={"help_option_names": ["--help", "-h"]},
        pretty_exceptions_enable=False,
        rich_markup_mode=MARKUP,
    )
    app.callback(invoke_without_command=True)(_root)
    for name in names:
        module, *examples = COMMANDS[name]
        found = import_module(f"mindtrace.cli.{module}")
        if examples:
            command(app, *examples)(getattr(found, name))
        else:
            app.add_typer(found.app, name=name)
    return app


def main() -> None:
    """The console script's entry point."""
    # Import only the command that is named: to import all takes longer than most of them run.
    first = sys.argv[1] if len(sys.argv) > 1 else ""
    program([first] if first in COMMANDS else COMMANDS)(prog_name="mindtrace")
