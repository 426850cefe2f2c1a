"""The manifest vouches for every byte of a bundle."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, strategies as st

from mindtrace.bundle import manifest
from mindtrace.errors import BundleError

ALPHA = {"size": 5, "sha256": hashlib.sha256(b"alpha").hexdigest()}


def sealed(folder: Path) -> Path:
    (folder / "a.txt").write_bytes(b"alpha")
    (folder / "b.bin").write_bytes(bytes(range(256)))
    manifest.seal(folder)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return sealed(tmp_path)


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sealed folder that the examples of the property tests share, and leave as it was."""
    return sealed(tmp_path_factory.mktemp("lasting"))


@contextmanager
def holding(path: Path, content: bytes) -> Iterator[None]:
    """The file holds `content` for a while."""
    original = path.read_bytes()
    path.write_bytes(content)
    try:
        yield
    finally:
        path.write_bytes(original)


def refused(folder: Path, digest: str | None = None) -> BundleError:
    with pytest.raises(BundleError) as caught:
        manifest.check(folder, digest)
    assert "\n" not in caught.value.message
    return caught.value


def rewritten(folder: Path, **changes: Any) -> Path:
    path = folder / manifest.MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return folder


def test_a_sealed_folder_gives_back_its_bytes(folder: Path, lasting: Path) -> None:
    digest = hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
    contents = manifest.check(folder, digest)
    assert contents["a.txt"] == b"alpha"
    assert set(contents) == {"a.txt", "b.bin", "manifest.json"}
    assert digest == manifest.seal(folder) == manifest.seal(lasting), "of the content alone"


def test_one_file_is_checked_without_the_others(folder: Path) -> None:
    digest = manifest.seal(folder)
    (folder / "b.bin").unlink()
    assert manifest.check_one(folder, "a.txt", digest) == b"alpha"
    (folder / "a.txt").write_bytes(b"alphA")
    for name, expected, reason in (
        ("a.txt", digest, "a.txt has digest"),
        ("c.txt", digest, "c.txt is not in the manifest"),
        ("b.bin", "0" * 64, "the registry says"),
    ):
        with pytest.raises(BundleError, match=reason):
            manifest.check_one(folder, name, expected)


def test_a_file_that_is_needed_is_named(folder: Path) -> None:
    with pytest.raises(BundleError, match=r"c\.txt is not in the manifest"):
        manifest.check(folder, needed=["a.txt", "c.txt"])


@given(
    st.sampled_from(["a.txt", "b.bin", manifest.MANIFEST]),
    st.integers(0, 10_000),
    st.integers(1, 255),
)
def test_a_changed_byte_is_found_and_its_file_named(
    lasting: Path, name: str, at: int, change: int
) -> None:
    """That of the manifest itself by whoever knows its digest."""
    whole = (lasting / name).read_bytes()
    digest = hashlib.sha256((lasting / manifest.MANIFEST).read_bytes()).hexdigest()
    content = bytearray(whole)
    content[at % len(whole)] ^= change
    with holding(lasting / name, bytes(content)):
        assert name in refused(lasting, digest).reason


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=4,
)
ENTRY = st.fixed_dictionaries({"size": ANY_JSON, "sha256": ANY_JSON})


@example({"format_version": 1, "files": {"a.txt": {"size": float("inf"), "sha256": ""}}})
@example({"format_version": 1, "files": {"a.txt": {"size": 5, "sha256": None}}})
@example({"format_version": 1, "files": {"a\0": {"size": 5, "sha256": ""}}})
@example({"format_version": 1, "files": {"\ud800": {"size": 5, "sha256": ""}}})
@given(
    ANY_JSON
    | st.fixed_dictionaries(
        {"format_version": st.just(1), "files": st.dictionaries(st.text(), ENTRY, min_size=1)}
    )
)
def test_whatever_a_manifest_says_the_answer_is_a_bundle_error(lasting: Path, said: Any) -> None:
    with holding(lasting / manifest.MANIFEST, json.dumps(said).encode()):
        refused(lasting)


@pytest.mark.parametrize(
    "name", ["../a.txt", "/etc/passwd", "sub/a.txt", "..", ".", "", "a.txt/", "a\0b"]
)
def test_a_path_in_the_manifest_is_refused_before_it_is_read(folder: Path, name: str) -> None:
    (folder.parent / "a.txt").write_bytes(b"alpha")
    assert "no plain file name" in refused(rewritten(folder, files={name: ALPHA})).reason


def test_a_file_that_is_shorter_missing_or_a_folder(folder: Path) -> None:
    file = folder / "b.bin"
    file.write_bytes(bytes(range(100)))
    assert refused(folder).reason == "b.bin has 100 bytes, expected 256"
    file.unlink()
    assert refused(folder).reason == "b.bin is missing"
    file.mkdir()
    assert "b.bin cannot be read" in refused(folder).reason


def test_a_newer_manifest_says_to_upgrade(folder: Path) -> None:
    error = refused(rewritten(folder, format_version=2))
    assert "format 2" in error.reason
    assert error.hint == "upgrade mindtrace"
