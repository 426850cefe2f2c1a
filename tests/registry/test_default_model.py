"""Several models, none named: readers take the one trained last and say so, writers ask."""

from __future__ import annotations

import io
import json
import shlex
from pathlib import Path

import pytest
from PIL import Image
from tests.conftest import Mindtrace, RunCli
from tests.registry.conftest import Publish, Version

from mindtrace.config.settings import load_settings
from mindtrace.errors import ConflictError, NotFoundError, UsageError
from mindtrace.registry.maintenance import delete, set_alias
from mindtrace.registry.reader import open_reader
from mindtrace.service.registry import count_versions, write_report

LATEST = "no model is named: later, which was trained last; there are also: digits\n"


@pytest.fixture
def two(register: Publish) -> None:
    register("digits")
    register("later")


@pytest.mark.parametrize(
    "words",
    [
        "registry history",
        "registry verify",
        "registry show 1",
        "registry export 1 {tmp}/out",
        "predict -",
    ],
)
def test_a_reading_command_takes_the_model_trained_last(
    two: None, run_cli: RunCli, tmp_path: Path, words: str
) -> None:
    image = io.BytesIO()
    Image.new("L", (8, 8)).save(image, "PNG")
    result = run_cli(*words.format(tmp=tmp_path).split(), input=image.getvalue())

    assert (result.exit_code, result.stderr.splitlines(True)[0]) == (0, LATEST), result.output
    assert "digits" not in result.stdout
    for named in (["--set", "registry.model_name=digits"], ["-q"]):
        if words != "registry export 1 {tmp}/out":
            assert "no model is named" not in run_cli(*words.split(), *named).stderr


@pytest.mark.parametrize("words", ["registry rollback", "registry promote 1", "serve --port 0"])
def test_a_writing_command_wants_a_name_and_gives_a_line_to_paste(
    two: None, mindtrace: Mindtrace, words: str
) -> None:
    refused = mindtrace(*words.split())

    assert refused.returncode == 4
    assert refused.stderr.splitlines() == [
        "error: which model? there are: digits, later",
        f"hint: mindtrace {words} --set registry.model_name=digits",
    ]
    if "serve" not in words:
        pasted = shlex.split(refused.stderr.splitlines()[1].removeprefix("hint: mindtrace "))
        assert "which model?" not in mindtrace(*pasted).stderr


def test_a_list_says_how_many_there_are(version: Version, run_cli: RunCli, root: Path) -> None:
    for number in range(26):
        version("digits", seed=str(number))
    assert run_cli("registry", "list").stderr == "20 of 26, --limit 0 shows all\n"
    assert (
        run_cli(
            "registry", "list", "--columns", "version", "--where", "seed > 3", "--limit=2"
        ).stderr
        == "2 of 22, --limit 0 shows all\n"
    )
    every = run_cli("registry", "list", "--limit", "0")
    assert (len(every.stdout.splitlines()), every.stderr) == (27, "")
    assert count_versions(load_settings(), "digits") == 26


def test_an_alias_moves_and_a_version_goes_but_not_the_champion(
    two: None, register: Publish, run_cli: RunCli, root: Path
) -> None:
    register("digits")
    settings = load_settings()
    for ref in ("digits/1", "digits/2"):
        assert run_cli("registry", "alias", ref, "staging").exit_code == 0
        assert open_reader(settings).aliases("digits")["staging"] == int(ref[-1])
    for name in ("champion", "Latest", "no name", ""):
        with pytest.raises(UsageError, match="alias '"):
            set_alias(settings, "digits/1", name)
    with pytest.raises(NotFoundError):
        set_alias(settings, "digits/9", "staging")

    refused = run_cli("registry", "delete", "digits/1")
    assert (refused.exit_code, refused.stderr.splitlines()[0]) == (
        5,
        "error: digits/1 is the champion",
    )
    gone = json.loads(run_cli("registry", "delete", "digits@staging", "--json").stdout)
    assert (gone["model_name"], gone["version"], gone["removed"]) == ("digits", 2, True)
    assert [row.version for row in open_reader(settings).versions("digits", 9)] == [1]
    assert "staging" not in open_reader(settings).aliases("digits")
    assert [one.name for one in root.glob("mlartifacts/*/artifacts/bundle/model.onnx")] == [
        "model.onnx"
    ] * 2
    with pytest.raises(ConflictError):
        delete(settings, "later")


def test_a_report_is_written_into_a_folder(
    trained: Path, run_cli: RunCli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIR_PATHS__ROOT", str(trained))
    monkeypatch.chdir(tmp_path)

    written = run_cli("registry", "report", "digits")

    page = tmp_path / "digits-1-report" / "report.html"
    assert (written.exit_code, written.stdout) == (0, f"report\t{page}\n")
    assert "<html" in page.read_text()
    assert run_cli("registry", "report", "digits").exit_code == 2  # it is there
    (tmp_path / "empty").mkdir()
    assert Path(write_report(load_settings(), "digits/1", "empty")).is_file()
