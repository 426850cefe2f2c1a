"""What must be quick loads nothing heavy; shown by processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import mindtrace

SOURCE = Path(mindtrace.__file__).parent
TRAINING = {
    "torch",
    "torchvision",
    "timm",
    "torchmetrics",
    "pytorch_lightning",
    "lightning",
    "mlflow",
}
HEAVY = TRAINING | {"onnx", "sklearn", "scipy", "pandas", "sqlalchemy", "matplotlib", "dbos"}
SERVING = {"numpy", "PIL", "onnxruntime", "fastapi", "uvicorn", "asyncio", "safetensors"}
# Runs a statement and tells, whatever its end, which packages it left loaded.
TELL = """
import json, sys
code = 0
try:
    exec(sys.argv[1])
except SystemExit as leaving:
    code = leaving.code or 0
sys.stdout = sys.__stdout__
found = sorted({name.partition(".")[0] for name in sys.modules})
print("\\n" + json.dumps([code, found]))
"""


def loaded(statement: str, root: Path) -> set[str]:
    """The packages that a fresh process has loaded after `statement`."""
    done = subprocess.run(
        [sys.executable, "-c", TELL, statement],
        capture_output=True,
        text=True,
        env={**os.environ, "DIR_PATHS__ROOT": str(root)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    code, found = json.loads(done.stdout.splitlines()[-1])
    assert code == 0, done.stderr
    return set(found)


def command(*words: str) -> str:
    return f"from mindtrace.cli.main import main; sys.argv = {['mindtrace', *words]!r}; main()"


def modules(package: str) -> list[str]:
    paths = sorted((SOURCE / package).glob("*.py"))
    return [f"mindtrace.{package}.{path.stem}" for path in paths if path.stem != "__init__"]


def test_the_package_itself_is_names_only(root: Path) -> None:
    own = "[name for name in sys.modules if name.startswith('mindtrace.')]"

    found = loaded(f"import mindtrace; assert {own} == ['mindtrace.version'], {own}", root)

    assert not found & (HEAVY | SERVING)
    config = (
        "from mindtrace import Config; Config(); assert 'pydantic' not in sys.modules;"
        "from mindtrace.config.settings import load_settings; load_settings();"
        "assert 'urllib.request' not in sys.modules"
    )
    own = {"configparser", "logging", "subprocess"}
    assert not loaded(config, root) & (HEAVY | SERVING | own)


@pytest.mark.parametrize(
    ("words", "others"),
    [
        *((words.split(), {"rich"}) for words in ("--help", "--version", "train --help")),
        *((words.split(), {"rich"}) for words in ("config show", "registry list")),
        (["doctor"], set()),
    ],
)
def test_what_is_quick_loads_neither_what_trains_nor_what_serves(
    trained: Path, words: list[str], others: set[str]
) -> None:
    serving = SERVING - {"numpy", "PIL", "onnxruntime"} if words == ["doctor"] else SERVING
    assert not loaded(command(*words), trained) & (HEAVY | serving | others)


def test_predict_loads_neither_torch_nor_lightning_nor_mlflow(
    trained: Path, trained_bundle: Path, tmp_path: Path
) -> None:
    from mindtrace.bundle.predictions import read_golden

    golden = (trained_bundle / "golden.json").read_text()
    (tmp_path / "digit.png").write_bytes(read_golden(golden)[0].image)

    found = loaded(command("predict", str(tmp_path / "digit.png")), trained)

    assert not found & HEAVY
    assert not found & {"fastapi", "uvicorn", "asyncio"}
    assert found >= {"numpy", "PIL", "onnxruntime"}


def test_serving_a_model_loads_neither_torch_nor_lightning_nor_mlflow(trained: Path) -> None:
    """As far as a server goes before it listens: application, server, a loaded model."""
    statement = (
        "from mindtrace.config.settings import load_settings;"
        "from mindtrace.service.following import open_or_wait;"
        "from mindtrace.application.api import app;"
        "import mindtrace.application.serve;"
        "from mindtrace.service.jobs import counts;"
        "assert sum(counts(load_settings()).values()) == 0;"
        "assert open_or_wait(load_settings(), None) is not None"
    )

    found = loaded(statement, trained)

    assert not found & HEAVY
    assert found >= {"fastapi", "uvicorn", "onnxruntime"}


# Packages below training, readers of the registry, and packages whose names are lazy.
LIGHT = {
    "what commands import": (
        [
            *(name for package in ("config", "service", "cli") for name in modules(package)),
            *(f"mindtrace.registry.{name}" for name in ("names", "query", "reader", "reference")),
            *("mindtrace.registry.champions", "mindtrace.registry.maintenance"),
        ],
        HEAVY | SERVING,
    ),
    "what predicting imports": ([*modules("utils"), *modules("bundle")], HEAVY),
    # The database of jobs is opened with the first job; by then SQLAlchemy may be loaded.
    "what jobs import": (modules("jobs"), HEAVY - {"sqlalchemy"}),
    "packages": (
        [f"mindtrace.{name}" for name in ("utils", "registry", "data", "application")],
        HEAVY | SERVING,
    ),
}


@pytest.mark.parametrize("name", LIGHT)
def test_importing_what_is_light_loads_nothing_heavy(root: Path, name: str) -> None:
    imported, heavy = LIGHT[name]

    assert not loaded(f"import {', '.join(imported)}", root) & heavy
