"""What the console prints, by mode, and the exit codes; terminals have a test of their own."""

from __future__ import annotations

import io
import json
import signal
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from mindtrace import errors
from mindtrace.cli.console import (
    EXIT_CODE_MEANINGS,
    EXIT_CODES,
    Cell,
    Console,
    dumps,
    exit_code,
    short,
)
from mindtrace.cli.progress import progress_of
from mindtrace.errors import InterruptedByUser, MindtraceError
from mindtrace.progress import EpochReport

Capture = pytest.CaptureFixture[str]

REPORT = EpochReport(2, 10, {"val_loss": 0.5, "val_acc": 0.97111}, seconds=1.23, best=True)


def test_a_table_in_a_pipe_is_tab_separated_and_whole(capsys: Capture) -> None:
    wide = "w" * 300
    Console().table(["name", "value"], [[wide, 1], ["tab\there\nline", None]])
    assert capsys.readouterr().out.splitlines() == [
        "name\tvalue",
        f"{wide}\t1",
        "tab\\there\\nline\t",
    ]


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (0.9652777910232544, "0.9653"),
        (0.0, "0.0000"),
        (3.2e-9, "3.20e-09"),
        (12345.678, "12345.6780"),
        (float("nan"), "nan"),
        (64, "64"),
        (True, "true"),
        ("0.9652777910232544", "0.9652777910232544"),
        (None, ""),
    ],
)
def test_eyes_get_short_numbers(cell: Cell, text: str) -> None:
    assert short(cell) == text


def test_an_empty_table_names_its_columns_and_quiet_leaves_out_all_but_results(
    capsys: Capture,
) -> None:
    Console().table(["name", "value"], [])
    Console().fields([("version", 1), ("parent", None)])
    assert capsys.readouterr().out == "name\tvalue\nversion\t1\nparent\t\n"
    console = Console(quiet=True)
    console.table(["name"], [["a"]])
    console.note("something")
    console.next_step("mindtrace train")
    with progress_of(console) as progress:
        progress.epoch(REPORT)
    assert tuple(capsys.readouterr()) == ("a\n", "")


def test_on_80_columns_an_id_stays_readable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of empty columns, minutes of a time; what is long folds to no less than 20."""
    monkeypatch.setenv("COLUMNS", "80")
    names = ["job_id", "state", "submitted_at", "attempts", "epoch", "val_acc", "error"]
    ids = [f"20261130T131802480745-{number:08x}" for number in range(2)]
    row = ["failed", "2026-11-30T13:18:02.480+00:00", 2, None, 0.93, "the images cannot be read"]
    out = io.StringIO()
    console = Console()
    console.out, console.terminal = out, True

    console.table(names, [[number, *row] for number in ids])

    lines = [line.rstrip() for line in out.getvalue().splitlines()]
    assert max(map(len, lines)) <= 80
    assert "epoch" not in out.getvalue()
    assert "2026-11-30 13:18 " in out.getvalue()
    assert sum(line.startswith((" 2026", "2026")) for line in lines) == 2
    assert len(lines) <= 10


def test_what_a_diverging_training_measures() -> None:
    fields = {"epoch": 1, "max_epochs": 1, "metrics": {"val_acc": None}, "seconds": 1.0}
    assert str(EpochReport.read(fields)) == "epoch 1/1  val_acc nan  1.00 s"


def test_json_never_says_nan() -> None:
    text = dumps({"metrics": {"val_loss": float("nan"), "all": [float("inf"), 1.5]}})
    assert json.loads(text) == {"metrics": {"val_loss": None, "all": [None, 1.5]}}


def test_a_file_name_that_is_no_text_can_be_printed(capfdbinary: object) -> None:
    name = b"caf\xe9.png".decode("utf-8", "surrogateescape")
    assert json.loads(dumps({"path": name})) == {"path": name}


def test_progress_in_a_log_is_one_line_an_epoch(capsys: Capture) -> None:
    for console in (Console(), Console(verbose=True)):
        with progress_of(console) as progress:
            progress.stage("loading")
            progress.started(10, 100)
            progress.advanced(1, 50)
            progress.epoch(REPORT)
    line = "epoch  2/10  val_loss 0.5000  val_acc 0.9711  1.23 s  best\n"
    assert tuple(capsys.readouterr()) == ("", f"{line}loading\n{line}")


def test_progress_as_json_is_one_event_a_line(capsys: Capture) -> None:
    with progress_of(Console(json=True)) as progress:
        progress.stage("loading")
        progress.started(10, 100)
        progress.epoch(REPORT)
        progress.note("careful")
    out, err = capsys.readouterr()
    events = [json.loads(line) for line in err.splitlines()]
    assert out == ""
    assert [event["event"] for event in events] == ["stage", "started", "epoch", "note"]
    assert events[1] == {"schema_version": 1, "event": "started", "max_epochs": 10, "batches": 100}
    assert events[2] == {"schema_version": 1, "event": "epoch", **asdict(REPORT)}


@pytest.mark.parametrize(
    ("error", "says", "hint"),
    [
        (OSError(28, "No space left on device", "/a/b"), "/a/b: No space left on device", "gc"),
        (OSError(122, "Disk quota exceeded", "/a/b"), "/a/b: Disk quota exceeded", "gc"),
        (OSError(30, "Read-only file system", "/a"), "/a: Read-only file system", "doctor"),
        (PermissionError(13, "Permission denied", "/a"), "/a: Permission denied", "doctor"),
        (NotADirectoryError(20, "Not a directory", "/a"), "/a: Not a directory", "doctor"),
        (OSError(24, "Too many open files"), "system: Too many open files", "doctor"),
        (MemoryError("Unable to allocate 58.6 GiB"), "not enough memory: Unable", "batch_size"),
        (torch.OutOfMemoryError("CUDA out of memory.\nTried"), "CUDA out of memory.", "image_size"),
        (ValueError("a\nbug"), "internal: ValueError: a bug", "--debug  # shows where; please"),
    ],
    ids=str,
)
def test_what_the_system_refuses_is_no_internal_error(
    capsys: Capture, error: Exception, says: str, hint: str
) -> None:
    assert Console().fail(error) == 1
    lines = capsys.readouterr().err.splitlines()
    assert says in lines[0] and hint in lines[1] and len(lines) == 2
    assert ("internal" in lines[0]) == (says.startswith("internal"))


def _subclasses(kind: type[MindtraceError]) -> Iterator[type[MindtraceError]]:
    for sub in kind.__subclasses__():
        if sub.__module__.startswith("mindtrace."):
            yield sub
            yield from _subclasses(sub)


def test_no_error_class_is_forgotten() -> None:
    known = {*EXIT_CODES, InterruptedByUser} - {MindtraceError}
    forgotten = [
        sub.__name__ for sub in _subclasses(MindtraceError) if known.isdisjoint(sub.__mro__)
    ]
    assert forgotten == []


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.ConfigError([]), 2),
        (errors.UsageError("no"), 2),
        (errors.DataFolderError(Path("x"), "missing"), 2),
        (errors.DataError("no"), 1),
        (errors.DownloadError("no"), 1),
        (errors.ImageError("no"), 1),
        (errors.BundleError("x", "torn"), 1),
        (errors.TrainingError("no"), 1),
        (errors.StoreError("no"), 1),
        (errors.VerdictError("no"), 3),
        (errors.NotFoundError("model", "x"), 4),
        (errors.ConflictError("no"), 5),
        (errors.PortInUseError("127.0.0.1", 8000), 5),
        (errors.QueueFullError("full"), 5),
        (InterruptedByUser(signal.SIGINT), 130),
        (InterruptedByUser(signal.SIGTERM), 143),
        (InterruptedByUser(signal.SIGHUP), 129),
        (ValueError("a bug"), 1),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_exit_code(error: Exception, code: int) -> None:
    assert exit_code(error) == code


def test_every_code_is_explained() -> None:
    explained = {int(code) for code, _ in EXIT_CODE_MEANINGS}
    assert {0, *EXIT_CODES.values(), 129, 130, 143} == explained
