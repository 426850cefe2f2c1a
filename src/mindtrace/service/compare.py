"""The verb compare: two references in, their difference on one test set out."""

from __future__ import annotations

import dataclasses
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mindtrace.config.settings import Settings, load_settings
from mindtrace.errors import DataError, MindtraceError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from mindtrace.registry.compare import Comparison, Side
    from mindtrace.registry.reference import Located

MARGIN = 0.01
_SIDE = 96  # pixels, of an image on the page


@dataclass(frozen=True)
class Flip:
    """An image that one of two versions gets right and the other does not.

    Attributes:
        digest: of the image, hexadecimal.
        class_name: what it is.
        answer_a: what a says.
        answer_b: what b says.
        confidence_a: how sure a is.
        confidence_b: how sure b is.
        gained: whether b is the one that is right.
        png: the image, small; None where it cannot be had.
    """

    digest: str
    class_name: str
    answer_a: str
    answer_b: str
    confidence_a: float
    confidence_b: float
    gained: bool
    png: bytes | None


def compare(settings: Settings, a: str, b: str, *, margin: float = MARGIN) -> Comparison:
    """Set version b beside version a, on the test set that both answered.

    Args:
        settings: which registry.
        a: a reference; the champion, in the gate's words.
        b: a reference; a bare number is a version of a's model.
        margin: of the gate.

    Raises:
        NotFoundError: no such version.
        BundleError: a bundle is not what was registered.
        UsageError: they were tested on different images.
        StoreError: the registry cannot be read.
    """
    from mindtrace.registry import compare as registry

    return registry.compare(*_sides(settings, a, b)[0], margin)


def compare_page(
    settings: Settings, a: str, b: str, *, margin: float = MARGIN
) -> tuple[Comparison, str]:
    """The same, and a page of it with the images that changed: HTML, whole in itself.

    The images are read as the configuration of b says; where they cannot be had the page
    says so.

    Raises:
        MindtraceError: what `compare` raises.
    """
    from mindtrace.registry import compare as registry
    from mindtrace.service.compare_page import page

    sides, located = _sides(settings, a, b)
    comparison = registry.compare(*sides, margin)
    images: Mapping[str, bytes] = {}
    missing = None
    wanted = _changed(*sides)
    if wanted:
        try:
            images = _images(settings, located, {flip.digest for flip in wanted})
        except MindtraceError as error:
            missing = error.message
    flips = [dataclasses.replace(flip, png=images.get(flip.digest)) for flip in wanted]
    return comparison, page(comparison, flips, missing)


def settings_of(settings: Settings, config: str) -> Settings:
    """The configuration of a bundle, in the folders and with the registry of `settings`.

    Raises:
        ConfigError: this mindtrace does not read it.
    """
    made = load_settings(text=config, environ={}, cwd=settings.dirs.root)
    data = made.data.model_copy(update={"mirror": settings.data.mirror})
    return dataclasses.replace(made, dirs=settings.dirs, registry=settings.registry, data=data)


def _sides(settings: Settings, a: str, b: str) -> tuple[tuple[Side, Side], Located]:
    from mindtrace.registry.evaluations import read_sides
    from mindtrace.registry.reader import Reader, open_reader
    from mindtrace.registry.reference import (
        Located,
        Reference,
        find,
        locate_version,
        parse_reference,
    )

    readers: list[Reader] = []

    def located(reference: Reference) -> Located:
        if reference.folder is not None:
            if not reference.folder.is_dir():
                raise NotFoundError("bundle folder", str(reference.folder))
            return Located(reference.folder, None, None)
        readers[:] = readers or [open_reader(settings)]
        return locate_version(settings, readers[0], find(settings, readers[0], reference))

    first = located(parse_reference(a))
    second = parse_reference(b)
    if second.folder is None and second.name is None and first.row is not None:
        second = dataclasses.replace(second, name=first.row.name)
    other = located(second)
    return read_sides(readers[0] if readers else None, first, other), other


def _changed(a: Side, b: Side) -> list[Flip]:
    """The images that flipped: those that b lost first, the surest of its answers first."""
    flips = []
    for index in (a.right != b.right).nonzero()[0].tolist():
        answer_a, answer_b = int(a.answers[index]), int(b.answers[index])
        flips.append(
            Flip(
                digest=a.ledger.digests[index].tobytes().hex(),
                class_name=a.class_names[int(a.ledger.labels[index])],
                answer_a=a.class_names[answer_a],
                answer_b=a.class_names[answer_b],
                confidence_a=float(a.ledger.probabilities[index, answer_a]),
                confidence_b=float(b.ledger.probabilities[index, answer_b]),
                gained=bool(b.right[index]),
                png=None,
            )
        )
    return sorted(flips, key=lambda flip: (flip.gained, -flip.confidence_b))


def _images(settings: Settings, located: Located, wanted: set[str]) -> dict[str, bytes]:
    """Small PNGs of test images by digest.

    Raises:
        MindtraceError: the images cannot be had.
    """
    from mindtrace.data.build import build_data
    from mindtrace.models import input_requirements
    from mindtrace.training.export import pixels

    config = (located.folder / "config.ini").read_text(encoding="utf-8")
    made = settings_of(settings, config)
    split = build_data(made, input_requirements(made.model)).split("test")
    found = {}
    for image, digest in zip(split.images, split.digests(), strict=True):
        if digest.hex() in wanted:
            found[digest.hex()] = _thumbnail(pixels(image))
    if not found:
        raise DataError("the images of this configuration are not those of the test set")
    return found


def _thumbnail(pixels: NDArray[np.uint8]) -> bytes:
    from PIL import Image

    image: Any = Image.fromarray(pixels)
    image.thumbnail((_SIDE, _SIDE))
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
