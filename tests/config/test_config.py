"""Config: what code written against the starter library relies on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mindtrace import Config
from mindtrace.errors import ConfigError

PASSWORD = "postgresql://me:hush@host/db"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def ini(tmp_path: Path) -> Path:
    path = tmp_path / "user.ini"
    path.write_text(
        "[DIR_PATHS]\nDATA = /elsewhere\n[Mine]\nTheKey = value\nPrice = 5 $$\n"
        f"Both = ${{TheKey}} and ${{DIR_PATHS:ROOT}}\nurl = {PASSWORD}\n[empty]\n"
        "[tilde]\npath = ~/x\nodd = ~nobody-of-that-name\nin = a~b\n"
    )
    return path


@pytest.mark.parametrize("kind", [str, Path])
def test_a_users_file_comes_before_the_packaged_one(home: Path, ini: Path, kind: type) -> None:
    root = f"{home}/.cache/mindtrace"
    packaged = {"ROOT": root, "DATA": f"{root}/data", "CHECKPOINTS": f"{root}/checkpoints"}
    assert Config().as_dict() == {"DIR_PATHS": packaged}

    config = Config(config_path=kind(ini))

    assert config.as_dict() == {
        "DIR_PATHS": {**packaged, "DATA": "/elsewhere"},
        "Mine": {"TheKey": "value", "Price": "5 $", "Both": f"value and {root}", "url": PASSWORD},
        "empty": {},
        "tilde": {"path": f"{home}/x", "odd": "~nobody-of-that-name", "in": "a~b"},
    }
    assert json.loads(str(config)) == json.loads(
        json.dumps(config.as_dict()).replace("hush", "***")
    )
    assert "hush" not in repr(config) + repr(config["Mine"])


def test_the_variable_names_a_file_and_the_argument_comes_before_it(
    ini: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other.ini").write_text("[Mine]\nTheKey = other\n")
    monkeypatch.setenv("MindtraceConfig", str(ini))
    assert Config()["Mine"]["TheKey"] == "value"
    assert Config(tmp_path / "other.ini")["Mine"]["TheKey"] == "other"
    with pytest.raises(FileNotFoundError, match=r"none\.ini"):
        Config(tmp_path / "none.ini")
    monkeypatch.setenv("MindtraceConfig", str(tmp_path / "missing.ini"))
    with pytest.raises(FileNotFoundError, match=r"missing\.ini"):
        Config()


def test_the_environment_comes_before_every_file_and_adds_no_keys(
    home: Path, ini: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MINE__NEW", "NEW__KEY", "mine__thekey"):
        monkeypatch.setenv(name, "not ours")
    config = Config(ini)
    assert "NEW" not in config["Mine"]
    assert "NEW" not in config
    assert config["Mine"]["TheKey"] == "value"
    monkeypatch.setenv("MINE__THEKEY", "${not} touched")
    monkeypatch.setenv("DIR_PATHS__ROOT", "~/r")
    config = Config(ini)
    assert config["Mine"]["TheKey"] == "${not} touched"
    assert config["Mine"]["Both"] == f"${{not}} touched and {home}/r"
    assert Config()["DIR_PATHS"]["CHECKPOINTS"] == f"{home}/r/checkpoints"


def test_sections_and_keys_are_mappings_that_keep_their_case(ini: Path) -> None:
    config = Config(ini)
    mine = config["Mine"]
    assert [*config] == config.keys() == ["DIR_PATHS", "Mine", "empty", "tilde"]
    assert [name for name, _ in config.items()] == config.keys()
    assert (len(config), len(mine), mine.items()[0]) == (4, 4, ("TheKey", "value"))
    assert ("Mine" in config, "mine" in config) == (True, False)
    assert ("TheKey" in mine, "thekey" in mine) == (True, False)
    assert (config.get("Nothing"), mine.get("TheKey"), mine.get("no", "else")) == (
        *(None, "value", "else"),
    )
    with pytest.raises(KeyError, match="no section 'Nothing'; there are: DIR_PATHS, Mine"):
        config["Nothing"]
    with pytest.raises(KeyError, match=r"no key 'data' in \[DIR_PATHS\]; there are: ROOT, DATA"):
        config["DIR_PATHS"]["data"]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("[a]\nk = 1\nk = 2", 3, "twice"),
        ("[a]\nk = ${l}\nl = ${k}", 3, "which refers to it"),
    ],
)
def test_a_broken_file_is_reported_with_its_line(
    tmp_path: Path, text: str, line: int, words: str
) -> None:
    (tmp_path / "a.ini").write_text(text)
    with pytest.raises(ConfigError) as caught:
        Config(tmp_path / "a.ini")
    (fault,) = caught.value.faults
    assert (fault.file, fault.line) == (str(tmp_path / "a.ini"), line)
    assert words in fault.message
