"""What a user may write where a version is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mindtrace.errors import MindtraceError, UsageError
from mindtrace.registry.reference import Reference, parse_reference

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True).filter(
    lambda name: not name.isdigit()
)
NUMBERS = st.integers(1, 9_999_999_999)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder where no name is a bundle."""
    monkeypatch.chdir(tmp_path)


@given(NAMES)
def test_a_name_is_its_champion(name: str) -> None:
    assert parse_reference(name) == Reference(name=name, alias="champion")


@given(NAMES, NAMES)
def test_a_name_and_an_alias(name: str, alias: str) -> None:
    assert parse_reference(f"{name}@{alias}") == Reference(name=name, alias=alias)


@given(NAMES, NUMBERS)
def test_a_name_and_a_version(name: str, number: int) -> None:
    assert parse_reference(f"{name}/{number}") == Reference(name=name, version=number)


@given(NUMBERS)
def test_a_bare_number_is_a_version_of_the_model_in_question(number: int) -> None:
    assert parse_reference(str(number)) == Reference(version=number)


def test_nothing_is_the_champion_of_the_model_in_question() -> None:
    assert parse_reference(None) == Reference(alias="champion")


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


def test_a_number_that_no_version_will_reach_never_crashes() -> None:
    for text in ("99999999999", "1" * 64):
        assert parse_reference(text).name == text
    with pytest.raises(MindtraceError):
        parse_reference("1" * 65)


def test_a_folder_with_a_manifest_is_a_bundle_whatever_its_name(tmp_path: Path) -> None:
    for name in ("digits", "12", "ä b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").touch()
        assert parse_reference(name) == Reference(folder=Path(name))
    (tmp_path / "empty").mkdir()
    assert parse_reference("empty").name == "empty"


def test_a_path_is_a_folder_even_if_nothing_is_there(tmp_path: Path) -> None:
    assert parse_reference("./out").folder == Path("out")
    assert parse_reference("../out").folder == Path("../out")
    assert parse_reference(str(tmp_path)).folder == tmp_path
    assert parse_reference("~/out").folder == Path.home() / "out"
