"""Floor 10: follows the champion: a promotion anywhere becomes the model that answers.

In: the registry, looked at twice a second from a thread of its own. Out: another model
in the slot. A version that is broken is refused and the old one goes on; a store that is
away is asked again; either is said once.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from mindtrace.application.problems import Problem, log
from mindtrace.application.slot import ModelSlot
from mindtrace.config.settings import Settings
from mindtrace.errors import MindtraceError, StoreError
from mindtrace.service.following import Identity, find_row, is_moving, open_row, pointed_at

if TYPE_CHECKING:
    from mindtrace.registry.reader import ModelVersion

EVERY = 0.5  # seconds between two looks
# So many looks ask for the version's number only; then one asks for its digest too, which
# differs where a registry was deleted and made anew.
_THOROUGH = 8
# Seconds that the end of the server waits for a look that is under way.
_PATIENCE = 2.0


class Watch:
    """Keeps a slot filled with what its reference means.

    A version or a folder that was named itself is not watched.
    """

    def __init__(self, slot: ModelSlot, settings: Settings) -> None:
        """Prepare a watch; nothing is looked at yet.

        Args:
            slot: whose model to change.
            settings: of the registry.
        """
        self._slot = slot
        self._settings = settings
        self._looks = 0
        self._refused: Identity | None = None
        self._failed: Identity | None = None
        self._complained = False
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to look, if what is served can change."""
        if is_moving(self._slot.ref):
            self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Look no more; a look that waits for a store in vain is left behind."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(_PATIENCE)

    def look(self) -> None:
        """Look once, and change the model if another one is meant."""
        model = self._slot.model
        served = None if model is None else Identity.of(model)
        try:
            row = self._wanted(served)
        except MindtraceError as error:
            self._complain(error.message)
            return
        if self._complained:
            log.info("the champion can be looked up again")
            self._complained = False
            if self._slot.trouble is _unreadable:
                self._slot.trouble = None
        if row is None:
            return
        wanted = Identity.of_row(row)
        if wanted == served:
            self._refused = self._failed = None
        elif wanted != self._refused:
            self._change(row, wanted)

    def _run(self) -> None:
        while not self._stopping.wait(EVERY):
            if self._slot.draining:
                return
            try:
                self.look()
            except Exception:  # noqa: BLE001 - whatever it is, requests are answered
                if not self._complained:
                    log.exception("the champion cannot be looked up")
                self._complained = True

    def _wanted(self, served: Identity | None) -> ModelVersion | None:
        """What the reference means; None where a quick look finds it served.

        Raises:
            NotFoundError: it means nothing any more.
            StoreError: the registry cannot be read.
        """
        self._looks += 1
        name = None if served is None else served.model_name
        found = pointed_at(self._settings, self._slot.ref, name)
        if found is None:
            return None
        same = served is not None and found == (served.model_name, served.version)
        if same and self._looks % _THOROUGH:
            self._refused = self._failed = None
            return None
        return find_row(self._settings, *found)

    def _change(self, row: ModelVersion, wanted: Identity) -> None:
        name = f"{row.name}/{row.version}"
        try:
            self._slot.put(open_row(self._settings, row))
        except (StoreError, OSError) as error:
            # Tried again with the next look.
            if wanted != self._failed:
                self._failed = wanted
                self._count("failed")
                log.error("%s cannot be fetched yet: %s", name, error)
        except MindtraceError as error:
            self._refuse(wanted)
            hint = f"; {error.hint}" if error.hint else ""
            log.error("%s is refused: %s%s", name, error.message, hint)
        except Exception:  # noqa: BLE001 - the model that answers goes on whatever this one is
            self._refuse(wanted)
            log.exception("%s is refused", name)
        else:
            self._refused = self._failed = None
            self._count("ok")
            log.info("serving %s", name)

    def _refuse(self, wanted: Identity) -> None:
        """Not tried again until the reference means something else."""
        self._refused = wanted
        self._count("refused")
        if self._slot.model is None:
            self._slot.trouble = _refused

    def _complain(self, message: str) -> None:
        if not self._complained:
            self._complained = True
            log.error("the champion cannot be looked up: %s", message)
            if self._slot.model is None:
                self._slot.trouble = _unreadable

    def _count(self, result: str) -> None:
        self._slot.swaps[result] += 1


def _refused() -> Problem:
    return Problem(
        503,
        "the champion cannot be served; the server's log says why",
        hint="promote another version, or roll back",
        headers={"Retry-After": "5"},
        kind="refused",
    )


def _unreadable() -> Problem:
    return Problem(
        503,
        "the champion cannot be looked up; the server's log says why",
        headers={"Retry-After": "5"},
        kind="registry",
    )
