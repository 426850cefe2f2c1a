"""Reading INI text: the dialect, lines, every fault at once."""

from __future__ import annotations

import configparser
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from mindtrace.config.ini import Layer, read_ini, read_ini_file


def texts(layer: Layer) -> dict[str, dict[str, str]]:
    sections: dict[str, dict[str, str]] = {name: {} for name in layer.sections}
    for (section, key), entry in layer.entries.items():
        sections[section][key] = entry.text
    return sections


def read(text: str) -> Layer:
    return read_ini(text, "a.ini", Path("/here"))


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("[a]\nK = v", {"K": "v"}),
        ("[a]\nk=v=w:x", {"k": "v=w:x"}),
        ("[a]\nk =", {"k": ""}),
        ("[a]\nk = v ; no comment", {"k": "v ; no comment"}),
        ("[a]\nk = one\n   two\n\tthree\nl = w", {"k": "one\ntwo\nthree", "l": "w"}),
        ("[a] # comment\r\nk = v\r\nl = w\r\n", {"k": "v", "l": "w"}),
        ("[a]\nk = größe ✓", {"k": "größe ✓"}),
    ],
)
def test_the_dialect(text: str, values: dict[str, str]) -> None:
    assert (texts(read(text)), read(text).faults) == ({"a": values}, [])


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("k = v", 1, "k: stands before any [section]"),
        ("[a]\nwords", 2, "words: not a line of an INI, write key = value or # comment"),
        ("[a]\n= v", 2, "= v: not a line of an INI"),
        ("[a\nk = v", 1, "[a: a section is written [name]"),
        ("[]", 1, "[]: a section is written [name]"),
        ("[a] b", 1, "[a] b: a section is written [name]"),
        ("[a]\nk = 1\nk = 2", 3, "[a] k: given twice, first in line 2; keep one"),
        # a pattern for the whole line would take quadratic time
        (f"[a]\nx{' ' * 1_000_000}y", 2, "not a line of an INI"),
    ],
    ids=range(8),
)
def test_a_broken_line_is_one_fault_with_its_line(text: str, line: int, words: str) -> None:
    (fault,) = read(text).faults
    assert (fault.file, fault.line) == ("a.ini", line)
    assert words in fault.message


def test_reading_goes_on_behind_a_fault() -> None:
    layer = read("x = 1\n[a]\nnonsense\nk = v\n[b\nhidden = 1\n[c]\nk = 1\n 2\nk = 3\n 4\nl = 5")
    assert [fault.line for fault in layer.faults] == [1, 3, 5, 10]
    assert texts(layer) == {"a": {"k": "v"}, "c": {"k": "1\n2", "l": "5"}}


LINES = st.lists(
    st.one_of(
        st.sampled_from(["[a]", "[b c]", "", "   ", "# note", "  ; note", "  more", "\tmore = x"]),
        st.builds(
            "{}{}{}{}".format,
            st.sampled_from(["", "  ", "    "]),
            st.sampled_from(["k", "Key", "two words"]),
            st.sampled_from(["=", " = ", ":", "  :  "]),
            st.text("ab =:#;$[]é", max_size=6),
        ),
    ),
    max_size=12,
)


@given(LINES)
def test_the_standard_library_reads_the_same(lines: list[str]) -> None:
    text = "\n".join(lines)
    standard = configparser.RawConfigParser(default_section="\0", interpolation=None, strict=False)
    standard.optionxform = str  # type: ignore[assignment, method-assign]
    layer = read(text)
    try:
        standard.read_string(text)
    except configparser.Error:
        assert layer.faults
    else:
        expected = {name: dict(standard.items(name)) for name in standard.sections()}
        twice = [fault for fault in layer.faults if "given twice" in fault.message]
        assert twice == layer.faults
        assert twice or texts(layer) == expected


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_file_is_utf8_with_or_without_a_mark(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.ini").write_text("[a]\nk = ü\n", encoding=encoding)
    layer = read_ini_file(Path("a.ini"), tmp_path)
    assert texts(layer) == {"a": {"k": "ü"}}
    assert layer.entries["a", "k"].origin.base == tmp_path


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"[a]\nk = \xff\n", "a.ini:2: not UTF-8 text"),
        (None, "a.ini: cannot be read: Is a directory"),
    ],
)
def test_a_file_that_is_no_text(tmp_path: Path, content: bytes | None, words: str) -> None:
    file = tmp_path / "a.ini"
    file.mkdir() if content is None else file.write_bytes(content)
    (fault,) = read_ini_file(Path("a.ini"), tmp_path).faults
    assert str(fault).startswith(words)
    (tmp_path / "file").touch()
    (fault,) = read_ini_file(Path("file/a.ini"), tmp_path).faults
    assert str(fault) == "file/a.ini: cannot be read: Not a directory"
