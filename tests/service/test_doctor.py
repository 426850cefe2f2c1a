"""`doctor`: each thing that can be wrong is found, and told with what to do."""

from __future__ import annotations

import contextlib
import importlib.metadata
import shutil
import socket
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest
from tests.application.conftest import Serve

from mindtrace.config.settings import Settings, load_settings
from mindtrace.service.doctor import Check, examine


def _settings(root: Path, *sets: str) -> Settings:
    # Port 1: nobody listens there, and nobody's own server on 8000 is asked.
    return load_settings(sets=[f"DIR_PATHS.ROOT={root}", "serve.port=1", *sets], environ={})


def _checks(settings: Settings) -> dict[str, Check]:
    return {check.check: check for check in examine(settings)}


def _wrong(settings: Settings) -> dict[str, Check]:
    found = {name: c for name, c in _checks(settings).items() if c.state == "wrong"}
    assert all(check.hint for check in found.values())
    return found


def test_nothing_is_wrong_before_the_first_training(tmp_path: Path) -> None:
    root = tmp_path / "not" / "made" / "yet"
    checks = _checks(_settings(root))
    assert not [check for check in checks.values() if check.state == "wrong"]
    assert checks["mindtrace"].details["version"] == importlib.metadata.version("mindtrace")
    assert checks["torch"].details["version"] == importlib.metadata.version("torch")
    assert "empty" in checks["store"].found
    assert checks["server"].hint == "mindtrace serve"
    assert not root.exists()


@pytest.mark.parametrize(
    ("installed", "name", "told"),
    [
        ({"mlflow": None}, "mlflow", "not installed"),
        ({"torch": "2.10.0"}, "torch and torchvision", "was built for torch"),
    ],
)
def test_a_package_that_does_not_fit(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    installed: dict[str, Any],
    name: str,
    told: str,
) -> None:
    real = importlib.metadata.version

    def version(asked: str) -> str:
        found = installed.get(asked, real(asked))
        if found is None:
            raise importlib.metadata.PackageNotFoundError(asked)
        return str(found)

    monkeypatch.setattr(importlib.metadata, "version", version)
    wrong = _wrong(_settings(tmp_path))
    assert set(wrong) == {name}
    assert told in wrong[name].found
    assert str(wrong[name].hint).startswith("pip install")


def test_a_root_or_a_store_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "cannot be written" in _wrong(_settings(tmp_path / "file" / "root"))["root"].found
    assert set(_wrong(_settings(tmp_path, "serve.host=0.0.0.0"))) == {"token"}
    (tmp_path / "mlflow.db").write_bytes(b"no database" * 100)
    assert set(_wrong(_settings(tmp_path))) == {"store"}


def test_a_store_that_does_not_answer(tmp_path: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        port = silent.getsockname()[1]
        uri = f"registry.tracking_uri=http://me:secret@127.0.0.1:{port}"
        wrong = _wrong(_settings(tmp_path, uri))
    assert set(wrong) == {"store"}
    assert "secret" not in str(wrong["store"])


@pytest.mark.slow
def test_champions_are_verified(trained: Path, trained_bundle: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    shutil.copytree(trained, root)
    store = root / "mlflow.db"
    settings = _settings(root)
    assert _checks(settings)["champion of digits"].found == "version 1, verified"
    assert "champion of mnist" in _checks(_settings(root, "registry.model_name=mnist"))

    with contextlib.closing(sqlite3.connect(store)) as database, database:
        database.execute("update model_version_tags set value = 'no' where key like '%bundle_dig%'")
    check = _wrong(settings)["champion of digits"]
    assert "manifest.json has digest" in check.found

    with contextlib.closing(sqlite3.connect(store)) as database, database:
        database.execute("delete from registered_model_aliases")
    assert "alias is gone" in _wrong(settings)["champion of digits"].found


@pytest.mark.slow
def test_a_root_that_was_copied_and_what_fix_makes_of_it(trained: Path, tmp_path: Path) -> None:
    """MLflow's own tools go by the paths in the database."""
    root = shutil.copytree(trained, tmp_path / "root")
    places = _checks(_settings(root))["places"]
    assert (places.state, places.hint) == ("note", "mindtrace doctor --fix")
    assert places.details["recorded"] == [str(trained)]

    fixed = {check.check: check for check in examine(_settings(root), fix=True)}["places"]

    uris = _column(root / "mlflow.db", "artifact_uri", "runs")
    assert uris and all(uri.startswith(root.as_uri()) for uri in uris)
    assert root.as_uri() + "/mlartifacts" in _column(
        root / "mlflow.db", "artifact_location", "experiments"
    )
    kept = Path(fixed.details["copy"])
    assert kept.parent == root
    assert all(uri.startswith(trained.as_uri()) for uri in _column(kept, "artifact_uri", "runs"))
    checks = _checks(_settings(root))
    assert (checks["places"].state, checks["places"].hint) == ("ok", None)
    assert checks["champion of digits"].found == "version 1, verified"
    shutil.rmtree(root / "mlartifacts")
    lost = _wrong(_settings(root))["bundles"]
    assert lost.details["lost"] == ["digits/1"]


def _column(database: Path, column: str, table: str) -> list[str]:
    with contextlib.closing(sqlite3.connect(database)) as connection:
        return [text for (text,) in connection.execute(f"select {column} from {table}")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "check", "state", "words"),
    [
        ("update alembic_version set version_num = 'abc'", "schema", "wrong", "newer than this"),
        (
            "update alembic_version set version_num = '97727af70f4d'",
            *("schema", "note", "of an older MLflow"),
        ),
        (
            "delete from registered_models where name = 'digits'",
            *("history of digits", "note", "was deleted"),
        ),
        (
            "update runs set artifact_uri = 'file:///no/where'",
            *("bundles", "wrong", "1 lost, 1 outside"),
        ),
    ],
)
def test_what_a_store_may_be(
    trained: Path, tmp_path: Path, change: str, check: str, state: str, words: str
) -> None:
    root = shutil.copytree(trained, tmp_path / "root")
    with contextlib.closing(sqlite3.connect(root / "mlflow.db")) as database, database:
        database.execute(change)
    found = _checks(_settings(root))[check]
    assert found.state == state
    assert words in found.found


def test_a_server_that_serves(tmp_path: Path, bundle: Path, serve: Serve) -> None:
    with serve(_settings(tmp_path), str(bundle)) as client:
        port = client.base_url.port
        check = _checks(_settings(tmp_path, f"serve.port={port}"))["server"]
    assert (check.state, check.found) == ("ok", f"http://127.0.0.1:{port} serves a bundle")


def test_a_server_that_has_nothing_to_serve(tmp_path: Path, serve: Serve) -> None:
    with serve(_settings(tmp_path)) as client:
        wrong = _wrong(_settings(tmp_path, f"serve.port={client.base_url.port}"))
    assert "no version to serve yet" in wrong["server"].found


def test_somebody_else_on_the_port(tmp_path: Path) -> None:
    def talk(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection:
                    connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=talk, args=(listener,))
        thread.start()
        wrong = _wrong(_settings(tmp_path, f"serve.port={listener.getsockname()[1]}"))
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
    assert set(wrong) == {"server"}
