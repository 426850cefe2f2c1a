"""Commands write into ROOT and where they were told to, and nowhere else: nothing calls home."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from PIL import Image

pytestmark = [pytest.mark.slow, pytest.mark.proof]

SMALL = "--set data.source=digits --set train.max_epochs=1 --set compute.threads=1"
# In the order of running, in one process; in a folder of their own, with an empty HOME.
COURSE = f"""
config show
config init all.ini
train {SMALL} --dry-run
train {SMALL}
train {SMALL} --set train.seed=1 --set model.name=cnn
predict image.png --model digits
registry list
registry show digits/1
registry diff digits/1 digits/2
registry compare digits/1 digits/2 --html flips.html
registry evaluate digits/1 --config digits.ini
registry promote digits/2 --force --reason test
registry rollback digits
registry history digits
registry verify --all
registry export digits/1 exported
predict image.png --model ./exported
data check images --sheet sheet.png
reproduce digits/1
retrain {SMALL} --set train.seed=2 --wait
jobs list
doctor
registry gc --keep 1
"""

PROGRAM = """
import sys
from pathlib import Path
from typer.testing import CliRunner
from mindtrace.cli.main import program

for line in sys.argv[1].strip().splitlines():
    done = CliRunner().invoke(program(), line.split(), prog_name="mindtrace")
    assert done.exit_code == 0 or "doctor" in line, (line, done.stderr)
    assert "Traceback" not in done.stderr, line
    assert list(Path.home().rglob("*")) == [], line
"""


def test_no_command_leaves_anything_in_home(tmp_path: Path) -> None:
    home, here, root = tmp_path / "home", tmp_path / "here", tmp_path / "root"
    for number, name in enumerate("aaaabbbb"):
        (here / "images" / name).mkdir(parents=True, exist_ok=True)
        image = Image.new("L", (8, 8), 30 * number)
        image.save(here / "images" / name / f"{number}.png")
        image.save(here / "image.png")
    (here / "digits.ini").write_text("[data]\nsource = digits\n")
    home.mkdir()
    before = {*here.rglob("*")}
    # In continuous integration libraries are quieter by themselves.
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "PYTHONPATH") if name in os.environ}
    env = {**kept, "HOME": str(home), "DIR_PATHS__ROOT": str(root)}
    words = [sys.executable, "-P", "-c", PROGRAM, COURSE]
    done = subprocess.run(words, cwd=here, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr and "Matplotlib" not in done.stderr
    written = {path.relative_to(here).parts[0] for path in {*here.rglob("*")} - before}
    assert written == {"all.ini", "flips.html", "exported", "sheet.png"}

    words = [sys.executable, "-P", "-m", "mindtrace", "serve", "--port", "0", "--json"]
    with subprocess.Popen(
        [*words, "--model", "digits"], cwd=here, env=env, stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout is not None
            url = json.loads(server.stdout.readline())["url"]
            request = urllib.request.Request(
                f"{url}/inference", (here / "image.png").read_bytes(), {"Content-Type": "image/png"}
            )
            with urllib.request.urlopen(request) as reply:
                assert reply.status == 200
        finally:
            server.terminate()
    assert server.returncode == 0
    assert list(home.rglob("*")) == []


@pytest.mark.sampled(2)
@pytest.mark.parametrize("home", ["/proc/nowhere", "", None, "/dev/null"])
def test_a_home_that_is_none(tmp_path: Path, home: str | None) -> None:
    env = {name: value for name, value in os.environ.items() if name != "HOME"}
    env |= {"DIR_PATHS__ROOT": str(tmp_path / "root")} | ({} if home is None else {"HOME": home})
    words = [sys.executable, "-m", "mindtrace", "train", *SMALL.split(), "--json"]
    done = subprocess.run(words, env=env, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1
    assert [line for line in done.stderr.splitlines() if not line.startswith('{"schema')] == []

    if home:  # and without another ROOT there is nowhere to write
        del env["DIR_PATHS__ROOT"]
        done = subprocess.run(words, env=env, capture_output=True, text=True, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (1, "")
        error = json.loads(done.stderr.splitlines()[-1])["error"]
        assert home in error["message"] and "internal" not in error["message"] and error["hint"]
