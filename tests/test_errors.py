"""The tree of errors is the one that its docstring draws, and the parts are attributes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mindtrace import errors
from mindtrace.errors import (
    BundleError,
    ConfigError,
    DataFolderError,
    Fault,
    InterruptedByUser,
    MindtraceError,
    NotFoundError,
    PortInUseError,
    listed,
    nearest,
)


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


@pytest.mark.parametrize("name", sorted(real_tree()))
def test_every_class_says_what_it_is_for(name: str) -> None:
    assert getattr(errors, name).__doc__


def test_the_text_is_the_message_and_the_hint_stands_apart() -> None:
    error = MindtraceError("no bread", hint="buy some")

    assert (str(error), error.message, error.hint) == ("no bread", "no bread", "buy some")
    assert MindtraceError("no bread").hint is None


def test_a_configuration_error_keeps_every_fault() -> None:
    faults = [
        Fault("cfg.ini", 12, "train", "lr", "[train] lr = -1: must be above 0"),
        Fault("--set", None, "train", "sped", "[train] sped: unknown key"),
    ]

    error = ConfigError(faults)

    assert error.faults == tuple(faults)
    assert str(error) == (
        "cfg.ini:12: [train] lr = -1: must be above 0\n--set: [train] sped: unknown key"
    )


def test_not_found_names_what_was_sought_and_what_there_is() -> None:
    error = NotFoundError("model", "mnst", ["digits", "mnist"])

    assert (error.kind, error.name, error.known) == ("model", "mnst", ("digits", "mnist"))
    assert str(error) == "no model 'mnst', did you mean 'mnist'? there are: digits, mnist"


def test_not_found_guesses_nothing_where_nothing_comes_near() -> None:
    assert str(NotFoundError("job", "x9", [])) == "no job 'x9'; there are: none"
    assert "did you mean" not in str(NotFoundError("model", "zebra", ["mnist"]))


def test_not_found_without_a_name_asks_which() -> None:
    error = NotFoundError("model", None, ["a", "b"])

    assert error.name is None
    assert str(error) == "which model? there are: a, b"


def test_a_folder_and_a_reason_are_attributes() -> None:
    data = DataFolderError(Path("pics"), "no class has an image")
    bundle = BundleError(Path("b"), "model.onnx is missing")

    assert (data.folder, data.reason) == (Path("pics"), "no class has an image")
    assert str(data) == "[data] dir = pics: no class has an image"
    assert (bundle.folder, bundle.reason) == (Path("b"), "model.onnx is missing")
    assert str(bundle) == "bundle b: model.onnx is missing"


def test_a_port_in_use_proposes_the_next_one() -> None:
    error = PortInUseError("127.0.0.1", 8000)

    assert (error.host, error.port) == ("127.0.0.1", 8000)
    assert error.hint == "mindtrace serve --port 8001"


def test_an_interruption_knows_its_signal() -> None:
    error = InterruptedByUser(15)

    assert error.signum == 15
    assert str(error) == "stopped by SIGTERM"


def test_long_lists_are_cut_and_say_so() -> None:
    assert listed([]) == "none"
    assert listed(["a", "b"]) == "a, b"
    assert listed([str(n) for n in range(11)]) == "0, 1, 2, 3, 4, 5, 6, 7 and 3 more"


def test_nearest_is_none_where_nothing_comes_near() -> None:
    assert nearest("max_epoch", ["max_epochs", "lr"]) == "max_epochs"
    assert nearest("zzz", ["max_epochs", "lr"]) is None


@pytest.mark.parametrize("kind", ["job", "model", "version", "alias"])
def test_what_is_not_there_says_what_shows_the_rest(kind: str) -> None:
    assert (NotFoundError(kind, "x").hint or "").startswith("mindtrace ")
    assert NotFoundError(kind, "x", hint="mine").hint == "mine"
