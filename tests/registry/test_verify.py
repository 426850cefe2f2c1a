"""`verify`: whatever was changed in a bundle is found, and nobody answers with it."""

from __future__ import annotations

import json
import pickle
import random
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mindtrace.bundle import manifest
from mindtrace.config.settings import Settings
from mindtrace.documents import document
from mindtrace.errors import BundleError, NotFoundError, VerdictError
from mindtrace.registry.reference import locate
from mindtrace.registry.store import Store
from mindtrace.registry.verify import Verification, require_verified, verify, verify_all
from mindtrace.service.following import open_or_wait
from mindtrace.service.predict import load_model

Publish = Callable[..., Any]
Version = Callable[..., int]

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


@pytest.mark.slow
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


def test_the_first_fault_is_told_with_file_and_digests(folder: Path, settings: Settings) -> None:
    (folder / "model.onnx").write_bytes((folder / "model.onnx").read_bytes()[:-1] + b"\0")

    (fault,) = faults(settings)

    assert fault.startswith("model.onnx has digest ")
    assert ", expected " in fault
    with pytest.raises(VerdictError, match=r"digits/1: model\.onnx has digest"):
        require_verified(verify(settings), named=True)


def test_a_missing_folder_is_a_fault(folder: Path, settings: Settings) -> None:
    shutil.rmtree(folder)

    assert faults(settings) == ["no such folder"]


def test_a_file_that_does_not_belong_there(folder: Path, settings: Settings) -> None:
    (folder / "notes.txt").write_text("mine")
    (folder / "registered_model_meta").write_text("MLflow's own")

    assert faults(settings) == ["notes.txt is no file of this bundle"]


@pytest.mark.parametrize("name", ["model.pkl", "weights.bin", "model.pt"])
def test_pickles_are_named(folder: Path, settings: Settings, name: str) -> None:
    (folder / name).write_bytes(pickle.dumps([1]))

    assert f"{name} is a pickle, which no bundle holds" in faults(settings)


@pytest.mark.parametrize("name", ["weights_digest", "config_digest", "test_digest"])
def test_a_registry_that_says_something_else(
    register: Publish, store: Store, settings: Settings, name: str
) -> None:
    register()
    store.client.set_model_version_tag("digits", "1", f"mindtrace.{name}", "0" * 64)

    (fault,) = faults(settings)
    assert fault.startswith(f"{name} is ")
    assert fault.endswith("the registry says 000000000000")


def test_aliases_that_disagree_with_the_history_or_name_nothing(
    register: Publish, version: Version, store: Store, settings: Settings, root: Path
) -> None:
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


def aliases(settings: Settings) -> tuple[str, ...]:
    return list(verify_all(settings, "digits"))[-1].faults


def test_a_version_of_plain_mlflow_is_marked_and_cannot_be_verified(
    register: Publish, version: Version, settings: Settings
) -> None:
    register("digits"), version("theirs")

    found = {one.subject: one.state for one in verify_all(settings)}
    assert found["theirs/1"] == "no bundle"
    assert found["digits/1"] == "verified"
    require_verified(list(verify_all(settings)), named=False)
    with pytest.raises(VerdictError, match="mindtrace did not register it"):
        require_verified(verify(settings, "theirs/1"), named=True)


def test_what_does_not_exist(register: Publish, settings: Settings, tmp_path: Path) -> None:
    register()
    for attempt in (
        lambda: verify(settings, "digits/9"),
        lambda: verify(settings, str(tmp_path / "no")),
        lambda: list(verify_all(settings, "digit")),
    ):
        with pytest.raises(NotFoundError):
            attempt()


def test_a_verdict_counts_what_else_is_wrong() -> None:
    found = [Verification("a", n, f"a/{n}", None, "damaged", ("x",)) for n in (1, 2, 3)]

    with pytest.raises(VerdictError, match="a/1: x, and 2 more"):
        require_verified(found, named=False)
