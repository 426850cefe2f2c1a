"""The tree of errors is the one that its docstring draws, and the parts are attributes."""

from __future__ import annotations

import re
from typing import Any

import pytest

from mindtrace import errors
from mindtrace.errors import (
    ConfigError,
    Fault,
    InterruptedByUser,
    MindtraceError,
    NotFoundError,
    listed,
    nearest,
)

FAULT = Fault("cfg.ini", 12, "train", "lr", "must be above 0")


def drawn_tree() -> dict[str, str]:
    """Child to parent, as the docstring of `errors` draws it."""
    parents: dict[str, str] = {}
    path = ["MindtraceError"]
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"    ([│ ]*)[├└]── (\w+)", line)
        if found:
            depth = len(found[1]) // 4 + 1
            path[depth:] = [found[2]]
            parents[found[2]] = path[depth - 1]
    return parents


def real_tree(parent: type[MindtraceError] = MindtraceError) -> dict[str, str]:
    tree = {}
    for child in parent.__subclasses__():
        if child.__module__ == errors.__name__:
            tree |= {child.__name__: parent.__name__, **real_tree(child)}
    return tree


def test_the_drawn_tree_is_the_real_one() -> None:
    assert drawn_tree() == real_tree()
    assert len(drawn_tree()) >= 15
    assert all(getattr(errors, name).__doc__ for name in real_tree())


@pytest.mark.parametrize(
    ("error", "text", "parts"),
    [
        (MindtraceError("no bread", hint="buy some"), "no bread", {"hint": "buy some"}),
        (
            ConfigError([FAULT, Fault("--set", None, "train", "sped", "unknown key")]),
            "cfg.ini:12: must be above 0\n--set: unknown key",
            {"faults": (FAULT, Fault("--set", None, "train", "sped", "unknown key"))},
        ),
        (
            NotFoundError("model", "mnst", ["digits", "mnist"]),
            "no model 'mnst', did you mean 'mnist'? there are: digits, mnist",
            {"kind": "model", "name": "mnst", "known": ("digits", "mnist")},
        ),
        (
            NotFoundError("job", "zebra"),
            "no job 'zebra'; there are: none",
            {"known": (), "hint": "mindtrace jobs list"},
        ),
        (
            NotFoundError("model", None, ["a", "b"], hint="mine"),
            "which model? there are: a, b",
            {"name": None, "hint": "mine"},
        ),
        (InterruptedByUser(15), "stopped by SIGTERM", {"signum": 15}),
    ],
)
def test_an_error_has_a_text_and_parts(
    error: MindtraceError, text: str, parts: dict[str, Any]
) -> None:
    assert str(error) == error.message == text
    assert {name: getattr(error, name) for name in parts} == parts


def test_long_lists_are_cut_and_nearest_guesses_nothing_far() -> None:
    assert listed([]) == "none"
    assert listed(["a", "b"]) == "a, b"
    assert listed([str(n) for n in range(11)]) == "0, 1, 2, 3, 4, 5, 6, 7 and 3 more"
    assert nearest("max_epoch", ["max_epochs", "lr"]) == "max_epochs"
    assert nearest("zzz", ["max_epochs", "lr"]) is None
