"""Classifies images with a model in this process, one answer a file, a batch at a time."""

from __future__ import annotations

import csv
import glob
import io
import os
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from mindtrace.config.formats import suffixes
from mindtrace.config.settings import Settings
from mindtrace.data.listing import NO_FILE, LeftOut, find_images, left_out_line
from mindtrace.errors import ImageError, MindtraceError, UsageError
from mindtrace.system import require_output, write_output

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

    from mindtrace.bundle.predictor import Predictor

    AnyImage = str | os.PathLike[str] | bytes | Image.Image | NDArray[np.uint8]

STDIN = "-"
# Above what 100 megapixels take without any compression, 16 bits a channel.
LARGEST_FILE = 1024 * 1024 * 1024
_READ = 64 * 1024
# Images that run together: no more than pay, and no more values than 4 MiB hold.
_LARGEST_BATCH = 128
_BATCH_VALUES = 2**20


@dataclass(frozen=True)
class Prediction:
    """The answer to one image.

    Attributes:
        label: index of the most probable class, in the model's `class_names`.
        class_name: its name.
        confidence: its probability, 0 to 1.
        probabilities: of every class, in the order of `class_names`; they sum to 1.
        path: of the file; None for an image in memory.
    """

    label: int
    class_name: str
    confidence: float
    probabilities: tuple[float, ...]
    path: str | None = None


@dataclass(frozen=True)
class LoadedModel:
    """A loaded version; model_name and version are None for the folder of a bundle."""

    predictor: Predictor
    model_name: str | None
    version: int | None

    @property
    def class_names(self) -> tuple[str, ...]:
        """By label."""
        return self.predictor.model_config.class_names

    @property
    def digest(self) -> str:
        """Of the bundle, 64 hexadecimal digits."""
        return self.predictor.digest

    def predict(self, x: AnyImage | Sequence[AnyImage]) -> Any:
        """Classify an image, or several at once, with the preprocessing of the training.

        Args:
            x: a path, the bytes of a file, a PIL image or a uint8 array, (height, width[, 3]); or
                a list of these; or a folder, of which all images are taken.

        Returns:
            a `Prediction`; for a list or a folder a list of them, in its order, sorted by path.

        Raises:
            ImageError: an image cannot be read; it names which.
            TypeError: an array that is no uint8 image.
            UsageError: a folder without images.
        """
        images: list[AnyImage] = []
        several = isinstance(x, list | tuple)
        for one in cast("Sequence[AnyImage]", x if several else [x]):
            if isinstance(one, str | os.PathLike) and Path(one).is_dir():
                images += _images_below(os.fspath(one), self.predictor.formats)[0]
                several = True
            else:
                images.append(one)
        found = []
        for answer in until_failure(predict_paths(self, images)):
            label, probabilities = answer["label"], tuple(answer["probabilities"])
            values = (answer["class_name"], answer["confidence"], probabilities)
            found.append(Prediction(label, *values, answer["path"]))
        return found if several else found[0]


# The answer to one image, or its error; `path` is `-` for standard input.
Document = dict[str, Any]


def failure(path: str | None, error: MindtraceError) -> Document:
    """The document of an image that could not be classified."""
    fields = {"type": type(error).__name__, "message": error.message, "hint": error.hint}
    return {"path": path, "error": fields}


def load_model(settings: Settings, ref: str | None = None) -> LoadedModel:
    """Find, fetch, check and load a version."""
    from mindtrace.bundle.predictor import Predictor
    from mindtrace.registry.reference import locate

    located = locate(settings, ref)
    predictor = Predictor.open(located.folder, located.digest)
    predictor.formats, predictor.max_pixels = settings.data.formats, settings.data.max_pixels
    return LoadedModel(predictor, located.model_name, located.version)


def collect(paths: Sequence[str], formats: Sequence[str]) -> tuple[list[str], str | None]:
    """The files that arguments name (files, whole folders, globs, `-`), and what is left out."""
    # A file named by itself is taken even if it is missing: its answer says so.
    found: list[str] = []
    left_out: dict[str, list[str]] = {}
    for text in paths:
        if Path(text).is_dir():
            images, others = _images_below(text, formats)
            found += images
            for kind, names in others.items():
                left_out.setdefault(kind, []).extend(names)
        elif text == STDIN or Path(text).is_file() or not glob.has_magic(text):
            found.append(text)
        else:
            matches = sorted(glob.glob(text, recursive=True))  # noqa: PTH207 - keeps the text
            if not matches:
                raise UsageError(f"nothing matches '{text}'")
            for match in matches:
                folder = Path(match).is_dir()
                (left_out.setdefault(NO_FILE, []) if folder else found).append(match)
    return found, left_out_line(left_out)


def predict_paths(
    model: LoadedModel,
    images: Sequence[AnyImage],
    *,
    top_k: int = 1,
    stdin: Callable[[], bytes] | None = None,
) -> Iterator[Document]:
    """One answer an image, in their order; without `stdin` the path `-` is a file."""
    spec = model.predictor.model_config.spec
    size = max(1, min(_LARGEST_BATCH, _BATCH_VALUES // (spec.channels * spec.height * spec.width)))
    for start in range(0, len(images), size):
        yield from _predict_batch(model, images[start : start + size], top_k, stdin)


def until_failure(answers: Iterable[Document]) -> Iterator[Document]:
    """The same answers; the first failure is raised."""
    for place, one in enumerate(answers):
        if "error" in one:
            name, error = one["path"] or f"image {place}", one["error"]
            raise ImageError(f"{name}: {error['message']}", hint=error["hint"])
        yield one


def _predict_batch(
    model: LoadedModel, images: Sequence[AnyImage], top_k: int, stdin: Callable[[], bytes] | None
) -> Iterator[Document]:
    """The answers to a few images."""
    from mindtrace.preprocess import decoded

    pixels: list[NDArray[np.uint8]] = []
    failures: dict[int, Document] = {}
    paths = [os.fspath(one) if isinstance(one, str | os.PathLike) else None for one in images]
    for place, (image, path) in enumerate(zip(images, paths, strict=True)):
        try:
            if path is not None:
                image = stdin() if stdin and path == STDIN else read_file(path)
            if isinstance(image, bytes):
                pixels.append(model.predictor.decode(image))
            else:
                pixels.append(decoded(cast(Any, image), model.predictor.model_config.spec))
        except ImageError as error:
            failures[place] = failure(path, error)
    import numpy as np

    rows = iter(model.predictor.run(np.stack(pixels)).tolist() if pixels else ())
    for place, path in enumerate(paths):
        yield failures.get(place) or {"path": path, **compose(model, next(rows), top_k)}


def compose(model: LoadedModel, values: list[float], top_k: int) -> Document:
    """The fields of an answer, from the probabilities of an image."""
    names = model.predictor.model_config.class_names
    if top_k == 1:
        order = [values.index(max(values))]
    else:
        order = sorted(range(len(values)), key=values.__getitem__, reverse=True)[:top_k]
    best = order[0]
    return {
        "label": best,
        "class_name": names[best],
        "confidence": values[best],
        "probabilities": values,
        "top_k": [
            {"label": label, "class_name": names[label], "confidence": values[label]}
            for label in order
        ],
        "model_name": model.model_name,
        "version": model.version,
    }


def _images_below(folder: str, formats: Sequence[str]) -> tuple[list[str], LeftOut]:
    try:
        found, left_out = find_images(folder, suffixes(formats))
    except OSError as error:
        raise UsageError(f"folder '{error.filename}' cannot be read: {error.strerror}") from error
    if not found:
        line = left_out_line(left_out)
        message = f"no images in folder '{folder}'" + (f", {line}" if line else "")
        raise UsageError(message, hint=f"files read are {', '.join(suffixes(formats))}")
    return found, left_out


def require_table(out: str) -> None:
    """Refuse what `write_table` could not write; called before the work."""
    path = Path(out)
    require_output("--out", path, (".csv", ".parquet"))
    if path.suffix.lower() == ".parquet" and find_spec("pyarrow") is None:
        hint = f"--out {shlex.quote(str(path.with_suffix('.csv')))}  # or pip install pyarrow"
        raise UsageError(f"--out {out}: needs the package pyarrow", hint=hint)


def write_table(out: str, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as CSV or Parquet: whole, or the file is as it was."""
    if out.lower().endswith(".csv"):
        text = io.StringIO(newline="")
        table = csv.DictWriter(text, columns)
        table.writeheader()
        table.writerows(rows)
        data = text.getvalue().encode(errors="surrogateescape")
    else:
        import pyarrow
        from pyarrow import parquet

        kinds = {"label": "int64", "version": "int64", "confidence": "float64"}
        schema = pyarrow.schema([(name, kinds.get(name, "string")) for name in columns])
        buffer = io.BytesIO()
        parquet.write_table(pyarrow.Table.from_pylist(list(rows), schema), buffer)
        data = buffer.getvalue()
    write_output("--out", Path(out), data)


def read_file(path: str) -> bytes:
    """A whole file; ImageError if it cannot be read or is too large for an image."""
    parts, size = [], 0
    try:
        # A file object costs as much as a small image's prediction, a Path more.
        descriptor = os.open(path, os.O_RDONLY)
        try:
            while part := os.read(descriptor, _READ):
                parts.append(part)
                size += len(part)
                if size > LARGEST_FILE:
                    raise ImageError(f"a file of more than {LARGEST_FILE:,} bytes is too large")
        finally:
            os.close(descriptor)
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror}") from error
    return b"".join(parts)
