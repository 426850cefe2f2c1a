"""A ROOT that cannot be written: it is read and served; what writes says so in one line."""

from __future__ import annotations

import ast
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from PIL import Image
from tests.registry.conftest import closed, plain_version, sqlite_store

from mindtrace.registry.reader import open_database

# In a name space of its own the test may mount, and root cannot write either.
MOUNT = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'


def read_only(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A command that sees this folder as a mount without write permission."""
    command = ["unshare", "-rm", "bash", "-c", MOUNT, str(folder), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="session")
def _mounts(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("mount")
    if shutil.which("unshare") is None or read_only(folder, "true").returncode != 0:
        pytest.skip("this system lets nobody mount in a name space of his own")


def at_rest(root: Path) -> None:
    """Nobody has it open: no file of WAL is there."""
    closed(root / "mlflow.db")


def killed(root: Path) -> None:
    """Its last writer died, so that what it wrote stands in the -wal only."""
    database = root / "mlflow.db"
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("pragma wal_autocheckpoint = 0")
        connection.execute(
            "insert into registered_models (name, workspace) values ('x', 'default')"
        )
        connection.commit()
        for end in ("", "-wal"):
            shutil.copy(f"{database}{end}", f"{database}{end}.then")
    for end in ("", "-wal"):
        Path(f"{database}{end}.then").rename(f"{database}{end}")


def half_written(root: Path) -> None:
    """Without WAL: its last writer died in a transaction, which the -journal takes back."""
    database = root / "mlflow.db"
    with closing(sqlite3.connect(closed(database), isolation_level=None)) as connection:
        connection.execute("pragma journal_mode = delete")
        connection.execute("pragma cache_size = 1")
        connection.execute("begin immediate")
        connection.execute("delete from model_versions")
        connection.execute("update registered_models set description = hex(zeroblob(90000))")
        for end in ("", "-journal"):
            shutil.copy(f"{database}{end}", f"{database}{end}.then")
        connection.execute("rollback")
    for end in ("", "-journal"):
        Path(f"{database}{end}.then").rename(f"{database}{end}")


def open_elsewhere(root: Path) -> None:
    """The files of WAL are there, as of a writer that has it open."""
    killed(root)
    with closing(sqlite3.connect(root / "mlflow.db")) as connection:
        connection.execute("select 1 from registered_models").fetchall()
        shutil.copy(root / "mlflow.db-wal", root / "wal.then")
        shutil.copy(root / "mlflow.db-shm", root / "shm.then")
    (root / "wal.then").rename(root / "mlflow.db-wal")
    (root / "shm.then").rename(root / "mlflow.db-shm")


LIST = (
    "import sys, pathlib; from mindtrace.registry.reader import open_database;"
    "reader = open_database(pathlib.Path(sys.argv[1]));"
    "print(reader.names(), [row.version for row in reader.versions('m', 9)])"
)


@pytest.mark.usefixtures("_mounts")
@pytest.mark.parametrize("state", [at_rest, killed, half_written, open_elsewhere])
def test_the_tables_are_read_where_nothing_can_be_written(
    tmp_path: Path, empty_database: Path, state: Callable[[Path], None]
) -> None:
    root = tmp_path / "root %20 #1"
    root.mkdir()
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    store = sqlite_store(tmp_path)
    plain_version(store, "m"), plain_version(store, "m")
    shutil.copy(closed(tmp_path / "mlflow.db"), root)  # one that nobody has open
    state(root)
    before = {path.name: path.read_bytes() for path in root.iterdir() if path.is_file()}

    found = read_only(root, sys.executable, "-c", LIST, str(root / "mlflow.db"))

    names = ["m", "x"] if state in (killed, open_elsewhere) else ["m"]
    assert (found.stdout, found.stderr) == (f"{names} [2, 1]\n", "")
    after = {path.name: path.read_bytes() for path in root.iterdir() if path.is_file()}
    assert after == before
    assert open_database(root / "mlflow.db").names() == names


READING = [
    "registry list",
    "registry show digits",
    "registry history digits",
    "registry compare digits/1 2",
    "registry verify --all",
    "registry gc --keep 1 --dry-run",
    "jobs list",
]
WRITING = [
    "train --source digits --max-epochs 1",
    "train --source digits --dry-run",
    "registry promote digits/1 --force --reason x",
    "registry rollback digits",
    "registry evaluate digits --set data.source=digits",
    "retrain --set data.source=digits",
]
DOCTOR = "doctor --set serve.port=0"
EACH = """
import subprocess, sys
for line in sys.argv[1:]:
    words = [sys.executable, "-m", "mindtrace", *line.split()]
    done = subprocess.run(words, capture_output=True, text=True)
    print((line, done.returncode, done.stdout, done.stderr))
"""


@pytest.fixture(scope="module")
def two(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ROOT with two versions, of which the second is champion."""
    root = shutil.copytree(trained, tmp_path_factory.mktemp("two") / "root")
    environment = {**os.environ, "DIR_PATHS__ROOT": str(root)}
    for words in (
        "train --source digits --max-epochs 1 --quiet",
        "registry promote digits/2 --force --reason x",
    ):
        command = [sys.executable, "-m", "mindtrace", *words.split()]
        subprocess.run(command, check=True, env=environment, capture_output=True)
    return root


@pytest.fixture
def image(tmp_path: Path) -> Path:
    Image.new("L", (8, 8)).save(tmp_path / "image.png")
    return tmp_path / "image.png"


@pytest.mark.proof
@pytest.mark.usefixtures("_mounts")
def test_commands_that_read_work_and_those_that_write_say_so_in_one_line(
    two: Path, image: Path
) -> None:
    reading = [f"predict {image}", *READING]
    each = ("env", f"DIR_PATHS__ROOT={two}", sys.executable, "-c", EACH)

    done = read_only(two, *each, DOCTOR, *reading, *WRITING)

    assert done.returncode == 0, done.stderr
    examined, *rows = [ast.literal_eval(line) for line in done.stdout.splitlines()]
    wrong = [line for line in examined[2].splitlines() if "\twrong\t" in line]
    assert (examined[:2], len(wrong)) == ((DOCTOR, 1), 1), examined
    assert wrong[0].startswith("root\t") and "reading and serving work all the same" in wrong[0]
    assert [row[0] for row in rows] == [*reading, *WRITING]
    for line, status, out, errors in rows:
        if line in reading:
            assert (status, "error" in errors) == (0, False), (line, errors)
            continue
        error, *hints = errors.splitlines()
        assert (status, out, len(hints)) == (1, "", 1), (line, errors)
        assert "cannot be written" in error or "Read-only" in error, line
        assert hints[0].startswith("hint: "), line


@pytest.mark.proof
@pytest.mark.usefixtures("_mounts")
def test_a_version_is_served_from_there(two: Path, image: Path) -> None:
    words = [sys.executable, "-m", "mindtrace", "serve", "--port", "0"]
    command = ["unshare", "-rm", "bash", "-c", MOUNT, str(two), *words]
    environment = {**os.environ, "DIR_PATHS__ROOT": str(two)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as server:
        assert server.stderr is not None
        address = re.search(r"http://[^,]+", server.stderr.readline())
        assert address is not None
        content = {"content": image.read_bytes(), "headers": {"Content-Type": "image/png"}}
        answer = httpx.post(f"{address[0]}/inference", timeout=60, **content)  # type: ignore[arg-type]
        server.terminate()
        log = server.stderr.read()
    assert (answer.status_code, answer.json()["version"]) == (200, 2)
    assert server.returncode == 0
    assert "ERROR" not in log
    assert log.count("no worker can be started") <= 1
