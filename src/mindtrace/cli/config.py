"""`mindtrace config` and `doctor`: the settings in force, their files, and what they name."""

import shlex
from dataclasses import asdict
from pathlib import Path

from mindtrace.cli.command import Call, argument, command, flag, group
from mindtrace.errors import ConflictError, MindtraceError, UsageError
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


def doctor(
    call: Call,
    fix: bool = flag("--fix", "In a ROOT that was copied or moved, correct MLflow's paths."),
) -> None:
    """Check the configuration, ROOT and the store.

    Exit code 1 if something is wrong; each such row says what to do. --fix rewrites paths in
    the SQLite database, and keeps a copy of it beside it; only MLflow's own tools need that.
    """
    settings = call.settings()
    from mindtrace.service.doctor import examine

    console = call.console
    checks = list(examine(settings, fix=fix))
    wrong = [check for check in checks if check.state == "wrong"]
    rows = [asdict(check) for check in checks]
    if console.json:
        console.document({"ok": not wrong, "checks": rows})
    else:
        # On a terminal hints stand below the table, which they would make too wide.
        columns = [*rows[0]][: 3 if console.terminal else None]
        console.table(columns, [[row[name] for name in columns] for row in rows])
        for check in checks:
            if console.terminal and check.hint and check.state != "ok":
                console.line(f"{check.check}: {check.hint}")
    if wrong:
        others = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise MindtraceError(f"{wrong[0].check}: {wrong[0].found}{others}", hint=wrong[0].hint)
