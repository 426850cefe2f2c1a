"""From a bundle to probabilities, with ONNX Runtime."""

from __future__ import annotations

import functools
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mindtrace.bundle.bundle import Bundle, read_bundle
from mindtrace.bundle.model_config import ModelConfig
from mindtrace.bundle.predictions import GOLDEN_TOLERANCE, largest_difference
from mindtrace.config.formats import SERVED
from mindtrace.errors import BundleError, ImageError
from mindtrace.preprocess import MAX_PIXELS, decode, normalise

INPUT = "images"
OUTPUT = "probabilities"


class Predictor:
    """A loaded bundle that classifies images; it does not change once it is open.

    Attributes:
        model_config: architecture, input (`spec`) and `class_names` of the network.
        digest: the bundle's digest, 64 hexadecimal digits.
        formats: of image files that are read, as `[data] formats` names them.
        max_pixels: of the largest image file that is read.
    """

    def __init__(self, bundle: Bundle, threads: int = 1) -> None:
        """Load the network of a checked bundle.

        Args:
            bundle: what `read_bundle` gave.
            threads: of ONNX Runtime, 1 or more. One is best for small networks: more
                wait for each other, and spin on every core while idle.

        Raises:
            BundleError: ONNX Runtime cannot load the graph, or its shapes are not those
                of `model.json`.
        """
        self.model_config: ModelConfig = bundle.model_config
        self.digest = bundle.digest
        self.formats: tuple[str, ...] = SERVED
        self.max_pixels = MAX_PIXELS
        self._session = _session(bundle, threads)
        self._run = self._session.run

    @classmethod
    def open(cls, folder: Path, expected_digest: str | None = None, threads: int = 1) -> Predictor:
        """Read, check and load a bundle, and compare its answers to the golden images.

        Args:
            folder: the bundle.
            expected_digest: of the bundle, as the registry has it; None checks the files
                against the manifest alone.
            threads: of ONNX Runtime.

        Raises:
            BundleError: damaged, of a newer format, or a golden probability differs by
                more than 1e-4 from that of its training.
        """
        bundle = read_bundle(folder, expected_digest)
        predictor = cls(bundle, threads)
        try:
            difference = largest_difference(bundle.golden, predictor.predict)
        except ImageError as error:
            raise BundleError(folder, f"a golden image cannot be read: {error}") from error
        if difference > GOLDEN_TOLERANCE:
            raise BundleError(
                folder,
                f"its golden images are answered with a difference of {difference:.2g}, "
                f"allowed is {GOLDEN_TOLERANCE:.0e}",
            )
        return predictor

    def decode(self, data: bytes, max_pixels: int | None = None) -> NDArray[np.uint8]:
        """An encoded image in the network's size: uint8, (h, w) or (h, w, 3).

        Raises:
            ImageError: not an image, damaged, too large.
        """
        return decode(data, self.model_config.spec, max_pixels or self.max_pixels, self.formats)

    def run(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Probabilities of decoded images.

        Args:
            pixels: uint8, (batch, height, width) or (batch, height, width, 3).

        Returns:
            float32, (batch, classes); each row sums to 1.
        """
        return self.run_input(normalise(pixels, self.model_config.spec))

    def run_one(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Probabilities of one decoded image: float32, (classes,)."""
        answer: NDArray[np.float32] = self.run(pixels[None])[0]
        return answer

    @functools.cached_property
    def seconds(self) -> float:
        """Seconds that one image takes in the network: the best of five runs, measured once."""
        spec = self.model_config.spec
        image = np.zeros((1, spec.channels, spec.height, spec.width), np.float32)
        times = []
        for _ in range(5):
            start = time.perf_counter()
            self.run_input(image)
            times.append(time.perf_counter() - start)
        return min(times)

    def run_input(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probabilities of normalised input: float32, (batch, channels, height, width)."""
        answer: NDArray[np.float32] = self._run([OUTPUT], {INPUT: images})[0]
        return answer

    def predict(self, data: bytes) -> NDArray[np.float32]:
        """Probabilities of one encoded image: float32, (classes,).

        Raises:
            ImageError: not an image, damaged, too large.
        """
        return self.run_one(self.decode(data))


def open_session(graph: bytes, threads: int) -> Any:
    """An ONNX Runtime session, whose threads sleep while they have nothing to do."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(
        graph,
        options,
        providers=["CPUExecutionProvider"],
        enable_fallback=0,  # else it prints its error and tries the same again
    )


def _session(bundle: Bundle, threads: int) -> Any:
    try:
        session = open_session(bundle.onnx, threads)
    except Exception as error:
        reason = " ".join(str(error).split())
        raise BundleError(bundle.folder, f"model.onnx cannot be loaded: {reason}") from error
    spec, classes = bundle.model_config.spec, len(bundle.model_config.class_names)
    inputs = {value.name: value.shape[1:] for value in session.get_inputs()}
    outputs = {value.name: value.shape[1:] for value in session.get_outputs()}
    shapes = (inputs.get(INPUT), outputs.get(OUTPUT))
    expected = ([spec.channels, spec.height, spec.width], [classes])
    if shapes != expected:
        raise BundleError(
            bundle.folder,
            f"model.onnx maps {shapes[0]} to {shapes[1]}, model.json says "
            f"{expected[0]} to {expected[1]}",
        )
    return session
