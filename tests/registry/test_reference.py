"""What a user may write where a version is asked for, and the bundle that it leads to."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import example, given, strategies as st
from tests.registry.conftest import (
    NewStore,
    Publish,
    Version,
    closed,
    plain_version,
)

from mindtrace.bundle import manifest
from mindtrace.config.settings import Settings, load_settings
from mindtrace.errors import BundleError, NotFoundError, UsageError
from mindtrace.registry.client_reader import ClientReader
from mindtrace.registry.reader import open_reader
from mindtrace.registry.reference import Located, Reference, find, locate, parse_reference
from mindtrace.registry.store import Store

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True).filter(
    lambda name: not name.isdigit()
)
NUMBERS = st.integers(1, 9_999_999_999)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder where no name is a bundle."""
    monkeypatch.chdir(tmp_path)


@given(NAMES, NAMES, NUMBERS)
def test_every_form_is_read(name: str, alias: str, number: int) -> None:
    assert parse_reference(name) == Reference(name=name, alias="champion")
    assert parse_reference(f"{name}@{alias}") == Reference(name=name, alias=alias)
    assert parse_reference(f"{name}/{number}") == Reference(name=name, version=number)
    assert parse_reference(str(number)) == Reference(version=number)
    assert parse_reference(None) == Reference(alias="champion")
    assert parse_reference("99999999999").name == "99999999999", "no version has so many digits"


@example("~nobody/there")
@example("x" * 5000)
@example("9" * 5000)
@example("a/" + "9" * 5000)
@example("\0")
@example("\ud800")
@example("digits/１")
@example("٣")
@given(st.text())
def test_any_text_is_a_reference_or_a_usage_error(text: str) -> None:
    try:
        found = parse_reference(text)
    except UsageError as error:
        assert error.hint
    else:
        given_ = [found.folder, found.version, found.alias]
        assert sum(part is not None for part in given_) == 1


@pytest.mark.parametrize(
    "text",
    ["", " ", "a b", "a/0", "a/-1", "a/1.0", "a@", "@a", "a@b/1", "a/b", "-a", "a" * 65, "a/1/2"],
)
def test_what_is_no_reference_is_refused_with_the_forms(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_reference(text)

    assert repr(text) in caught.value.message or text in caught.value.message
    assert "NAME@ALIAS" in str(caught.value.hint)


def test_a_path_or_a_folder_with_a_manifest_is_a_bundle(tmp_path: Path) -> None:
    for name in ("digits", "12", "ä b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").touch()
        assert parse_reference(name) == Reference(folder=Path(name))
    (tmp_path / "empty").mkdir()
    assert parse_reference("empty").name == "empty"
    assert parse_reference("./out").folder == Path("out")
    assert parse_reference("../out").folder == Path("../out")
    assert parse_reference(str(tmp_path)).folder == tmp_path
    assert parse_reference("~/out").folder == Path.home() / "out"


def found(settings: Settings, text: str | None) -> str:
    return find(settings, open_reader(settings), text).label


def missed(settings: Settings, text: str | None) -> NotFoundError:
    with pytest.raises(NotFoundError) as caught:
        found(settings, text)
    return caught.value


@pytest.fixture(scope="module")
def two_models_database(new_store: NewStore) -> Path:
    store = new_store()
    for name in ("mnist", "mnist", "mnist", "digits"):
        plain_version(store, name)
    store.client.set_registered_model_alias("mnist", "champion", "2")
    store.client.set_registered_model_alias("mnist", "best", "3")
    return closed(store.root / "mlflow.db")


@pytest.fixture
def two_models(two_models_database: Path, root: Path) -> None:
    shutil.copy(two_models_database, root / "mlflow.db")


# What is configured, what is written, and which version that is.
FOUND = [
    ("", "mnist", "mnist/2"),
    ("", "mnist@champion", "mnist/2"),
    ("", "mnist@best", "mnist/3"),
    ("", "mnist@latest", "mnist/3"),
    ("", "mnist/1", "mnist/1"),
    ("mnist", None, "mnist/2"),
    ("mnist", "1", "mnist/1"),
    ("mnist", "digits/1", "digits/1"),
]
MODELS = ("digits", "mnist")
VERSIONS, ALIASES = ("mnist/3", "mnist/2", "mnist/1"), ("mnist@best", "mnist@champion")
# What is configured and written, what is missed, what there is, and a part of message and hint.
MISSED = [
    ("", None, ("model", None, MODELS), "--set registry.model_name=digits"),
    ("", "1", ("model", None, MODELS), "--set registry.model_name=digits"),
    ("mnits", None, ("model", "mnits", MODELS), "did you mean 'mnist'"),
    ("", "nmist", ("model", "nmist", MODELS), "did you mean 'mnist'"),
    ("", "mnist/9", ("version", "mnist/9", VERSIONS), "registry list"),
    ("", "mnist@bset", ("alias", "mnist@bset", ALIASES), "did you mean 'mnist@best'"),
    ("", "digits", ("alias", "digits@champion", ()), "there are: none"),
    ("", "nobody/1", ("model", "nobody", MODELS), "there are: digits, mnist"),
]


def configured(model_name: str) -> Settings:
    return load_settings(sets=[f"registry.model_name={model_name}"] if model_name else [])


@pytest.mark.usefixtures("two_models")
def test_every_form_of_a_reference_finds_its_version() -> None:
    for model_name, text, expected in FOUND:
        assert found(configured(model_name), text) == expected, text


@pytest.mark.usefixtures("two_models")
def test_what_does_not_exist_is_told_beside_what_does() -> None:
    for model_name, text, expected, words in MISSED:
        error = missed(configured(model_name), text)
        assert (error.kind, error.name, error.known) == expected, text
        assert words in f"{error.message} {error.hint}", text


def test_the_only_model_needs_no_name(store: Store, version: Version, settings: Settings) -> None:
    error = missed(settings, None)
    assert (error.kind, error.name, error.known) == ("model", None, ())
    assert "mindtrace train" in str(error.hint)
    version("mnist"), version("mnist")
    store.client.set_registered_model_alias("mnist", "champion", "1")

    assert found(settings, None) == "mnist/1"
    assert found(settings, "2") == "mnist/2"


def test_a_version_and_a_folder_are_located(
    register: Publish, version: Version, settings: Settings, tmp_path: Path
) -> None:
    published = register()

    located = locate(settings, "digits")

    assert located.digest == published.own_tags["bundle_digest"]
    assert (located.model_name, located.version) == ("digits", 1)
    assert manifest.check(located.folder, located.digest)
    assert locate(settings, str(tmp_path)) == Located(tmp_path, None, None)
    with pytest.raises(NotFoundError) as caught:
        locate(settings, str(tmp_path / "no"))
    assert caught.value.kind == "bundle folder"
    version("theirs")
    with pytest.raises(BundleError, match="not registered by mindtrace"):
        locate(settings, "theirs/1")


def test_a_bundle_elsewhere_is_fetched_once_and_checked(
    register: Publish, store: Store, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As from a server: through MLflow, whose versions say `runs:/...`."""
    published = register()
    monkeypatch.setattr(
        "mindtrace.registry.reference.open_reader", lambda settings: ClientReader(store)
    )
    kept = root / "bundles" / published.own_tags["bundle_digest"]

    located = locate(load_settings(), "digits")

    assert located.folder == kept
    assert manifest.check(kept, published.own_tags["bundle_digest"])
    assert not manifest.orphans(kept)
    (kept / "model.onnx").touch()
    assert locate(load_settings(), "digits").folder == kept
    (kept / "model.onnx").write_bytes(b"damaged: it is fetched again")
    assert locate(load_settings(), "digits").folder == kept
    assert manifest.check(kept, published.own_tags["bundle_digest"])
    assert list((root / "bundles").iterdir()) == [kept]

    shutil.rmtree(kept)
    (artifact,) = root.glob("mlartifacts/*/artifacts/bundle/model.onnx")
    artifact.write_bytes(b"something else")
    with pytest.raises(BundleError, match=r"model\.onnx"):
        locate(load_settings(), "digits")
    assert list((root / "bundles").iterdir()) == []


@pytest.fixture
def numbered(store: Store) -> Store:
    """A model of the name 2024 and one of the name 0007 beside digits; each has a champion."""
    for name in ("2024", "digits", "0007"):
        for _ in range(2):
            plain_version(store, name)
        store.client.set_registered_model_alias(name, "champion", "2")
    return store


def test_a_model_with_a_number_as_its_name(numbered: Store, settings: Settings) -> None:
    for text in ("2024/1", "0007/1"):
        assert found(settings, text) == text
    for text in ("2024", "2024@champion", "0007"):
        assert found(settings, text) == f"{text[:4]}/2"


def test_a_number_that_is_a_version_too_is_not_guessed(numbered: Store) -> None:
    plain_version(numbered, "2")
    settings = load_settings(sets=["registry.model_name=digits"])
    with pytest.raises(UsageError, match="'2' is the name of a model and a version of digits") as e:
        found(settings, "2")
    assert e.value.hint == "write 2@champion or digits/2"
    assert found(settings, "1") == "digits/1"
    assert found(settings, "2024") == "2024/2"
    row = find(settings, open_reader(settings), "2", "0007")
    assert (row.name, row.version) == ("0007", 2), "a version of the model in question"


def test_the_only_model_may_be_called_like_its_version(
    store: Store, version: Version, settings: Settings
) -> None:
    version("1")
    store.client.set_registered_model_alias("1", "champion", "1")
    assert found(settings, None) == found(settings, "1@champion") == found(settings, "1/1") == "1/1"
    with pytest.raises(UsageError, match="'1' is the name of a model and a version of 1"):
        found(settings, "1")
