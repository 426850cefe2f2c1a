"""A registry behind a real `mlflow server`: the same behaviour, by URL."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mindtrace.bundle import manifest
from mindtrace.bundle.bundle import Contents
from mindtrace.bundle.predictor import Predictor
from mindtrace.config.settings import load_settings
from mindtrace.errors import NotFoundError
from mindtrace.registry.champions import ChampionLog
from mindtrace.registry.publish import publish
from mindtrace.registry.reader import open_reader
from mindtrace.registry.reference import find, locate
from mindtrace.registry.store import Store, start_run

pytestmark = pytest.mark.slow


def test_a_version_goes_there_and_comes_back_whole(
    server_store: Store,
    packed: Contents,
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = server_store
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    run = start_run(store, "remote", None, {})
    published = publish(
        store,
        model_name="remote",
        run_id=run.run_id,
        contents=packed,
        metadata={"seed": "1"},
        by="t",
    )
    run.end("FINISHED")
    settings = load_settings()

    located = locate(settings, "remote")

    assert (published.version, published.champion) == (1, True)
    assert located.folder == root / "bundles" / published.bundle_digest
    assert manifest.check(located.folder, published.bundle_digest)
    assert Predictor.open(located.folder, located.digest).model_config == packed.model_config
    assert located.row is not None
    assert located.row.tags["mindtrace.seed"] == "1"
    assert located.row.aliases == ("champion",)
    log = ChampionLog.of_store(store, "remote")
    assert [entry.to for entry in log.entries()] == [1]
    assert log.append(expected=0, action="promote", to=1, by="t", run_id=run.run_id) is None
    reader = open_reader(settings)
    assert "remote" in reader.names()
    assert [row.version for row in reader.versions("remote", 5)] == [1]
    with pytest.raises(NotFoundError) as caught:
        find(settings, reader, "remote/7")
    assert caught.value.known == ("remote/1",)
    assert list((tmp_path / "cwd").iterdir()) == [], "nothing lands in the working directory"
    assert not (root / "mlflow.db").exists()


def test_what_mlflow_prints_is_no_result(
    server_store: Store, mindtrace: Callable[..., Any], tmp_path: Path
) -> None:
    words = ("--source", "digits", "--max-epochs", "1", "--json")
    trained = mindtrace("train", "--set", "registry.model_name=quiet", *words)

    assert trained.returncode == 0, trained.stderr
    assert json.loads(trained.stdout)["version"] == 1
    exported = mindtrace("registry", "export", "quiet", str(tmp_path / "out"), "-q")
    assert (exported.returncode, exported.stderr) == (0, "")
    for told in (trained.stdout, trained.stderr):
        assert "View run" not in told
