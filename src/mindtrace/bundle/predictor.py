"""From a bundle to probabilities, with ONNX Runtime."""

import functools
import timeit
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from mindtrace.bundle.bundle import Bundle, ModelConfig, read_bundle
from mindtrace.bundle.predictions import GOLDEN_TOLERANCE, largest_difference
from mindtrace.config.formats import SERVED
from mindtrace.errors import BundleError, ImageError
from mindtrace.preprocess import MAX_PIXELS, decode, normalise

INPUT = "images"
OUTPUT = "probabilities"


class Predictor:
    """A loaded bundle that classifies images; it does not change once it is open."""

    def __init__(self, bundle: Bundle, threads: int = 1) -> None:
        """Load the network of a checked bundle; BundleError if its graph is another's."""
        # One thread is best for small networks: more wait for each other.
        self.model_config: ModelConfig = bundle.model_config
        self.digest = bundle.digest
        self.formats: tuple[str, ...] = SERVED
        self.max_pixels = MAX_PIXELS
        self._session = _session(bundle, threads)
        self._run = self._session.run

    @classmethod
    def open(cls, folder: Path, expected_digest: str | None = None, threads: int = 1) -> Self:
        """Read, check and load a bundle, and ask its golden images; BundleError."""
        bundle = read_bundle(folder, expected_digest)
        predictor = cls(bundle, threads)
        try:
            difference = largest_difference(bundle.golden, predictor.predict)
        except ImageError as error:
            raise BundleError(folder, f"a golden image cannot be read: {error}") from error
        if difference > GOLDEN_TOLERANCE:
            reason = f"its golden images are answered with a difference of {difference:.2g}"
            raise BundleError(folder, f"{reason}, allowed is {GOLDEN_TOLERANCE:.0e}")
        return predictor

    def decode(self, data: bytes, max_pixels: int | None = None) -> NDArray[np.uint8]:
        """An encoded image in the network's size: uint8, (h, w) or (h, w, 3); ImageError."""
        return decode(data, self.model_config.spec, max_pixels or self.max_pixels, self.formats)

    def run(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Probabilities, float32 (n, classes), of decoded images, (n, h, w) or (n, h, w, 3)."""
        return self.run_input(normalise(pixels, self.model_config.spec))

    @functools.cached_property
    def seconds(self) -> float:
        """Seconds that one image takes in the network: the best of five runs, measured once."""
        spec = self.model_config.spec
        image = np.zeros((1, spec.channels, spec.height, spec.width), np.float32)
        return min(timeit.repeat(lambda: self.run_input(image), number=1, repeat=5))

    def run_input(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probabilities of normalised input: float32, (batch, channels, height, width)."""
        answer: NDArray[np.float32] = self._run([OUTPUT], {INPUT: images})[0]
        return answer

    def predict(self, data: bytes) -> NDArray[np.float32]:
        """Probabilities of one encoded image: float32, (classes,); ImageError."""
        row: NDArray[np.float32] = self.run(self.decode(data)[None])[0]
        return row


def open_session(graph: bytes, threads: int) -> Any:
    """An ONNX Runtime session, whose threads sleep while they have nothing to do."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # With its fallback it prints an error and tries the same again.
    how = {"providers": ["CPUExecutionProvider"], "enable_fallback": 0}
    return onnxruntime.InferenceSession(graph, options, **how)


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
        reason = f"model.onnx maps {shapes[0]} to {shapes[1]}"
        known = f"model.json says {expected[0]} to {expected[1]}"
        raise BundleError(bundle.folder, f"{reason}, {known}")
    return session
