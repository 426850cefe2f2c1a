"""Every server of the race: how it is started, asked, and understood.

In: a folder with weights and graph, a port, the Python that a rival lives in. Out: its
command and environment. What is not installed is left out, with one line that says so.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parents[1]
# Bodies, by the way a server wants to be asked; the base64 text takes the place of %s.
FORMS = {
    "plain": '{"image":"%s"}',
    "v2": '{"inputs":[{"name":"image","shape":[1,1],"datatype":"BYTES","data":["%s"]}]}',
    "mlflow": '{"dataframe_split":{"columns":["image"],"data":[["%s"]]}}',
}


@dataclass(frozen=True)
class Peer:
    """A server of the race.

    Attributes:
        title: of its row.
        path: of its endpoint.
        form: of its bodies.
        needs: what its Python must be able to import.
        command: from its Python, a port and the folder, what to start.
    """

    title: str
    path: str
    form: str
    needs: tuple[str, ...]
    command: Callable[[str, int, Path], list[str]]

    def probabilities(self, body: bytes) -> list[float]:
        """What an answer says."""
        said = json.loads(body)
        if self.form == "v2":
            return list(said["outputs"][0]["data"])
        if self.form == "mlflow":
            said = said["predictions"][0]
        return list(said["probabilities"])


def _ours(workers: int) -> Callable[[str, int, Path], list[str]]:
    def command(python: str, port: int, folder: Path) -> list[str]:
        words = ["-m", "mindtrace", "serve", "--port", str(port), "--workers", str(workers)]
        return [python, *words, "--no-worker"]

    return command


def _uvicorn(app: str, workers: int = 1) -> Callable[[str, int, Path], list[str]]:
    def command(python: str, port: int, folder: Path) -> list[str]:
        options = ["--no-access-log", "--port", str(port), "--workers", str(workers)]
        return [python, "-m", "uvicorn", *options, f"peers.{app}:app"]

    return command


def _lit(python: str, port: int, folder: Path) -> list[str]:
    return [python, "-m", "peers.lit_server", str(port)]


def _bento(python: str, port: int, folder: Path) -> list[str]:
    return [_program(python, "bentoml"), "serve", "peers.bento_service:Digits", "-p", str(port)]


def _mlserver(python: str, port: int, folder: Path) -> list[str]:
    home = folder / "mlserver"
    home.mkdir(exist_ok=True)
    # It has no option for a port; two more are for protocols that nobody speaks here.
    ports = {"http_port": port, "grpc_port": port + 1, "metrics_port": port + 2}
    settings = {"host": "127.0.0.1", "parallel_workers": 0, "debug": False, **ports}
    (home / "settings.json").write_text(json.dumps(settings))
    model = {"name": "digits", "implementation": "peers.mlserver_model.Digits"}
    (home / "model-settings.json").write_text(json.dumps(model))
    return [_program(python, "mlserver"), "start", str(home)]


def _mlflow(python: str, port: int, folder: Path) -> list[str]:
    home = folder / "mlflow"
    if not home.exists():
        save = [python, "-m", "peers.mlflow_model", str(home)]
        subprocess.run(save, env=environment(folder, python), check=True, capture_output=True)
    options = ["--env-manager", "local", "-p", str(port), "-w", "1"]
    return [_program(python, "mlflow"), "models", "serve", "-m", str(home), *options]


def _program(python: str, name: str) -> str:
    return str(Path(python).with_name(name))


PEERS = {
    "ours": Peer("mindtrace", "/inference", "plain", (), _ours(1)),
    "ours-2": Peer("mindtrace, two workers", "/inference", "plain", (), _ours(2)),
    "raw": Peer(
        "raw ASGI + ONNX Runtime", "/", "plain", ("onnxruntime", "orjson"), _uvicorn("raw_asgi")
    ),
    "raw-2": Peer(
        "the same, two workers", "/", "plain", ("onnxruntime", "orjson"), _uvicorn("raw_asgi", 2)
    ),
    "fastapi": Peer(
        "FastAPI + torch", "/inference", "plain", ("fastapi", "torch"), _uvicorn("fastapi_torch")
    ),
    "mlserver": Peer("MLServer", "/v2/models/digits/infer", "v2", ("mlserver", "torch"), _mlserver),
    "litserve": Peer("LitServe", "/inference", "plain", ("litserve", "torch"), _lit),
    "bentoml": Peer("BentoML", "/inference", "plain", ("bentoml", "torch"), _bento),
    "mlflow": Peer("mlflow models serve", "/invocations", "mlflow", ("mlflow", "torch"), _mlflow),
}


def environment(folder: Path, python: str = sys.executable) -> dict[str, str]:
    """What all servers are started with: one thread each, nobody calls home."""
    names = ("DO_NOT_TRACK", "BENTOML_DO_NOT_TRACK", "MLFLOW_DISABLE_TELEMETRY")
    return {
        **os.environ,
        # Some start programs of theirs by name.
        "PATH": os.pathsep.join((str(Path(python).parent), os.environ["PATH"])),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, (str(HERE), os.environ.get("PYTHONPATH")))),
        "BENCH_FOLDER": str(folder),
        "DIR_PATHS__ROOT": str(folder / "root"),
        **dict.fromkeys(names, "true"),
    }


def installed(pythons: Mapping[str, str], only: Any = None) -> dict[str, str]:
    """The peers that can be started, and the Python of each; tells which cannot."""
    found = {}
    for name, peer in PEERS.items():
        python = pythons.get(name, sys.executable)
        if only and name not in only:
            continue
        probe = "import importlib.util as u, sys; sys.exit(' '.join(m for m in sys.argv[1:] "
        probe += "if u.find_spec(m) is None) or 0)"
        done = subprocess.run([python, "-c", probe, *peer.needs], capture_output=True, text=True)
        if done.returncode:
            print(f"{peer.title}: left out, {python} has no {done.stderr.strip()}")
        else:
            found[name] = python
    return found
