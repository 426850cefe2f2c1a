"""Which local file a URL means, if any."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindtrace.config.urls import file_path, sqlite_path

NAMES = st.text(
    st.characters(blacklist_categories=["Cs"], blacklist_characters="/\0"), min_size=1
).filter(lambda name: name not in (".", ".."))


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///a/b.db", Path("a/b.db")),
        ("sqlite:////a/ü b.db", Path("/a/ü b.db")),
        ("sqlite+aiosqlite:///a.db", None),
        ("postgresql://u:p@h/db", None),
        ("http://localhost:5000", None),
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
        ("http://host/x", None),
        ("runs:/abc/bundle", None),
        ("models:/digits/1", None),
        ("mlflow-artifacts:/1/abc/artifacts", None),
        ("dbfs:/mnt/x", None),
    ],
)
def test_a_place_of_artifacts_is_local_only_if_it_is(uri: str, path: Path | None) -> None:
    assert file_path(uri) == path


@given(st.lists(NAMES, min_size=1, max_size=3))
def test_pathlibs_own_uris_are_read_back(names: list[str]) -> None:
    path = Path("/", *names)

    assert file_path(path.as_uri()) == path
