"""A ROOT that was copied, moved or mounted elsewhere: its own files, and nobody else's."""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from mlflow.tracking._tracking_service.utils import _artifact_repos_cache
from PIL import Image
from tests.conftest import Mindtrace
from tests.registry.conftest import NewStore, closed, register_version, sqlite_store

from mindtrace.bundle.bundle import Contents
from mindtrace.config.settings import Settings, load_settings
from mindtrace.errors import StoreError
from mindtrace.registry.maintenance import gc, verify_all
from mindtrace.registry.reader import open_reader, open_store
from mindtrace.registry.reference import locate
from mindtrace.registry.store import resume_run, start_run
from mindtrace.service.train import plan, train


def settings_of(root: Path | str, *sets: str) -> Settings:
    return load_settings(sets=[f"DIR_PATHS.ROOT={root}", *sets], environ={})


def files(folder: Path) -> dict[str, str]:
    """Every file and its digest; a database's -shm and an empty -wal are no content."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith("-shm")
        if path.stat().st_size or not path.name.endswith("-wal")
    }


def name_folder(root: Path, before: Path) -> Path:
    """As if a ROOT had been made where it is."""
    with closing(sqlite3.connect(root / "mlflow.db")) as connection, connection:
        for table, column in (("runs", "artifact_uri"), ("experiments", "artifact_location")):
            change = f"update {table} set {column} = replace({column}, ?, ?)"
            connection.execute(change, (before.as_uri(), root.as_uri()))
    return root


@pytest.fixture(scope="module")
def once(packed: Contents, new_store: NewStore) -> Path:
    store = new_store()
    for _ in range(3):
        register_version(store, packed)
    start_run(store, "digits", "interrupted", {})
    closed(store.root / "mlflow.db")
    return store.root


@pytest.fixture
def original(once: Path, tmp_path: Path) -> Path:
    """A ROOT with versions 1 to 3 of `digits`, which names its own folder."""
    _artifact_repos_cache.clear()  # MLflow remembers where this process last wrote to a run
    return name_folder(shutil.copytree(once, tmp_path / "a"), once)


def copied(original: Path) -> Path:
    return shutil.copytree(original, original.parent / "b")


def copied_inside(original: Path) -> Path:
    shutil.copytree(original, original.parent / "b")
    return shutil.move(original.parent / "b", original / "copy")


def oddly_named(original: Path) -> Path:
    return shutil.copytree(original, original.parent / "wörk %20 #1 ?x=y & z")


def moved(original: Path) -> Path:
    return original.rename(original.parent / "b")


def moved_and_made_anew(original: Path) -> Path:
    there = original.rename(original.parent / "b")
    original.mkdir()
    shutil.copy(there / "mlflow.db", original)
    return there


def linked(original: Path) -> Path:
    (original.parent / "b").symlink_to(moved(original).rename(original.parent / "real"))
    return original.parent / "b"


def copied_again(original: Path) -> Path:
    return shutil.copytree(copied(original), original.parent / "c")


HOWS = [copied, copied_inside, oddly_named, moved, moved_and_made_anew, linked, copied_again]


@pytest.mark.parametrize("how", HOWS)
def test_what_lay_below_root_is_below_the_root_in_force(
    original: Path, packed: Contents, how: Callable[[Path], Path]
) -> None:
    root = Path(how(original))
    others = {
        path: files(path)
        for path in (original, original.parent / "b")
        if path.is_dir() and path.resolve() not in (root.resolve(), *root.resolve().parents)
    }
    settings = settings_of(root)

    assert {one.state for one in verify_all(settings)} == {"verified"}
    new = register_version(open_store(settings), packed)
    store = open_store(settings)
    (interrupted,) = store.client.search_runs(["1"], "run_name = 'interrupted'")
    resume_run(store, interrupted.info.run_id).log_text("more", "more.txt")
    bundles = {n: locate(settings, f"digits/{n}").folder for n in (1, 2, 3, new.version)}
    assert [one.version for one in gc(settings, keep=1)] == [2, 3]

    assert all(folder.is_relative_to(root) for folder in bundles.values())
    assert [folder.is_dir() for folder in bundles.values()] == [True, False, False, True]
    assert len(list((root / "mlartifacts" / interrupted.info.run_id).rglob("more.txt"))) == 1
    assert {path: files(path) for path in others} == others


def test_a_relative_root_and_a_trailing_slash_are_the_same_root(
    original: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied(original)
    monkeypatch.chdir(original.parent)
    for text in ("b", "./b/", f"{original.parent}/b//", "a/../b"):
        (row, *_) = verify_all(settings_of(text))
        assert row.state == "verified", text


def test_a_bundle_that_a_copy_lost_is_not_taken_from_the_original(original: Path) -> None:
    root = copied(original)
    settings = settings_of(root)
    run_id = open_reader(settings).versions("digits", 1)[0].run_id
    shutil.rmtree(root / "mlartifacts" / str(run_id))

    states = [one.state for one in verify_all(settings) if one.version]

    assert states == ["damaged", "verified", "verified"]
    assert (original / "mlartifacts" / str(run_id)).is_dir()


def chosen_place(root: Path) -> tuple[Settings, Path]:
    """An experiment whose artifacts somebody put elsewhere."""
    place = root.parent / "elsewhere"
    sqlite_store(root).client.create_experiment("other", place.as_uri())
    return settings_of(root), place


def shared_database(root: Path) -> tuple[Settings, Path]:
    """One database, two ROOTs: it names files of the other one."""
    database = root.parent / "shared.db"
    (root / "mlflow.db").rename(database)
    other = root.parent / "other"
    return settings_of(other, f"registry.tracking_uri=sqlite:///{database}"), root / "mlartifacts"


def linked_artifacts(root: Path) -> tuple[Settings, Path]:
    (root.parent / "b").mkdir()
    shutil.copy(root / "mlflow.db", root.parent / "b")
    (root.parent / "b" / "mlartifacts").symlink_to(root / "mlartifacts")
    return settings_of(root.parent / "b"), root / "mlartifacts"


@pytest.mark.parametrize("kind", [chosen_place, shared_database, linked_artifacts])
def test_a_bundle_outside_root_is_read_and_never_deleted(
    original: Path, packed: Contents, kind: Callable[[Path], tuple[Settings, Path]]
) -> None:
    settings, place = kind(original)
    store = open_store(settings)
    if kind is chosen_place:
        for _ in range(2):
            register_version(store, packed, "other")
    before = files(place)
    assert {one.state for one in verify_all(settings)} == {"verified"}

    gone = [one.version for one in gc(settings, "other" if kind is chosen_place else None, keep=1)]

    assert gone == ([] if kind is chosen_place else [2])
    assert files(place) == before


def test_a_new_run_is_never_written_into_another_root(original: Path) -> None:
    """Also where both share a database, whose experiment names the folder of one of them."""
    settings, place = shared_database(original)
    before = files(place)

    run = start_run(open_store(settings), "digits", None, {})
    run.log_text("x", "x.txt")
    run.end("FINISHED")

    assert (settings.dirs.root / "mlartifacts" / run.run_id / "artifacts" / "x.txt").is_file()
    assert files(place) == before


@pytest.mark.parametrize("name", ["", "mlartifacts", "staging", "checkpoints"])
def test_a_training_knows_before_it_reads_images_that_it_cannot_write(
    tmp_path: Path, name: str
) -> None:
    root = tmp_path / "root"
    (root / name).parent.mkdir(exist_ok=True)
    (root / name).write_text("a file, no folder")

    for begin in (plan, train):
        with pytest.raises(StoreError, match="is no folder") as caught:
            begin(settings_of(root, "data.source=digits"))
        assert str(root / name) in caught.value.message
        assert "DIR_PATHS.ROOT" in str(caught.value.hint)


@pytest.mark.proof
@pytest.mark.sampled(1)
@pytest.mark.parametrize("how", [oddly_named, copied, moved])
def test_every_command_in_such_a_root(
    trained: Path, tmp_path: Path, mindtrace: Mindtrace, how: Callable[[Path], Path]
) -> None:
    """In real processes; `trained` stays as it is, and so does the folder it was copied from."""
    before = files(trained)
    first = shutil.copytree(trained, tmp_path / "a")
    name_folder(first, trained)
    root = Path(how(first))
    others = files(first) if first.exists() else {}
    Image.new("L", (8, 8)).save(tmp_path / "image.png")

    def run(line: str, status: int = 0) -> str:
        done = mindtrace(*line.split(), env={"DIR_PATHS__ROOT": str(root)})
        assert done.returncode == status, (line, done.stderr)
        return done.stdout

    train = "train --source digits --quiet --set compute.threads=1 --max-epochs"
    assert run(f"{train} 2") == "digits/2\n"
    assert run(f"{train} 1") == "digits/3\n"
    run("registry evaluate digits/1 --set data.source=digits")
    run("registry promote digits/2 --force --reason x")
    assert "digits\t2" in run(f"predict {tmp_path / 'image.png'}")
    run("registry verify --all")
    run("reproduce digits/1 --quiet")
    run("registry rollback digits")
    assert "0 lost, 0 outside ROOT" in run("doctor")
    shutil.rmtree(root / "mlartifacts")
    run("registry verify --all", status=3)
    assert files(trained) == before
    assert (files(first) if first.exists() else {}) == others
