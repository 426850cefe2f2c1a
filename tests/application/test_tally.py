"""The numbers that workers share: how many connections each holds, and who holds more."""

from __future__ import annotations

from pathlib import Path

import pytest

from mindtrace.application.tally import Tally


@pytest.mark.parametrize(
    ("mine", "other", "coming", "ahead"),
    [
        (0, 0, 0, False),
        (0, 0, 1, True),
        (1, 2, 1, False),
        (2, 1, 0, True),
        (10, 8, 0, False),  # a quarter more of many is no matter
        (10, 8, 1, True),
        (400, 320, 0, False),
        (401, 320, 0, True),
    ],
)
def test_who_holds_clearly_more_is_ahead(
    tmp_path: Path, mine: int, other: int, coming: int, ahead: bool
) -> None:
    Tally.prepare(tmp_path, 2)
    here, there = Tally(tmp_path, 0), Tally(tmp_path, 1)
    here.tell(mine)
    there.tell(other)
    assert here.ahead(coming) is ahead
    assert here.total() == there.total() == mine + other


def test_a_worker_in_the_place_of_a_dead_one_holds_nothing(tmp_path: Path) -> None:
    Tally.prepare(tmp_path, 2)
    Tally(tmp_path, 1).tell(7)
    assert Tally(tmp_path, 1).total() == 0
