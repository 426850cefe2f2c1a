"""Floor 10: jobs followed by many readers at the price of one.

In: a job and the number of the last event that a reader saw. Out: server-sent events, as
they happen, to the job's end. One task looks into the database for each job that is
followed; all its readers get what it finds.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI, Request
from starlette.concurrency import run_in_threadpool

from mindtrace.application.problems import Problem, log
from mindtrace.config.settings import Settings
from mindtrace.errors import MindtraceError
from mindtrace.jobs.job import END, Event
from mindtrace.service import jobs as service

_LOOK_EVERY = 0.3  # seconds
_AWAY = 5.0  # seconds between two looks at a database that is away
_KEEP_ALIVE = 15.0  # seconds after which a silent connection hears that we are there
_MOST_FOLLOWED = 256  # jobs at a time; each is a look into the database


def last_event_id(request: Request) -> int:
    """The number of the last event that a reader saw; 0 for none.

    Raises:
        Problem: 400, it is no number of ours.
    """
    text = request.headers.get("last-event-id", "").strip() or "0"
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise Problem(400, "Last-Event-ID must be a number that an event had")
    return int(text)


class Followed:
    """The jobs that are followed in this process."""

    def __init__(self, application: FastAPI, settings: Settings) -> None:
        self._application = application
        self._settings = settings
        self._watches: dict[str, _Watch] = {}

    @classmethod
    def of(cls, application: FastAPI, settings: Settings) -> Followed:
        """The one of an application, made with its first reader."""
        found = getattr(application.state, "followed", None)
        if found is None:
            found = application.state.followed = cls(application, settings)
        assert isinstance(found, cls)
        return found

    def demand_room(self, job_id: str) -> None:
        """Ask before an answer begins, while a refusal can still be one.

        Raises:
            Problem: 503, too many jobs are followed already.
        """
        if job_id not in self._watches and len(self._watches) >= _MOST_FOLLOWED:
            raise Problem(503, "too many jobs are followed already", headers={"Retry-After": "5"})

    async def stream(self, job_id: str, after: int) -> AsyncIterator[bytes]:
        """The events behind one, as they are sent."""
        watch = self._watches.setdefault(job_id, _Watch())
        watch.readers += 1
        if watch.task is None:
            watch.task = asyncio.create_task(self._watch(job_id, watch))
        try:
            # At once, so that a reader knows that it is heard.
            yield b"retry: 2000\n\n"
            async for text in self._read(watch, after):
                yield text
        finally:
            watch.readers -= 1
            if not watch.readers:
                self._watches.pop(job_id, None)
                watch.task.cancel()

    async def _read(self, watch: _Watch, after: int) -> AsyncIterator[bytes]:
        while not self._stopping():
            # Numbers are dense and begin with 1, so the one behind n stands at place n.
            found = watch.events[after:]
            for event in found:
                yield _told(event)
                after = event.id
                if event.name == END:
                    return
            if not found:
                if watch.over:
                    return
                if not await watch.news(_KEEP_ALIVE):
                    yield b": still there\n\n"

    async def _watch(self, job_id: str, watch: _Watch) -> None:
        """Look for news until the job has ended or nobody reads any more."""
        try:
            while not self._stopping():
                try:
                    seen = len(watch.events)
                    found = await run_in_threadpool(
                        service.job_events, self._settings, job_id, seen
                    )
                except MindtraceError as error:
                    # Readers are told nothing: the job goes on, and so will they.
                    log.warning("%s", error.message)
                    await asyncio.sleep(_AWAY)
                    continue
                if not found:
                    await asyncio.sleep(_LOOK_EVERY)
                    continue
                watch.add(found)
                if found[-1].name == END:
                    return
        finally:
            watch.end()

    def _stopping(self) -> bool:
        slot = getattr(self._application.state, "served", None)
        return bool(getattr(slot, "draining", False))


class _Watch:
    """What is known of one job, and who wants to know more.

    Attributes:
        events: all so far.
        readers: how many there are.
        task: looks for more.
        over: whether there will be no more.
    """

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.readers = 0
        self.task: asyncio.Task[None] | None = None
        self.over = False
        self._changed = asyncio.Event()

    def add(self, events: Any) -> None:
        """Tell all readers of more."""
        self.events.extend(events)
        self._wake()

    def end(self) -> None:
        """Tell all readers that there is no more."""
        self.over = True
        self._wake()

    async def news(self, patience: float) -> bool:
        """Wait for something new; False if there is nothing for so many seconds."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), patience)
            return True
        return False

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


def _told(event: Event) -> bytes:
    return f"id: {event.id}\nevent: {event.name}\ndata: {event.data}\n\n".encode()
