"""`mindtrace doctor`: nothing comes in, what is there and what is wrong goes out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mindtrace.cli.common import Call
from mindtrace.cli.console import Console
from mindtrace.documents import document
from mindtrace.errors import MindtraceError

if TYPE_CHECKING:
    from mindtrace.service.doctor import Check

_COLUMNS = ("check", "state", "found", "hint")


def doctor(call: Call) -> None:
    """Look at the installation, the store, its champions, the server.

    Exit code 1 if something is wrong; each such row says what to do.
    """
    settings = call.settings()
    from mindtrace.service.doctor import examine

    checks = list(examine(settings))
    wrong = [check for check in checks if check.state == "wrong"]
    if call.console.json:
        rows = [check.document() for check in checks]
        call.console.document(document({"ok": not wrong, "checks": rows}))
    else:
        _show(call.console, checks)
    if wrong:
        others = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise MindtraceError(f"{wrong[0].check}: {wrong[0].found}{others}", hint=wrong[0].hint)


def _show(console: Console, checks: Sequence[Check]) -> None:
    rows = [(check.check, check.state, check.found, check.hint) for check in checks]
    if not console.terminal:
        console.table(_COLUMNS, rows)
        return
    console.table(_COLUMNS[:3], [row[:3] for row in rows])
    for check in checks:
        if check.hint and check.state != "ok":
            console.line(f"{check.check}: {check.hint}")
