"""A ROOT or an image folder that is moved, mounted or copied."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import create_engine, text as sql
from tests.conftest import Mindtrace, RunCli
from tests.jobs.shop import shop
from tests.registry.conftest import register_version
from tests.registry.servers import execute
from tests.registry.test_places import HOWS, copied, files, moved, settings_of

from mindtrace.bundle.bundle import Contents
from mindtrace.registry.maintenance import gc, verify_all
from mindtrace.registry.reference import locate
from mindtrace.registry.store import Store
from mindtrace.service.promotion import history

pytestmark = pytest.mark.proof
BIND = 'mount --bind "$0" "$1" && shift && exec "$@"'
TRAIN = ("--set", "compute.threads=1", "--quiet")


def photos(folder: Path, start: int, stop: int) -> None:
    """Images of two classes that a small network tells apart, numbered."""
    for number in range(start, stop):
        draw = np.random.default_rng(number)
        for name, level in (("dark", 60), ("light", 190)):
            pixels = draw.integers(level - 50, level + 50, (16, 16)).astype(np.uint8)
            (folder / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")


def test_a_training_that_was_interrupted_goes_on_in_a_moved_root(
    root: Path, mindtrace: Mindtrace
) -> None:
    words = ("train", "--source", "digits", "--max-epochs", "12", *TRAIN[:2])
    command = [sys.executable, "-m", "mindtrace", *words, "--json"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ})
    assert process.stderr is not None
    while '"event": "epoch"' not in (line := process.stderr.readline()):
        assert line, "the training ended before its first epoch"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130, err
    hint = json.loads(err.splitlines()[-1])["error"]["hint"]
    run_id = hint.partition("--resume ")[2].split()[0]
    there = root.rename(root.parent / "elsewhere")

    done = mindtrace(*words, "--json", "--resume", run_id, env={"DIR_PATHS__ROOT": str(there)})

    assert done.returncode == 0, done.stderr
    epochs = [row["epoch"] for row in map(json.loads, done.stderr.splitlines()) if "epoch" in row]
    assert epochs[0] > 1
    assert epochs[-1] == 12
    assert not root.exists()


def test_a_root_that_is_mounted_elsewhere_while_its_own_path_is_there(
    trained: Path, tmp_path: Path
) -> None:
    """Both paths show the same files: nothing is taken for a copy, nothing is written twice."""
    own, place = shutil.copytree(trained, tmp_path / "own"), tmp_path / "place"
    place.mkdir()

    def run(line: str, root: Path = place) -> str:
        environment = {**os.environ, "DIR_PATHS__ROOT": str(root)}
        words = [str(own), str(place), sys.executable, "-m", "mindtrace", *line.split()]
        command = ["unshare", "-rm", "bash", "-c", BIND, *words]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, (line, done.stderr)
        return done.stdout

    if shutil.which("unshare") is None or _cannot_mount(own, place):
        pytest.skip("this system lets nobody mount in a name space of his own")
    Image.new("L", (8, 8)).save(tmp_path / "image.png")
    train = f"train --source digits --max-epochs 1 {' '.join(TRAIN)}"
    assert run(f"{train} --set train.seed=1") == "digits/2\n"
    assert run(f"{train} --set train.seed=2", own) == "digits/3\n"
    assert run(f"{train} --set train.seed=3") == "digits/4\n"
    run("registry promote digits/2 --force --reason x")
    for root in (own, place):
        run("registry verify --all", root)
        assert "digits\t2" in run(f"predict {tmp_path / 'image.png'}", root)
    run("registry gc --keep 1")
    run("registry verify --all", own)
    assert len(list((own / "mlartifacts").glob("*/artifacts/bundle"))) == 3  # all but digits/3
    assert list(place.iterdir()) == []  # it is mounted for those processes only


def _cannot_mount(own: Path, place: Path) -> bool:
    command = ["unshare", "-rm", "bash", "-c", BIND, str(own), str(place), "true"]
    return subprocess.run(command, capture_output=True).returncode != 0


@pytest.mark.postgres
@pytest.mark.parametrize("how", [copied, moved, HOWS[2]], ids=["copied", "moved", "odd name"])
def test_a_root_whose_versions_are_in_postgresql(
    postgres_store: Store, packed: Contents, tmp_path: Path, how: Callable[[Path], Path]
) -> None:
    first = Store(postgres_store.uri, tmp_path / "a")
    for _ in range(3):
        register_version(first, packed)
    root = Path(how(tmp_path / "a"))
    others = files(tmp_path / "a") if (tmp_path / "a").exists() else None
    settings = settings_of(root, f"registry.tracking_uri={postgres_store.uri}")

    assert {one.state for one in verify_all(settings)} == {"verified"}
    register_version(Store(postgres_store.uri, root), packed)
    assert locate(settings, "digits/1").folder.is_relative_to(root)
    assert len(list(root.glob("mlartifacts/*/artifacts/bundle"))) == 4
    assert [one.version for one in gc(settings, keep=1)] == [2, 3]

    assert len(list(root.glob("mlartifacts/*/artifacts/bundle"))) == 2
    assert others is None or files(tmp_path / "a") == others


@pytest.mark.postgres
@pytest.mark.parametrize("revision", ["older", "newer"])
def test_tables_of_another_mlflow_on_a_database_server_are_left_as_they_are(
    postgres_store: Store, root: Path, run_cli: RunCli, revision: str
) -> None:
    """Nothing is migrated that others use: who does it knows, and can keep a copy."""
    number = {"older": "5d2d30f0abce", "newer": "ffffffffffff"}[revision]
    execute(postgres_store.uri, f"update alembic_version set version_num = '{number}'")

    for line in ("train --source digits", "registry list", "doctor"):
        done = run_cli(*line.split())
        said = done.stdout + done.stderr
        assert (done.exit_code, "Traceback" in said) == (1, False), said
        assert f"revision {number}" in said
        assert ("mlflow db upgrade" in said) == (revision == "older")
        assert "geheim" not in said

    engine = create_engine(postgres_store.uri)
    with engine.connect() as connection:
        assert connection.scalar(sql("select version_num from alembic_version")) == number
    engine.dispose()


@pytest.mark.parametrize("way", ["moved", "renamed files", "linked"])
def test_images_that_were_moved_are_the_same_images(
    root: Path, tmp_path: Path, run_cli: RunCli, way: str
) -> None:
    """Another path, the same splits: the version is judged, made again and trained on."""
    photos(tmp_path / "here", 0, 40)

    def run(*words: str) -> dict[str, object]:
        done = run_cli(*words, "--json")
        assert done.exit_code == 0, done.stderr
        found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
        return found

    options = ("--model", "mlp", "--max-epochs", "2", "--model-name", "photos", *TRAIN)
    first = run("train", str(tmp_path / "here"), *options)
    there = (tmp_path / "here").rename(tmp_path / "there")
    if way == "renamed files":
        for file in list(there.glob("*/*.png")):
            file.rename(file.with_name(f"new-{file.name}"))
    if way == "linked":
        (tmp_path / "link").symlink_to(there)
        there = tmp_path / "link"
    again = run("train", str(there), *options, "--force")
    assert (again["version"], again["test_digest"]) == (2, first["test_digest"])
    assert again["data_digest"] == first["data_digest"] or way == "renamed files"
    images = ("--set", "data.source=folder", "--set", f"data.dir={there}")
    judged = run("registry", "evaluate", "photos/1", *images)
    assert (judged["left_out"], judged["test_digest"]) == (0, first["test_digest"])
    if way == "moved":
        made = run("reproduce", "photos/1", *images)
        assert (made["verdict"], made["weights_digest"]) == ("EXACT", first["weights_digest"])


@pytest.mark.long
def test_a_folder_that_grew_is_trained_by_a_job_and_passes_the_gate(tmp_path: Path) -> None:
    """The old version is compared on images that neither was trained on, so it can be."""
    photos(tmp_path / "photos", 0, 150)
    with shop(tmp_path / "root", None) as opened:
        text = opened.config.read_text().replace("digits", f"folder\ndir = {tmp_path / 'photos'}")
        opened.config.write_text(f"{text}[registry]\nmodel_name = photos\n[jobs]\npromote = gate\n")
        opened.start()
        first = opened.ended(opened.submit(lr=0.003))
        photos(tmp_path / "photos", 150, 200)
        second = opened.ended(opened.submit(lr=0.003, max_epochs=3))

        assert (first.state, second.state) == ("succeeded", "succeeded"), second.error
        assert first.promotion is not None
        assert first.promotion["promoted"] is True
        assert second.promotion is not None
        assert second.promotion["verdict"] in ("PROMOTE", "HOLD"), second.promotion
        entry = history(opened.settings, "photos")[-1]
        assert (entry.to, entry.test_digest is None) == (2, False), entry
