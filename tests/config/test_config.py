"""Config: what code written against the starter library relies on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mindtrace import Config
from mindtrace.errors import ConfigError


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's home folder."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    return folder


@pytest.fixture
def ini(tmp_path: Path) -> Path:
    """A user's INI."""
    path = tmp_path / "user.ini"
    path.write_text(
        "[DIR_PATHS]\nDATA = /elsewhere\n"
        "[Mine]\nTheKey = value\nBoth = ${TheKey} and ${DIR_PATHS:ROOT}\nPrice = 5 $$\n"
    )
    return path


def test_the_packaged_paths(home: Path) -> None:
    assert Config()["DIR_PATHS"]["ROOT"] == f"{home}/.cache/mindtrace"
    assert Config().as_dict() == {
        "DIR_PATHS": {
            "ROOT": f"{home}/.cache/mindtrace",
            "DATA": f"{home}/.cache/mindtrace/data",
            "CHECKPOINTS": f"{home}/.cache/mindtrace/checkpoints",
        }
    }


@pytest.mark.parametrize("kind", [str, Path])
def test_a_users_file_comes_before_the_packaged_one(home: Path, ini: Path, kind: type) -> None:
    config = Config(config_path=kind(ini))
    assert config["DIR_PATHS"]["DATA"] == "/elsewhere"
    assert config["DIR_PATHS"]["ROOT"] == f"{home}/.cache/mindtrace"
    assert dict(config["Mine"]) == {
        "TheKey": "value",
        "Both": f"value and {home}/.cache/mindtrace",
        "Price": "5 $",
    }


def test_the_variable_names_a_file_and_the_argument_comes_before_it(
    ini: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other.ini"
    other.write_text("[Mine]\nTheKey = other\n")
    monkeypatch.setenv("MindtraceConfig", str(ini))
    assert Config()["Mine"]["TheKey"] == "value"
    assert Config(other)["Mine"]["TheKey"] == "other"


def test_the_environment_comes_before_every_file(
    ini: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = Config(ini)
    monkeypatch.setenv("MINE__THEKEY", "${not} touched")
    monkeypatch.setenv("DIR_PATHS__ROOT", "/r")
    assert config["Mine"]["TheKey"] == "${not} touched"
    assert config["Mine"]["Both"] == "${not} touched and /r"
    assert Config()["DIR_PATHS"]["CHECKPOINTS"] == "/r/checkpoints"


def test_the_environment_adds_no_keys(ini: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINE__NEW", "1")
    monkeypatch.setenv("NEW__KEY", "1")
    monkeypatch.setenv("mine__thekey", "lower case is not ours")
    config = Config(ini)
    assert "NEW" not in config["Mine"]
    assert "NEW" not in config
    assert config["Mine"]["TheKey"] == "value"


def test_a_leading_tilde_is_the_home_folder(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.ini").write_text("[a]\npath = ~/x\nodd = ~nobody-of-that-name\nin = a~b\n")
    monkeypatch.setenv("DIR_PATHS__ROOT", "~/r")
    config = Config(tmp_path / "a.ini")
    assert config["a"]["path"] == f"{home}/x"
    assert config["DIR_PATHS"]["DATA"] == f"{home}/r/data"
    assert (config["a"]["odd"], config["a"]["in"]) == ("~nobody-of-that-name", "a~b")


def test_sections_and_keys_can_be_walked(ini: Path) -> None:
    config = Config(ini)
    assert [*config] == config.keys() == ["DIR_PATHS", "Mine"]
    assert (len(config), len(config["Mine"])) == (2, 3)
    assert "Mine" in config
    assert "mine" not in config
    assert [name for name, _ in config.items()] == ["DIR_PATHS", "Mine"]
    assert config["Mine"].items()[0] == ("TheKey", "value")
    assert "TheKey" in config["Mine"]
    assert "thekey" not in config["Mine"]


def test_get_gives_a_default_for_what_is_missing(ini: Path) -> None:
    config = Config(ini)
    assert config.get("Nothing") is None
    mine = config.get("Mine")
    assert mine is not None
    assert mine.get("TheKey") == "value"
    assert mine.get("nothing", "else") == "else"


def test_what_is_missing_is_named(ini: Path) -> None:
    with pytest.raises(KeyError, match="no section 'Nothing'; there are: DIR_PATHS, Mine"):
        Config(ini)["Nothing"]
    with pytest.raises(KeyError, match=r"no key 'data' in \[DIR_PATHS\]; there are: ROOT, DATA"):
        Config(ini)["DIR_PATHS"]["data"]


def test_an_empty_section_is_kept(tmp_path: Path) -> None:
    (tmp_path / "a.ini").write_text("[empty]\n")
    config = Config(tmp_path / "a.ini")
    assert "empty" in config
    assert config.as_dict()["empty"] == {}


def test_text_is_json_of_everything(ini: Path) -> None:
    config = Config(ini)
    assert json.loads(str(config)) == config.as_dict()


def test_passwords_are_not_shown(tmp_path: Path) -> None:
    (tmp_path / "a.ini").write_text("[a]\nurl = postgresql://me:hush@host/db\n")
    config = Config(tmp_path / "a.ini")
    assert config["a"]["url"] == "postgresql://me:hush@host/db"
    for text in (str(config), repr(config), repr(config["a"])):
        assert "hush" not in text


def test_a_file_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.ini"):
        Config(tmp_path / "none.ini")
    monkeypatch.setenv("MindtraceConfig", str(tmp_path / "other.ini"))
    with pytest.raises(FileNotFoundError, match=r"other\.ini"):
        Config()


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("[a]\nk", 2, "not a line"),
        ("[a]\nk = 1\nk = 2", 3, "twice"),
        ("[a]\nk = ${b:c}", 2, "no section [b]"),
        ("[a]\nk = ${l}\nl = ${k}", 3, "refers to itself"),
        ("[a]\nk = 5 $", 2, "$$"),
    ],
)
def test_a_broken_file_is_told_with_its_line(
    tmp_path: Path, text: str, line: int, words: str
) -> None:
    path = tmp_path / "a.ini"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        Config(path)
    (fault,) = caught.value.faults
    assert (fault.file, fault.line) == (str(path), line)
    assert words in fault.message
