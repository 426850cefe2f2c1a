"""`mindtrace doctor`: checks the configuration, ROOT and the store."""

from dataclasses import asdict

from mindtrace.cli.command import Call, flag
from mindtrace.errors import MindtraceError


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
