"""`mindtrace config`: the settings in force, a check of a file, a file to start from."""

import shlex
from pathlib import Path

from mindtrace.cli.command import Call, argument, command, flag, group
from mindtrace.errors import ConflictError, UsageError
from mindtrace.system import atomic_write

_NEW_FILE = "mindtrace.ini"

app = group("Show, check and write configurations.")


@command(app, "config show", "config show --config mnist.ini --origin")
def show(call: Call, origin: bool = flag("--origin", "Say where each value comes from.")) -> None:
    """Show every value in force."""
    rows = call.settings().rows()
    columns = ("section", "key", "value", "origin")[: 4 if origin else 3]
    documents = (row._asdict() for row in rows)
    call.console.results(documents, columns, [row[: len(columns)] for row in rows])


@command(app, "config check mnist.ini", "config check mnist.ini --json")
def check(call: Call, file: str = argument("FILE", "The INI file to check.")) -> None:
    """Check a file by itself; every fault is reported."""
    from mindtrace.config.settings import load_settings

    load_settings(file, sets=call.sets, environ={})  # the environment plays no part
    call.console.text({"path": file, "valid": True}, f"{file}: no faults\n")


@command(app, "config init", "config init -")
def init(
    call: Call, file: str = argument("FILE", "The file to write; - for stdout.", default=_NEW_FILE)
) -> None:
    """Write a file with every setting, its default and what it means."""
    from mindtrace.config.settings import template_ini

    text = template_ini()
    if file == "-":
        call.console.text({"text": text}, text)
        return
    path = Path(file)
    try:
        if path.exists():
            hint = "mindtrace config init OTHER.ini"
            raise ConflictError(f"{path} exists and stays as it is", hint=hint)
        atomic_write(path, text.encode())
    except OSError as error:
        hint = "mindtrace config init -"
        raise UsageError(f"cannot write {path}: {error.strerror}", hint=hint) from error
    call.console.text({"path": file}, f"{file}\n")
    call.console.next_step(f"mindtrace config check {shlex.quote(file)}")
