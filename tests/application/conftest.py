"""A real server on loopback, with a small model that needs no training."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mindtrace.application.api import load_app
from mindtrace.application.serve import Server
from mindtrace.bundle import manifest
from mindtrace.bundle.bundle import Contents, ModelConfig, write_contents
from mindtrace.bundle.predictions import GoldenCase, TestPredictions
from mindtrace.config.settings import Settings, load_settings
from mindtrace.preprocess import ImageSpec, encode_png, normalise
from mindtrace.service.serve import listen, url_of

if TYPE_CHECKING:
    from tests.application.registered import Registered

SPEC = ImageSpec(mode="L", height=8, width=8, mean=(0.5,), std=(0.5,))
CLASSES = ("dark", "bright", "other")

Serve = Callable[..., contextlib.AbstractContextManager[httpx.Client]]
PATIENCE = 60.0  # seconds: until a server that does not answer fails its test
JSON, PNG = {"content-type": "application/json"}, {"content-type": "image/png"}


def png(level: int, size: int = 8) -> bytes:
    """An even grey square as a PNG file."""
    return encode_png(np.full((size, size), level, np.uint8))


def probabilities(pixels: np.ndarray[Any, Any], scale: float = 1.0) -> np.ndarray[Any, Any]:
    """What the small model answers: float32, (batch, 3)."""
    logits = normalise(pixels, SPEC).reshape(len(pixels), -1) @ _weights(scale)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32)


def _weights(scale: float) -> np.ndarray[Any, Any]:
    weights = np.zeros((64, 3), np.float32)
    weights[:, 0], weights[:, 1] = -0.02 * scale, 0.02 * scale
    return weights


def contents(
    *, scale: float = 1.0, golden_shift: float = 0.0, classes: Sequence[str] = CLASSES
) -> Contents:
    """A model that tells dark squares from bright ones; the surer, the larger `scale`."""
    images = np.stack([np.full((8, 8), level, np.uint8) for level in (0, 60, 200, 255)])
    answers = probabilities(images, scale)
    return Contents(
        model_config=ModelConfig("mlp", {"dim": [64, 3]}, SPEC, tuple(classes)),
        weights={"weight": _weights(scale)},
        onnx=_graph(scale),
        golden=[
            GoldenCase(encode_png(image), answer + np.float32(golden_shift))
            for image, answer in zip(images, answers, strict=True)
        ],
        predictions=TestPredictions(np.zeros((4, 32), np.uint8), np.zeros(4, np.int64), answers),
        config="[data]\nsource = digits\n",
        data={},
    )


def write_bundle(folder: Path, **changes: Any) -> Path:
    """A sealed bundle of the small model; `changes` are those of `contents`."""
    folder.mkdir(parents=True)
    write_contents(folder, contents(**changes))
    manifest.seal(folder)
    return folder


def _graph(scale: float) -> bytes:
    nodes = [
        helper.make_node("Flatten", ["images"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weight"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 1, 8, 8])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(_weights(scale), "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a bundle that can be served."""
    return write_bundle(tmp_path_factory.mktemp("bundles") / "small")


@pytest.fixture(scope="session")
def serve() -> Serve:
    """`with serve(settings, ref) as client`: a real uvicorn, a real socket."""
    return _serving


@contextlib.contextmanager
def _serving(
    settings: Settings, ref: str | None = None, *, change: Callable[[Any], None] | None = None
) -> Iterator[httpx.Client]:
    application = load_app(settings, ref)
    if change is not None:
        change(application)
    with listen("127.0.0.1", 0) as listener:
        server = Server(application)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            with httpx.Client(
                base_url=url_of(*listener.getsockname()[:2]), trust_env=False, timeout=PATIENCE
            ) as client:
                yield client
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture
def start(tmp_path: Path, bundle: Path) -> Serve:
    """`with start("serve.queue=4") as client`: a server of the small model and these settings."""

    def begin(
        *sets: str, ref: str | None = str(bundle), change: Callable[[Any], None] | None = None
    ) -> contextlib.AbstractContextManager[httpx.Client]:
        settings = load_settings(sets=[f"DIR_PATHS.ROOT={tmp_path}", *sets], environ={})
        return _serving(settings, ref, change=change)

    return begin


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    """A file with the token `s3cret`."""
    path = tmp_path / "token"
    path.write_text("s3cret\n")
    return path


@pytest.fixture(scope="module")
def module_settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settings of an empty ROOT that the tests of a module share."""
    folder = tmp_path_factory.mktemp("root")
    return load_settings(sets=[f"DIR_PATHS.ROOT={folder}"], environ={})


@pytest.fixture(scope="module")
def client(module_settings: Settings, bundle: Path) -> Iterator[httpx.Client]:
    """A client of a server that serves the small model."""
    with _serving(module_settings, str(bundle)) as client:
        yield client


@pytest.fixture(scope="session")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's tables, which take it more than a second to make."""
    from mindtrace.registry.store import Store

    folder = tmp_path_factory.mktemp("tables")
    Store(f"sqlite:///{folder / 'mlflow.db'}", folder)
    with contextlib.closing(sqlite3.connect(folder / "mlflow.db")) as connection:
        connection.execute("pragma wal_checkpoint(truncate)")
    return folder / "mlflow.db"


@pytest.fixture
def registry(root: Path, tables: Path) -> Registered:
    """An empty registry in ROOT."""
    from tests.application.registered import Registered

    shutil.copy(tables, root / "mlflow.db")
    return Registered(root)


@pytest.fixture
def two(registry: Registered) -> Registered:
    """Version 1 is champion, version 2 is surer of what it says."""
    assert [registry.add(1.0), registry.add(2.0)] == [1, 2]
    return registry
