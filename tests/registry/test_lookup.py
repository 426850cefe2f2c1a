"""From what a user names to the bundle that answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mindtrace.bundle import manifest
from mindtrace.bundle.bundle import Contents
from mindtrace.config.settings import Settings, load_settings
from mindtrace.errors import BundleError, NotFoundError, StoreError
from mindtrace.registry.client_reader import ClientReader
from mindtrace.registry.publish import publish
from mindtrace.registry.reader import open_reader
from mindtrace.registry.reference import Located, find, locate
from mindtrace.registry.store import Store, start_run

Publish = Callable[..., Any]
Version = Callable[..., int]


def found(settings: Settings, text: str | None) -> str:
    row = find(settings, open_reader(settings), text)
    return f"{row.name}/{row.version}"


def missed(settings: Settings, text: str | None) -> NotFoundError:
    with pytest.raises(NotFoundError) as caught:
        found(settings, text)
    return caught.value


@pytest.fixture
def two_models(store: Store, version: Version) -> Store:
    for _ in range(3):
        version("mnist")
    version("digits")
    store.client.set_registered_model_alias("mnist", "champion", "2")
    store.client.set_registered_model_alias("mnist", "best", "3")
    return store


def test_every_form_of_a_reference_finds_its_version(two_models: Store, settings: Settings) -> None:
    assert found(settings, "mnist") == "mnist/2"
    assert found(settings, "mnist@champion") == "mnist/2"
    assert found(settings, "mnist@best") == "mnist/3"
    assert found(settings, "mnist@latest") == "mnist/3"
    assert found(settings, "mnist/1") == "mnist/1"


def test_the_only_model_needs_no_name(store: Store, version: Version, settings: Settings) -> None:
    version("mnist"), version("mnist")
    store.client.set_registered_model_alias("mnist", "champion", "1")

    assert found(settings, None) == "mnist/1"
    assert found(settings, "2") == "mnist/2"


def test_of_several_models_one_must_be_named(two_models: Store, settings: Settings) -> None:
    for text in (None, "1"):
        error = missed(settings, text)
        assert (error.kind, error.name, error.known) == ("model", None, ("digits", "mnist"))
        assert "model_name" in str(error.hint)


def test_the_configured_model_is_the_one_in_question(two_models: Store, root: Path) -> None:
    settings = load_settings(sets=["registry.model_name=mnist"])

    assert found(settings, None) == "mnist/2"
    assert found(settings, "1") == "mnist/1"
    assert found(settings, "digits/1") == "digits/1"
    error = missed(load_settings(sets=["registry.model_name=mnits"]), None)
    assert (error.kind, error.name) == ("model", "mnits")
    assert "did you mean 'mnist'" in error.message


def test_what_does_not_exist_is_told_beside_what_does(
    two_models: Store, settings: Settings
) -> None:
    model, version, alias = (missed(settings, text) for text in ("nmist", "mnist/9", "mnist@bset"))

    assert (model.kind, model.name, model.known) == ("model", "nmist", ("digits", "mnist"))
    assert (version.kind, version.name) == ("version", "mnist/9")
    assert version.known == ("mnist/3", "mnist/2", "mnist/1")
    assert (alias.kind, alias.name) == ("alias", "mnist@bset")
    assert alias.known == ("mnist@best", "mnist@champion")
    assert missed(settings, "digits").known == ()
    assert missed(settings, "nobody/1").kind == "model"


def test_an_empty_registry_says_to_train(store: Store, settings: Settings) -> None:
    error = missed(settings, None)

    assert (error.kind, error.name, error.known) == ("model", None, ())
    assert "mindtrace train" in str(error.hint)


def test_a_registered_version_is_located_with_its_digest(
    register: Publish, settings: Settings
) -> None:
    published = register()

    located = locate(settings, "digits")

    assert located.digest == published.bundle_digest
    assert located.row is not None and located.row.version == 1
    assert manifest.check(located.folder, located.digest)


def test_a_folder_is_located_as_it_is(tmp_path: Path, settings: Settings) -> None:
    assert locate(settings, str(tmp_path)) == Located(tmp_path, None, None)
    with pytest.raises(NotFoundError) as caught:
        locate(settings, str(tmp_path / "no"))
    assert caught.value.kind == "bundle folder"


def test_a_version_that_is_not_ours_has_no_bundle(version: Version, settings: Settings) -> None:
    version("theirs")

    with pytest.raises(BundleError) as caught:
        locate(settings, "theirs/1")
    assert "not registered by mindtrace" in caught.value.message


@pytest.mark.slow
def test_a_bundle_elsewhere_is_fetched_once_and_checked(
    register: Publish, store: Store, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As from a server: through MLflow, whose versions say `runs:/...`."""
    published = register()
    monkeypatch.setattr(
        "mindtrace.registry.reference.open_reader", lambda settings: ClientReader(store.uri, root)
    )
    settings = load_settings()

    located = locate(settings, "digits")

    assert located.folder == root / "bundles" / published.bundle_digest
    assert manifest.check(located.folder, published.bundle_digest)
    assert not manifest.orphans(located.folder)
    (root / "bundles" / published.bundle_digest / "model.onnx").touch()
    assert locate(settings, "digits").folder == located.folder
    assert [path.name for path in (root / "bundles").iterdir()] == [published.bundle_digest]


@pytest.mark.slow
def test_what_was_fetched_and_is_not_what_was_registered_is_not_kept(
    register: Publish, store: Store, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register()
    (artifact,) = root.glob("mlartifacts/*/artifacts/bundle/model.onnx")
    artifact.write_bytes(b"something else")
    monkeypatch.setattr(
        "mindtrace.registry.reference.open_reader", lambda settings: ClientReader(store.uri, root)
    )

    with pytest.raises(BundleError, match=r"model\.onnx"):
        locate(load_settings(), "digits")
    assert list((root / "bundles").iterdir()) == []


def test_a_file_where_root_should_be_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "occupied").write_text("a file")
    settings = load_settings(sets=[f"DIR_PATHS.ROOT={tmp_path / 'occupied'}"])

    with pytest.raises(StoreError) as caught:
        Store(settings.registry.tracking_uri, settings.dirs.root)

    assert "\n" not in caught.value.message
    assert str(tmp_path / "occupied") in caught.value.message
    assert caught.value.hint
    with pytest.raises(NotFoundError):
        open_reader(settings)


@pytest.mark.parametrize("name", ["Jörgs Räume & mehr", "100 %20 #1 ?x=y"])
def test_a_root_with_any_name_simply_works(tmp_path: Path, packed: Contents, name: str) -> None:
    """Everything in ROOT, from the tables to the bundle's bytes."""
    root = tmp_path / name
    settings = load_settings(environ={"DIR_PATHS__ROOT": str(root)})
    store = Store(settings.registry.tracking_uri, settings.dirs.root)
    run = start_run(store, "digits", None, {})
    publish(
        store, model_name="digits", run_id=run.run_id, contents=packed, metadata={}, by="tester"
    )
    run.end("FINISHED")

    located = locate(settings, None)

    assert located.folder.is_relative_to(root)
    assert manifest.check(located.folder, located.digest)
