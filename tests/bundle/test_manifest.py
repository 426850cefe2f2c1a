"""The manifest vouches for every byte of a bundle."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mindtrace.bundle import manifest
from mindtrace.errors import BundleError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.txt").write_bytes(b"alpha")
    (tmp_path / "b.bin").write_bytes(bytes(range(256)))
    return tmp_path


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sealed folder that the examples of the property tests share, and leave as it was."""
    folder = tmp_path_factory.mktemp("lasting")
    (folder / "a.txt").write_bytes(b"alpha")
    (folder / "b.bin").write_bytes(bytes(range(256)))
    manifest.seal(folder)
    return folder


@contextmanager
def holding(path: Path, content: bytes) -> Iterator[None]:
    """The file holds `content` for a while."""
    original = path.read_bytes()
    path.write_bytes(content)
    try:
        yield
    finally:
        path.write_bytes(original)


def damaged(content: bytes, at: int, change: int) -> bytes:
    at %= len(content)
    return content[:at] + bytes([content[at] ^ change]) + content[at + 1 :]


def rewritten(folder: Path, **changes: Any) -> Path:
    path = folder / manifest.MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return folder


def test_a_sealed_folder_gives_back_its_bytes(folder: Path) -> None:
    digest = manifest.seal(folder)

    contents = manifest.check(folder, digest)

    assert contents["a.txt"] == b"alpha"
    assert set(contents) == {"a.txt", "b.bin", "manifest.json"}


def test_the_digest_is_that_of_the_manifest_and_depends_on_the_content_alone(
    folder: Path, lasting: Path
) -> None:
    digest = manifest.seal(folder)

    assert digest == hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
    assert digest == manifest.seal(lasting) == manifest.seal(folder)


def test_one_file_is_checked_without_a_look_at_the_others(folder: Path) -> None:
    digest = manifest.seal(folder)
    (folder / "b.bin").unlink()
    assert manifest.check_one(folder, "a.txt", digest) == b"alpha"

    (folder / "a.txt").write_bytes(b"alphA")
    for name, expected, reason in (
        ("a.txt", digest, "a.txt has digest"),
        ("c.txt", digest, "does not name c.txt"),
        ("b.bin", "0" * 64, "the registry says"),
    ):
        with pytest.raises(BundleError, match=reason):
            manifest.check_one(folder, name, expected)


@given(
    st.sampled_from(["a.txt", "b.bin"]),
    st.integers(0, 255),
    st.integers(1, 255),
)
def test_a_changed_byte_is_found_and_its_file_named(
    lasting: Path, name: str, at: int, change: int
) -> None:
    content = damaged((lasting / name).read_bytes(), at, change)
    with holding(lasting / name, content), pytest.raises(BundleError) as caught:
        manifest.check(lasting)
    assert name in caught.value.reason


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_changed_byte_of_the_manifest_is_found_by_whoever_knows_its_digest(
    lasting: Path, at: int, change: int
) -> None:
    path = lasting / manifest.MANIFEST
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    content = damaged(path.read_bytes(), at, change)
    with holding(path, content), pytest.raises(BundleError):
        manifest.check(lasting, digest)


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
    text = json.dumps(said).encode()
    with holding(lasting / manifest.MANIFEST, text), pytest.raises(BundleError) as caught:
        manifest.check(lasting)
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    "name", ["../a.txt", "/etc/passwd", "sub/a.txt", "..", ".", "", "a.txt/", "a\0b"]
)
def test_a_path_in_the_manifest_is_refused_before_it_is_read(folder: Path, name: str) -> None:
    manifest.seal(folder)
    entry = {"size": 5, "sha256": hashlib.sha256(b"alpha").hexdigest()}
    (folder.parent / "a.txt").write_bytes(b"alpha")

    with pytest.raises(BundleError) as caught:
        manifest.check(rewritten(folder, files={name: entry}))

    assert "no plain file name" in caught.value.reason


def test_a_shorter_file_and_a_missing_one_are_told_apart(folder: Path) -> None:
    manifest.seal(folder)
    (folder / "b.bin").write_bytes(bytes(range(100)))
    with pytest.raises(BundleError) as caught:
        manifest.check(folder)
    assert caught.value.reason == "b.bin has 100 bytes, expected 256"

    (folder / "b.bin").unlink()
    with pytest.raises(BundleError) as caught:
        manifest.check(folder)
    assert caught.value.reason == "b.bin is missing"


def test_two_files_that_changed_places_are_found(folder: Path) -> None:
    (folder / "c.txt").write_bytes(b"gamma")
    manifest.seal(folder)
    (folder / "a.txt").rename(folder / "x")
    (folder / "c.txt").rename(folder / "a.txt")
    (folder / "x").rename(folder / "c.txt")

    with pytest.raises(BundleError) as caught:
        manifest.check(folder)
    assert caught.value.reason.startswith("a.txt has digest")


def test_a_newer_manifest_says_to_upgrade(folder: Path) -> None:
    manifest.seal(folder)

    with pytest.raises(BundleError) as caught:
        manifest.check(rewritten(folder, format_version=2))

    assert "format 2" in caught.value.reason
    assert caught.value.hint == "upgrade mindtrace"


def test_a_folder_in_the_place_of_a_file_cannot_be_read(folder: Path) -> None:
    manifest.seal(folder)
    (folder / "a.txt").unlink()
    (folder / "a.txt").mkdir()

    with pytest.raises(BundleError) as caught:
        manifest.check(folder)
    assert "a.txt cannot be read" in caught.value.reason


def test_another_bundle_is_not_what_was_registered(folder: Path) -> None:
    digest = manifest.seal(folder)
    (folder / "a.txt").write_bytes(b"other")
    manifest.seal(folder)

    with pytest.raises(BundleError) as caught:
        manifest.check(folder, digest)
    assert digest[:12] in caught.value.reason


def test_orphans_are_what_the_manifest_does_not_know(folder: Path) -> None:
    manifest.seal(folder)
    (folder / "z.tmp").touch()
    (folder / "registered_model_meta").touch()

    assert manifest.orphans(folder) == ["z.tmp"]
    assert manifest.check(folder)


def test_a_folder_without_a_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError) as caught:
        manifest.check(tmp_path)
    assert caught.value.reason == "manifest.json is missing"
