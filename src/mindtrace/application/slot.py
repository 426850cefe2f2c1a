"""Floor 10: the one place where the served model stands.

In: settings and, if the user named one, a model reference. Out: a `LoadedModel`, whose
golden images have passed, or a 503 that says what to do. A loaded model never changes;
another one takes its place by one assignment, so a request that holds the old one ends
with the old one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from starlette.concurrency import run_in_threadpool

from mindtrace.application.problems import Problem, log
from mindtrace.core.settings import Settings
from mindtrace.errors import MindtraceError
from mindtrace.service.predict import LoadedModel
from mindtrace.service.serving import load_or_wait

# Seconds between two looks for a first version; a look is two short reads of the store.
LOOK_EVERY = 1.0

Load = Callable[[Settings, str | None], LoadedModel | None]


class ModelSlot:
    """Holds the model that answers, and takes the first champion that appears.

    Attributes:
        model: what answers now, or None while there is nothing to serve.
    """

    def __init__(
        self,
        settings: Settings,
        model_ref: str | None = None,
        *,
        load: Load = load_or_wait,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.model: LoadedModel | None = None
        self._settings = settings
        self._ref = model_ref
        self._load = load
        self._clock = clock
        self._looked = float("-inf")
        self._looking = asyncio.Lock()

    def fill(self) -> None:
        """Load the model at start, if it is there.

        Raises:
            MindtraceError: see `load_or_wait`.
        """
        self.model = self._load(self._settings, self._ref)

    async def current(self) -> LoadedModel:
        """The model that answers.

        Raises:
            Problem: 503, there is none yet.
        """
        if self.model is None:
            await self._look()
        if self.model is None:
            raise Problem(
                503,
                "there is no version to serve yet",
                hint="train one: mindtrace train, or POST /retrain; the server takes it by itself",
                headers={"Retry-After": "5"},
                kind="no-version",
            )
        return self.model

    async def _look(self) -> None:
        async with self._looking:
            if self.model is not None or self._clock() - self._looked < LOOK_EVERY:
                return
            self._looked = self._clock()
            try:
                self.model = await run_in_threadpool(self._load, self._settings, self._ref)
            except MindtraceError as error:
                log.error("the first version cannot be served: %s", error.message)
            if self.model is not None:
                log.info("serving %s version %s", self.model.model_name, self.model.version)
