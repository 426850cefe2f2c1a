"""The served model: loaded, checked by its golden images, replaced when the champion changes."""

from __future__ import annotations

import base64
import json
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np

from mindtrace.application.problems import Problem, log
from mindtrace.bundle.bundle import Bundle
from mindtrace.bundle.predictions import GOLDEN_TOLERANCE, largest_difference
from mindtrace.config.settings import Settings
from mindtrace.errors import BundleError, MindtraceError, StoreError, listed
from mindtrace.registry.names import CHAMPION
from mindtrace.registry.reader import ModelVersion
from mindtrace.service import following
from mindtrace.service.predict import LoadedModel

POLL_EVERY = 0.5  # seconds
_PATIENCE = 2.0  # seconds that a server waits at its end for a poll that is running
_LATER = {"Retry-After": "5"}
# Tells versions apart, also those of a registry that was deleted and made anew.
Identity = tuple[str | None, int | None, str | None]  # name, version, digest of the bundle
# Detail and hint of the problem while there is no model, by its kind.
_TROUBLES: dict[str, tuple[str, str | None]] = {
    "no-version": (
        "there is no version to serve yet",
        "mindtrace train  # or POST /retrain; the server takes it by itself",
    ),
    "refused": (
        "the champion cannot be served; the server's log says why",
        "promote another version, or roll back",
    ),
    "registry": ("the champion cannot be looked up; the server's log says why", None),
}


@dataclass(eq=False)
class ServedModel:
    """Holds the model that answers."""

    settings: Settings
    ref: str | None = None
    allow_label_change: bool = False
    model: LoadedModel | None = None  # None while there is nothing to serve
    draining: bool = False  # the server stops: not ready, but open requests are answered
    away: bool = False  # the registry does not answer
    trouble: str = "no-version"  # why there is no model: a key of `_TROUBLES`

    def __post_init__(self) -> None:
        self.swaps = {"ok": 0, "refused": 0, "failed": 0}

    def load(self) -> None:
        """Load the model at start, if it is there."""
        try:
            opened = following.open_or_wait(self.settings, self.ref)
        except StoreError as error:
            opened = following.open_remembered(self.settings, self.ref)
            if opened is None:
                raise
            name, self.away = f"{opened[0].model_name}/{opened[0].version}", True
            log.error("%s; serving %s, the last that it named, until it answers", error, name)
        if opened is not None:
            if opened[0].model_name == self.ref:  # it may be a number
                self.ref = f"{self.ref}@{CHAMPION}"
            self.replace(*opened)

    def replace(self, model: LoadedModel, bundle: Bundle) -> None:
        """Serve this model from now on, unless its classes or golden images are wrong."""
        if self.model is not None and not self.allow_label_change:
            new, served = model.class_names, self.model.class_names
            if new != served:
                name = f"of {model.model_name}/{model.version}"
                reason = f"its classes are {listed(new)}, those served are {listed(served)}"
                hint = "mindtrace serve --allow-label-change  # if no client relies on them"
                raise BundleError(name, reason, hint=hint)
        model.predictor.formats = self.settings.serve.formats
        check_golden_images(model, bundle, self.settings.serve.max_pixels)
        self.model = model

    def require_model(self) -> LoadedModel:
        """The model that answers; else 503 with what to do."""
        if self.model is None:
            detail, hint = _TROUBLES[self.trouble]
            raise Problem(503, detail, hint=hint, headers=_LATER, kind=self.trouble)
        return self.model

    def require_ready(self) -> LoadedModel:
        """The model that answers, unless the server is stopping; else 503."""
        if self.draining:
            later = {"Retry-After": "1"}
            raise Problem(503, "the server is stopping", headers=later, kind="draining")
        return self.require_model()


def check_golden_images(model: LoadedModel, bundle: Bundle, max_pixels: int) -> None:
    """Send a model its golden images as a client would; this also warms it up."""
    # Here and not above: that module knows this one.
    from mindtrace.application.inference import answer_json

    def predict(image: bytes) -> np.ndarray[Any, Any]:
        body = json.dumps({"image": base64.b64encode(image).decode()}).encode()
        fields = json.loads(answer_json(model, body, max_pixels))
        return np.asarray(fields["probabilities"], np.float32)

    try:
        difference = largest_difference(bundle.golden, predict)
    except (MindtraceError, Problem) as error:
        raise BundleError(bundle.folder, f"a golden image is refused: {error}") from error
    if difference > GOLDEN_TOLERANCE:
        allowed = f"allowed is {GOLDEN_TOLERANCE:.0e}"
        reason = f"its golden images are answered with a difference of {difference:.2g}, {allowed}"
        raise BundleError(bundle.folder, reason)


@dataclass(eq=False)
class ChampionPoller:
    """Replaces the served model when its reference means another version, if that one is sound."""

    served: ServedModel

    def __post_init__(self) -> None:
        # What was wanted and could not be served, and whether it is tried again with each poll.
        self._failed: tuple[Identity, bool] | None = None
        self._complained = self.served.away
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to poll, if what is served can change, or until the registry answers."""
        if following.is_moving(self.served.ref) or self.served.away:
            self._thread = threading.Thread(target=self._run, name="champion", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Stop; a poll that still waits for a store is abandoned."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(_PATIENCE)

    def _run(self) -> None:
        while not self._stopping.wait(POLL_EVERY):
            if self.served.draining or not (
                following.is_moving(self.served.ref) or self.served.away
            ):
                return
            try:
                self.poll()
            except Exception:  # noqa: BLE001 - whatever fails here, requests are answered
                if not self._complained:
                    log.exception("the champion cannot be looked up")
                self._complained = True

    def poll(self) -> None:
        """Look once, and replace the model if another one is meant."""
        model = self.served.model
        served = model and (model.model_name, model.version, model.digest)
        try:
            name = None if model is None else model.model_name
            row = following.pointed_at(self.served.settings, self.served.ref, name)
        except MindtraceError as error:
            self.served.away = isinstance(error, StoreError)
            if not self._complained:
                self._complained = True
                log.error("the champion cannot be looked up: %s", error.message)
                if model is None:
                    self.served.trouble = "registry"
            return
        if self._complained:
            log.info("the champion can be looked up again")
            self._complained = self.served.away = False
            if self.served.trouble == "registry":
                self.served.trouble = "no-version"
        if row is None:
            return
        wanted = (row.name, row.version, row.own_tags.get("bundle_digest"))
        if wanted == served:
            self._failed = None
        elif self._failed != (wanted, False):
            self._replace(row, wanted)

    def _replace(self, row: ModelVersion, wanted: Identity) -> None:
        name = f"{row.name}/{row.version}"
        try:
            self.served.replace(*following.open_row(self.served.settings, row, self.served.ref))
        except Exception as error:  # noqa: BLE001 - whatever fails here, the served model stays
            again = isinstance(error, StoreError | OSError)
            if self._failed == (wanted, again):
                return
            self._failed = (wanted, again)
            self.served.swaps["failed" if again else "refused"] += 1
            if self.served.model is None and not again:
                self.served.trouble = "refused"
            hint = getattr(error, "hint", None)
            log.error(
                "%s %s: %s%s",
                *(name, "cannot be fetched yet" if again else "is refused"),
                *(error, f"; {hint}" if hint else ""),
                exc_info=None if isinstance(error, MindtraceError | OSError) else error,
            )
        else:
            self._failed = None
            self.served.swaps["ok"] += 1
            log.info("serving %s", name)
