"""`verify`: whatever was changed in a bundle is found, and nobody answers with it."""

from __future__ import annotations

import json
import os
import pickle
import random
import re
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.conftest import RunCli
from tests.registry.conftest import Publish, Version

from mindtrace.bundle import manifest
from mindtrace.config.settings import Settings
from mindtrace.documents import document
from mindtrace.errors import BundleError, NotFoundError, VerdictError
from mindtrace.registry.maintenance import Verification, require_verified, verify, verify_all
from mindtrace.registry.reference import locate
from mindtrace.registry.store import Store
from mindtrace.service.following import open_or_wait
from mindtrace.service.predict import load_model

ROUNDS = 50


@pytest.fixture
def folder(register: Publish, settings: Settings) -> Path:
    register()
    return locate(settings, "digits").folder


def faults(settings: Settings) -> list[str]:
    return [fault for one in verify(settings, "digits") for fault in one.faults]


def test_what_was_registered_is_verified(folder: Path, settings: Settings) -> None:
    version, aliases = verify(settings)

    assert (version.subject, version.state, version.faults) == ("digits/1", "verified", ())
    assert manifest.check(folder, version.bundle_digest)
    assert (aliases.subject, aliases.state) == ("digits (aliases)", "verified")
    assert [one.state for one in verify(settings, str(folder))] == ["verified"]
    assert list(verify_all(settings)) == [version, aliases]
    require_verified([version, aliases], named=True)
    json.dumps(document(version))


def damage(folder: Path, draw: random.Random) -> str:
    """One flipped bit, cut tail, swap of two files or missing file; what was done."""
    names = sorted(path.name for path in folder.iterdir())
    name = draw.choice(names)
    content = (folder / name).read_bytes()
    kind = draw.choice(["flip", "flip", "truncate", "swap", "remove"])
    if kind == "flip":
        at = draw.randrange(len(content))
        bit = 1 << draw.randrange(8)
        (folder / name).write_bytes(content[:at] + bytes([content[at] ^ bit]) + content[at + 1 :])
        return f"flip {name} at {at} by {bit}"
    if kind == "truncate":
        length = draw.randrange(len(content))
        (folder / name).write_bytes(content[:length])
        return f"truncate {name} to {length}"
    if kind == "remove":
        (folder / name).unlink()
        return f"remove {name}"
    other = draw.choice([one for one in names if (folder / one).read_bytes() != content])
    (folder / name).write_bytes((folder / other).read_bytes())
    (folder / other).write_bytes(content)
    return f"swap {name} and {other}"


@pytest.mark.proof
def test_any_damage_is_refused_by_verify_predict_and_serve(
    folder: Path, settings: Settings, tmp_path: Path, soak: int
) -> None:
    whole = tmp_path / "whole"
    shutil.copytree(folder, whole)
    draw = random.Random(4)

    for _ in range(ROUNDS * soak):
        done = damage(folder, draw)
        found = verify(settings, "digits/1")
        assert found[0].state == "damaged", done
        with pytest.raises(VerdictError):
            require_verified(found, named=True)
        for load in (load_model, open_or_wait):
            with pytest.raises(BundleError):
                load(settings, "digits")
        shutil.rmtree(folder)
        shutil.copytree(whole, folder)
    assert faults(settings) == []


def write(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content)


def flip_last_byte(folder: Path) -> None:
    content = (folder / "model.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


PICKLE = pickle.dumps([1])
# What is done, the last fault, and whether the bundle can still be loaded.
DAMAGES: list[tuple[Callable[[Path], object], str, bool]] = [
    (flip_last_byte, "model.onnx has digest ", False),
    (write("predictions.npz", b"short"), "predictions.npz has 5 bytes, expected ", False),
    (lambda folder: (folder / "config.ini").unlink(), "config.ini is missing", False),
    (shutil.rmtree, "no such folder", False),
    (write("notes.txt", b"mine"), "notes.txt is no file of this bundle", True),
    (write("model.pkl", PICKLE), "model.pkl is a pickle, which no bundle holds", True),
    (write("weights.bin", PICKLE), "weights.bin is a pickle, which no bundle holds", True),
    (write("model.pt", PICKLE), "model.pt is a pickle, which no bundle holds", True),
]


def test_each_fault_is_named_and_damage_is_refused(
    folder: Path, settings: Settings, tmp_path: Path
) -> None:
    shutil.copytree(folder, tmp_path / "whole")
    for spoil, expected, loads in DAMAGES:
        spoil(folder)
        found = verify(settings, "digits/1")
        assert [one.state for one in found] == ["damaged", "verified"]
        assert len(found[0].faults) == 1 + ("pickle" in expected), expected
        assert found[0].faults[-1].startswith(expected)
        with pytest.raises(VerdictError, match=f"digits/1: {re.escape(found[0].faults[0])}"):
            require_verified(found, named=True)
        for load in () if loads else (load_model, open_or_wait):
            with pytest.raises(BundleError):
                load(settings, "digits")
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(tmp_path / "whole", folder)
    (folder / "registered_model_meta").write_text("MLflow's own")
    assert faults(settings) == []


LOST: dict[str, Callable[[Path], object]] = {
    "its artifacts": lambda folder: shutil.rmtree(folder.parent),
    "all artifacts": lambda folder: shutil.rmtree(folder.parents[2]),
    "one file cut": lambda folder: os.truncate(folder / "model.onnx", 9),
    "one file": lambda folder: (folder / "manifest.json").unlink(),
    "its run": lambda folder: _purge_run(folder),
}


def _purge_run(folder: Path) -> None:
    """What `mlflow gc` leaves of a deleted run; its version has a source that says `runs:/`."""
    shutil.rmtree(folder.parent)
    database = sqlite3.connect(folder.parents[3] / "mlflow.db")
    with database:
        database.execute("update model_versions set storage_location = null")
        for table in ("metrics", "latest_metrics", "params", "tags", "runs"):
            database.execute(f"delete from {table} where run_uuid = ?", (folder.parents[1].name,))
    database.close()


@pytest.mark.parametrize("lose", LOST.values(), ids=LOST)
def test_a_check_of_all_is_as_strict_as_that_of_one(
    lose: Callable[[Path], object], folder: Path, settings: Settings, run_cli: RunCli
) -> None:
    lose(folder)
    states = []
    for words in (("digits",), ("digits/1",), ("--all",)):
        result = run_cli("registry", "verify", *words, "--json")
        assert result.exit_code == 3, (words, result.stderr)
        states.append([json.loads(line)["state"] for line in result.stdout.splitlines()])
    assert states == [["damaged", "verified"]] * 3


def test_aliases_that_disagree_with_the_history_or_name_nothing(
    register: Publish, version: Version, store: Store, settings: Settings, root: Path
) -> None:
    def aliases(settings: Settings) -> tuple[str, ...]:
        return list(verify_all(settings, "digits"))[-1].faults

    register(), version()
    store.client.set_registered_model_alias("digits", "champion", "2")
    assert aliases(settings) == ("alias 'champion' names version 2, the history says 1",)
    store.client.delete_registered_model_alias("digits", "champion")
    assert aliases(settings) == ("alias 'champion' names no version, the history says 1",)
    store.client.set_registered_model_alias("digits", "champion", "1")
    with sqlite3.connect(root / "mlflow.db") as database:
        database.execute(
            "insert into registered_model_aliases (workspace, name, alias, version)"
            " values ('default', 'digits', 'old', 77)"
        )
    database.close()
    assert aliases(settings) == ("alias 'old' names version 77, which does not exist",)


def test_a_version_of_plain_mlflow_is_marked_and_what_is_not_there_is_not_found(
    register: Publish, version: Version, settings: Settings, tmp_path: Path
) -> None:
    register("digits"), version("theirs")

    found = {one.subject: one.state for one in verify_all(settings)}
    assert found["theirs/1"] == "no bundle"
    assert found["digits/1"] == "verified"
    require_verified(list(verify_all(settings)), named=False)
    with pytest.raises(VerdictError, match="mindtrace did not register it"):
        require_verified(verify(settings, "theirs/1"), named=True)
    for attempt in (
        lambda: verify(settings, "digits/9"),
        lambda: verify(settings, str(tmp_path / "no")),
        lambda: list(verify_all(settings, "digit")),
    ):
        with pytest.raises(NotFoundError):
            attempt()
    wrong = [Verification("a", n, f"a/{n}", None, "damaged", ("x",)) for n in (1, 2, 3)]
    with pytest.raises(VerdictError, match="a/1: x, and 2 more"):
        require_verified(wrong, named=False)
