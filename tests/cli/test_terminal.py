"""What a person sees: the command on a real pseudo-terminal of 80 columns."""

from __future__ import annotations

import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Mapping
from fcntl import ioctl
from pathlib import Path

import pytest
from PIL import Image

Terminal = Callable[..., str]

_STYLES = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture
def terminal() -> Terminal:
    """`terminal("config", "show")`: all that appears on a terminal."""

    def run(*args: str, env: Mapping[str, str] | None = None) -> str:
        ours, theirs = pty.openpty()
        ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        process = subprocess.Popen(
            [sys.executable, "-m", "mindtrace", *args],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, "TERM": "xterm-256color", **(env or {})},
        )
        os.close(theirs)
        text = _all_of(ours)
        process.wait(timeout=60)
        return text

    return run


def _all_of(descriptor: int) -> str:
    parts = []
    try:
        while part := os.read(descriptor, 65536):
            parts.append(part)
    except OSError:  # Linux says so when the other end is closed
        pass
    finally:
        os.close(descriptor)
    return b"".join(parts).decode().replace("\r\n", "\n")


def test_help_is_drawn_in_colour_and_fits(terminal: Terminal) -> None:
    text = terminal("train", "--help")
    assert _STYLES.search(text)
    lines = _STYLES.sub("", text).splitlines()
    assert any("Common options" in line for line in lines)
    assert max(len(line) for line in lines) <= 80
    assert "(data.batch_size)" in text and re.search(r"\[default: 64\]", text)
    assert "mindtrace train --source digits --max-epochs 3" in map(str.strip, lines)
    assert "[registry] margin" in _STYLES.sub("", terminal("registry", "promote", "--help"))


def test_no_color_is_honoured(terminal: Terminal, root: Path) -> None:
    for args in (("config", "show"), ("--help",), ("registry", "show", "nobody/1")):
        text = terminal(*args, env={"NO_COLOR": "1"})
        coloured = [style for style in _STYLES.findall(text) if re.search(r"[34]\d", style)]
        assert coloured == [], args


def test_an_error_is_in_colour_and_a_table_without_tabs(terminal: Terminal, root: Path) -> None:
    text = terminal("config", "check", "nowhere.ini")
    assert _STYLES.search(text)
    assert _STYLES.sub("", text).startswith("error: ")
    text = _STYLES.sub("", terminal("config", "show"))
    assert "\t" not in text
    assert re.search(r"train +batch_size|data +batch_size +64", text)
    assert max(len(line) for line in text.splitlines()) <= 80


def test_a_dumb_terminal_gets_plain_lines(terminal: Terminal, root: Path) -> None:
    text = terminal("config", "show", env={"TERM": "dumb"})
    assert "\x1b" not in text
    assert "data\tbatch_size\t64" in text


@pytest.mark.slow
def test_many_images_have_a_bar_and_a_table(
    terminal: Terminal, trained: Path, tmp_path: Path
) -> None:
    for number in range(120):
        Image.new("L", (8, 8), 2 * number).save(tmp_path / f"{number:03}.png")
    text = _STYLES.sub(
        "", terminal("predict", str(tmp_path), env={"DIR_PATHS__ROOT": str(trained)})
    )
    assert "predicting" in text
    assert "by digits/1" in text
    assert re.search(r"class_name +confidence *\n", text)
    by_class = text.partition("mean_confidence")[2]
    counts = re.findall(r"^ *\d +(\d+) +[01]\.\d{4} *$", by_class, re.MULTILINE)
    assert sum(map(int, counts)) == 120
    assert len(re.findall(r"\d{3}\.png|\.png", text)) >= 120


@pytest.mark.proof
@pytest.mark.slow
def test_a_training_has_a_bar_and_a_line_an_epoch(terminal: Terminal, root: Path) -> None:
    text = _STYLES.sub("", terminal("train", "--source", "digits", "--max-epochs", "2"))
    assert "━" in text  # the bar
    assert re.search(r"epoch 2/2  .*val_acc 0\.\d{4}  .* s", text, re.MULTILINE)
    assert re.search(r"^weights_digest +[0-9a-f]{12} *$", text, re.MULTILINE)
    assert text.rstrip().endswith("next: mindtrace predict IMAGE --model digits/1")
