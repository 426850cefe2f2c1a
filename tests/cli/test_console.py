"""What the console prints, by mode; on a terminal it is read from a real pseudo-terminal."""

from __future__ import annotations

import json

import pytest

from mindtrace.cli.console import Cell, Console, dumps, short
from mindtrace.cli.progress import epoch_line, progress_of
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


def test_quiet_leaves_out_the_header_and_the_notes(capsys: Capture) -> None:
    console = Console(quiet=True)
    console.table(["name"], [["a"]])
    console.note("something")
    console.next_step("mindtrace train")
    assert tuple(capsys.readouterr()) == ("a\n", "")


def test_an_empty_table_still_names_its_columns(capsys: Capture) -> None:
    Console().table(["name", "value"], [])
    assert capsys.readouterr().out == "name\tvalue\n"


def test_fields_are_one_pair_a_line(capsys: Capture) -> None:
    Console().fields([("version", 1), ("parent", None)])
    assert capsys.readouterr().out == "version\t1\nparent\t\n"


def test_json_never_says_nan() -> None:
    text = dumps({"metrics": {"val_loss": float("nan"), "all": [float("inf"), 1.5]}})
    assert json.loads(text) == {"metrics": {"val_loss": None, "all": [None, 1.5]}}


def test_a_file_name_that_is_no_text_can_be_printed(capfdbinary: object) -> None:
    name = b"caf\xe9.png".decode("utf-8", "surrogateescape")
    assert json.loads(dumps({"path": name})) == {"path": name}


def test_an_epoch_in_one_line() -> None:
    assert epoch_line(REPORT) == "epoch  2/10  val_loss 0.5000  val_acc 0.9711  1.23 s  best"


def test_progress_in_a_log_is_one_line_an_epoch(capsys: Capture) -> None:
    with progress_of(Console()) as progress:
        progress.stage("loading")
        progress.started(10, 100)
        progress.advanced(1, 50)
        progress.epoch(REPORT)
    out, err = capsys.readouterr()
    assert (out, err) == ("", epoch_line(REPORT) + "\n")


def test_verbose_progress_tells_the_stages_too(capsys: Capture) -> None:
    with progress_of(Console(verbose=True)) as progress:
        progress.stage("reading digits")
    assert capsys.readouterr().err == "reading digits\n"


def test_quiet_progress_says_nothing(capsys: Capture) -> None:
    with progress_of(Console(quiet=True)) as progress:
        progress.epoch(REPORT)
    assert tuple(capsys.readouterr()) == ("", "")


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
    assert events[2] == {
        "schema_version": 1,
        "event": "epoch",
        "epoch": 2,
        "max_epochs": 10,
        "metrics": {"val_loss": 0.5, "val_acc": 0.97111},
        "seconds": 1.23,
        "best": True,
    }
