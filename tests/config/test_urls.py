"""URLs: passwords masked, texts for one line, the local files behind them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from mindtrace.config.urls import file_path, masked, shown, sqlite_path

NAMES = st.text(
    st.characters(blacklist_categories=["Cs"], blacklist_characters="/\0"), min_size=1
).filter(lambda name: name not in (".", ".."))


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:////a/ü b.db", Path("/a/ü b.db")),
        ("sqlite+aiosqlite:///a.db", None),
        ("/a/b.db", None),
    ],
)
def test_a_sqlite_url_is_the_file_behind_it(url: str, path: Path | None) -> None:
    assert sqlite_path(url) == path


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("/a/b c", Path("/a/b c")),
        ("a/b", Path("a/b")),
        ("file:///a/b%20c", Path("/a/b c")),
        ("file:/a/b", Path("/a/b")),
        ("file://localhost/a/b", Path("/a/b")),
        ("file:///100%25%20%C3%BC", Path("/100% ü")),
        ("/100%25", Path("/100%25")),
        ("s3://bucket/key", None),
        ("models:/digits/1", None),
        ("mlflow-artifacts:/1/abc/artifacts", None),
    ],
)
def test_a_place_of_artifacts_is_local_only_if_it_is(uri: str, path: Path | None) -> None:
    assert file_path(uri) == path


@given(st.lists(NAMES, min_size=1, max_size=3).map(lambda names: Path("/", *names)))
def test_pathlibs_own_uris_are_read_back(path: Path) -> None:
    assert file_path(path.as_uri()) == path


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("postgresql://me:hush@host:5432/db", "postgresql://me:***@host:5432/db"),
        ("postgresql+psycopg2://me:hush@/db", "postgresql+psycopg2://me:***@/db"),
        ("postgresql://me:hu/sh@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me:hu@sh@host/db", "postgresql://me:***@host/db"),
        ("https://me:hush@host/a@b", "https://me:***@host/a@b"),
        ("HTTPS://:hush@host", "HTTPS://:***@host"),
        ("http://host:80/a@b", "http://host:80/a@b"),
        ("http://me@host", "http://me@host"),
        ("sqlite:////a:b/c@d.db", "sqlite:////a:b/c@d.db"),
        ("http://h/x?a=1&Password=hush&b=2", "http://h/x?a=1&Password=***&b=2"),
        ("http://h/x?access_token=hush#y", "http://h/x?access_token=***"),
        ("see http://a:hush@b/c\nhttps://d:hush@e", "see http://a:***@b/c\nhttps://d:***@e"),
        ("http://a:hush@b,https://c:hush@d", "http://a:***@b,https://c:***@d"),
        ("me:pw@host is no URL", "me:pw@host is no URL"),
        ("", ""),
    ],
)
def test_only_the_password_is_hidden(text: str, safe: str) -> None:
    assert masked(text) == masked(safe) == safe


WORD = st.text("abc:/?#@&=%", max_size=8)


@given(
    st.sampled_from(["postgresql", "mysql+x", "https", "http"]), st.text("xyz", max_size=4), WORD
)
def test_a_password_never_survives(scheme: str, user: str, tail: str) -> None:
    assert "HUSH" not in masked(f"see {scheme}://{user}:HUSH@host{tail} there")


@pytest.mark.parametrize("piece", ["a://b:", "?", "@ a://b:c", "http://a:b@", "&key", "://"])
def test_long_texts_take_no_time(piece: str) -> None:
    assert masked(piece * 100_000)


def test_a_line_is_one_line() -> None:
    assert shown("a\nb\tc\x1b[0m\u2028é") == "a\\nb\\tc\\x1b[0m\\u2028é"
    assert shown("x" * 100) == "x" * 77 + "..."
    assert shown("\udc80") == "\\udc80"
    assert shown("x" * 50_000_000) == "x" * 77 + "..."
    assert "hush" not in shown(f"https://me:{'hush' * 100}@host")
