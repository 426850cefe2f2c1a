"""Floor 10: the one place where the served model stands.

In: what was opened, and passes its golden images here, by way of the very code that
answers requests. Out: a `LoadedModel`, or a 503 that says what to do. A loaded model
never changes; another one takes its place by one assignment, so a request that holds
the old one ends with the old one, which is freed with the last of them.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

from mindtrace.application import bodies
from mindtrace.application.problems import Problem
from mindtrace.bundle.predictions import GOLDEN_TOLERANCE, largest_difference
from mindtrace.config.settings import Settings
from mindtrace.errors import BundleError, MindtraceError, listed
from mindtrace.service.following import Opened, open_or_wait
from mindtrace.service.predict import LoadedModel

Open = Callable[[Settings, str | None], Opened | None]


class ModelSlot:
    """Holds the model that answers.

    Attributes:
        model: what answers now, or None while there is nothing to serve.
        draining: whether the server has been told to stop.
        trouble: makes the answer while there is no model, where more is wrong than that none
            was trained.
        swaps: how many changes of the model there were, by result.
    """

    def __init__(
        self,
        settings: Settings,
        model_ref: str | None = None,
        *,
        allow_label_change: bool = False,
        open: Open = open_or_wait,
    ) -> None:
        """Prepare an empty slot.

        Args:
            settings: of the server.
            model_ref: what to serve; None is the champion.
            allow_label_change: whether a model may follow one with other classes.
            open: finds and opens what a reference means.
        """
        self.model: LoadedModel | None = None
        self.draining = False
        self.trouble: Callable[[], Problem] | None = None
        self.swaps = {"ok": 0, "refused": 0, "failed": 0}
        self.ref = model_ref
        self._settings = settings
        self._allow_label_change = allow_label_change
        self._open = open

    def fill(self) -> None:
        """Load the model at start, if it is there.

        Raises:
            MindtraceError: see `open_or_wait`; a golden image is answered otherwise.
        """
        opened = self._open(self._settings, self.ref)
        if opened is not None:
            self.put(opened)

    def put(self, opened: Opened) -> None:
        """Let a model answer from now on.

        Raises:
            BundleError: its classes are not those of the model before it, or a golden
                image is answered otherwise than in its training.
        """
        before = self.model
        if before is not None and not self._allow_label_change:
            _demand_classes(before, opened.model)
        check_answers(opened, self._settings.serve.max_pixels)
        self.model, self.trouble = opened.model, None

    async def current(self) -> LoadedModel:
        """The model that answers.

        Raises:
            Problem: 503, there is none yet.
        """
        return self.model or self.nothing()

    def demand_ready(self) -> LoadedModel:
        """The model that answers, if the server means to stay.

        Raises:
            Problem: 503, with the reason.
        """
        if self.draining:
            raise Problem(
                503, "the server is stopping", headers={"Retry-After": "1"}, kind="draining"
            )
        return self.model or self.nothing()

    def nothing(self) -> NoReturn:
        """Say why there is no model.

        Raises:
            Problem: 503, with what to do.
        """
        raise (self.trouble or _nothing_yet)()

    def drain(self) -> None:
        """Say that the server stops: no longer ready, though it still answers."""
        self.draining = True


def check_answers(opened: Opened, max_pixels: int) -> None:
    """Ask a model its golden images as a client would; warms it up as well.

    Raises:
        BundleError: an answer differs from the one that was recorded in training.
    """

    def predict(image: bytes) -> np.ndarray[Any, Any]:
        body = json.dumps({"image": base64.b64encode(image).decode()}).encode()
        return _answered(opened.model, body, max_pixels)

    try:
        difference = largest_difference(opened.golden, predict)
    except (MindtraceError, Problem) as error:
        raise BundleError(opened.folder, f"a golden image is refused: {error}") from error
    if difference > GOLDEN_TOLERANCE:
        raise BundleError(
            opened.folder,
            f"its golden images are answered with a difference of {difference:.2g}, "
            f"allowed is {GOLDEN_TOLERANCE:.0e}",
        )


def _answered(model: LoadedModel, body: bytes, max_pixels: int) -> np.ndarray[Any, Any]:
    # Here and not above: both rooms know the slot.
    from mindtrace.application import front, inference

    answer = front.answer_bytes(model, body, "golden")
    if answer is None:
        fields = inference.answer(model, bodies.from_json(body), max_pixels)
    else:
        fields = json.loads(answer)
    return np.asarray(fields["probabilities"], np.float32)


def _demand_classes(before: LoadedModel, after: LoadedModel) -> None:
    old, new = before.predictor.model_config.class_names, after.predictor.model_config.class_names
    if old != new:
        raise BundleError(
            f"of {after.model_name}/{after.version}",
            f"its classes are {listed(new)}, those that are served are {listed(old)}",
            hint="clients may rely on them; mindtrace serve --allow-label-change",
        )


def _nothing_yet() -> Problem:
    return Problem(
        503,
        "there is no version to serve yet",
        hint="train one: mindtrace train, or POST /retrain; the server takes it by itself",
        headers={"Retry-After": "5"},
        kind="no-version",
    )
