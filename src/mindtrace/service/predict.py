"""The verb predict: images in, answers out, one for one.

A file that is no image gives a failure in its place; the others go on.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mindtrace.core.documents import document
from mindtrace.core.settings import Settings
from mindtrace.errors import ImageError, MindtraceError, UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mindtrace.inference.predictor import Predictor

STDIN = "-"
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


@dataclass(frozen=True)
class LoadedModel:
    """A model that answers, and which version it is; a bare folder is none."""

    predictor: Predictor
    model_name: str | None
    version: int | None


@dataclass(frozen=True)
class Candidate:
    """One of the likeliest classes."""

    label: int
    class_name: str
    confidence: float


@dataclass(frozen=True)
class Prediction:
    """The answer to one image.

    Attributes:
        path: of the file, `-` for standard input, None where there was none.
        label: index of the likeliest class.
        class_name: its name.
        confidence: its probability.
        probabilities: of all classes, in the order of `class_names`.
        top_k: the likeliest classes, best first.
        model_name: who answered.
        version: who answered.
    """

    path: str | None
    label: int
    class_name: str
    confidence: float
    probabilities: tuple[float, ...]
    top_k: tuple[Candidate, ...]
    model_name: str | None
    version: int | None

    def document(self) -> dict[str, Any]:
        """The JSON document of `mindtrace predict`."""
        fields = {**vars(self), "probabilities": list(self.probabilities)}
        fields["top_k"] = [dict(vars(candidate)) for candidate in self.top_k]
        return document(fields)


@dataclass(frozen=True)
class PredictionFailure:
    """What went wrong with one image."""

    path: str
    error: MindtraceError

    def document(self) -> dict[str, Any]:
        """The JSON document of an image that could not be predicted."""
        error = {
            "type": type(self.error).__name__,
            "message": self.error.message,
            "hint": self.error.hint,
        }
        return document({"path": self.path, "error": error})


def load_model(settings: Settings, ref: str | None = None) -> LoadedModel:
    """Find, fetch, check and load a version.

    Raises:
        NotFoundError: no such version.
        BundleError: it is not what was registered.
        StoreError: the registry cannot be read.
    """
    from mindtrace.inference.predictor import Predictor
    from mindtrace.registry.lookup import locate

    located = locate(settings, ref)
    predictor = Predictor.open(located.folder, located.digest)
    row = located.row
    return LoadedModel(predictor, row.name if row else None, row.version if row else None)


def collect(paths: Sequence[str]) -> list[str]:
    """The files that arguments mean: files, folders to their depth, globs, `-`.

    A file that was named itself is taken whatever it is, missing too: it gets its answer.

    Raises:
        UsageError: a folder without images, a glob without matches.
    """
    found: list[str] = []
    for text in paths:
        if Path(text).is_dir():
            found += _images_below(text)
        elif text == STDIN or Path(text).is_file() or not glob.has_magic(text):
            found.append(text)
        else:
            matches = sorted(glob.glob(text, recursive=True))  # noqa: PTH207 - keeps the text
            if not matches:
                raise UsageError(f"nothing matches '{text}'")
            found += [match for match in matches if Path(match).is_file()]
    return found


def predict_paths(
    model: LoadedModel,
    paths: Sequence[str],
    *,
    top_k: int = 1,
    stdin: Callable[[], bytes],
    fail_fast: bool = False,
) -> Iterator[Prediction | PredictionFailure]:
    """One answer a file, in their order.

    Args:
        model: who answers.
        paths: files; `-` is one image on standard input.
        top_k: how many candidates an answer lists.
        stdin: reads standard input.
        fail_fast: raise at the first file that fails.

    Raises:
        ImageError: with `fail_fast`.
    """
    for path in paths:
        try:
            data = stdin() if path == STDIN else _read(path)
            yield predict_bytes(model, data, top_k, path=path)
        except ImageError as error:
            if fail_fast:
                raise ImageError(f"{path}: {error.message}", hint=error.hint) from error
            yield PredictionFailure(path, error)


def predict_bytes(
    model: LoadedModel, data: bytes, top_k: int = 1, *, path: str | None = None
) -> Prediction:
    """The answer to one encoded image.

    Raises:
        ImageError: not an image, damaged, too large.
    """
    return answer(model, model.predictor.predict(data), top_k, path=path)


def answer(
    model: LoadedModel,
    probabilities: NDArray[np.float32],
    top_k: int = 1,
    *,
    path: str | None = None,
) -> Prediction:
    """A prediction from its probabilities: float32, (classes,)."""
    names = model.predictor.card.class_names
    values = tuple(probabilities.tolist())
    order = sorted(range(len(values)), key=values.__getitem__, reverse=True)
    best = order[0]
    return Prediction(
        path=path,
        label=best,
        class_name=names[best],
        confidence=values[best],
        probabilities=values,
        top_k=tuple(Candidate(label, names[label], values[label]) for label in order[:top_k]),
        model_name=model.model_name,
        version=model.version,
    )


def _images_below(folder: str) -> list[str]:
    found = [
        os.path.join(at, name)  # noqa: PTH118 - a Path a file costs more than its prediction
        for at, folders, names in os.walk(folder)
        for name in names
        if name.lower().endswith(SUFFIXES)
    ]
    if not found:
        raise UsageError(
            f"no images in folder '{folder}'", hint=f"files read are {', '.join(SUFFIXES)}"
        )
    return sorted(found)


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - see _images_below
            return file.read()
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror}") from error
