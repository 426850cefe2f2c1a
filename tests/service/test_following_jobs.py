"""Jobs that are followed through a server's or a database's bad moments."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from mindtrace.config.settings import load_settings
from mindtrace.errors import ConflictError, StoreError
from mindtrace.jobs.job import Event
from mindtrace.jobs.queue import JobQueue
from mindtrace.service.jobs import LocalJobs, RefusedError, RemoteJobs, Stream
from mindtrace.service.remote import Reply
from mindtrace.service.retrain_request import RetrainRequest

AWAY = RefusedError(Reply(503, {"detail": "jobs database: away"}))
JOB = "20250131T235959123456-0a1b2c3d"


class Server(Stream):
    """A link that says what it is told to.

    Attributes:
        asked: the headers of every request.
        says: what each look at the events raises, or its events.
    """

    url = "http://there"

    def __init__(self, says: list[Any]) -> None:
        self.asked: list[Mapping[str, str]] = []
        self.says = says

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        self.asked.append(headers or {})
        return Reply(202, {"job_id": JOB})

    def events(self, path: str, after: int) -> Iterator[tuple[int, str, dict[str, Any]]]:
        said = self.says.pop(0)
        if isinstance(said, Exception):
            raise said
        yield from said


def test_each_submission_has_a_key_of_its_own() -> None:
    """A connection that breaks is tried again, and the server must know it for the same."""
    server = Server([])
    remote = RemoteJobs(server)
    for key in (None, None, "mine"):
        remote.submit(RetrainRequest(), idempotency_key=key)
    first, second, third = (headers["Idempotency-Key"] for headers in server.asked)
    assert len({first, second, third}) == 3
    assert third == "mine"


def test_a_server_that_is_busy_for_a_while_is_asked_again() -> None:
    server = Server([AWAY, [(1, "state", {"n": 1})], AWAY, [(2, "end", {"n": 2})]])
    remote = RemoteJobs(server, sleep=lambda _: None)
    assert list(remote.follow(JOB)) == [("state", {"n": 1}), ("end", {"n": 2})]


def test_a_server_that_stays_busy_is_told_of() -> None:
    remote = RemoteJobs(Server([AWAY] * 100), sleep=lambda _: None)
    with pytest.raises(ConflictError, match="away"):
        list(remote.follow(JOB))


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[Any]], None]:
    """Say what each look into the database finds, or raises."""

    def say(says: list[Any]) -> None:
        def look(*_: object) -> list[Event]:
            said = says.pop(0)
            if isinstance(said, Exception):
                raise said
            return [Event(number, name, {}) for number, name in said]

        monkeypatch.setattr(JobQueue, "events", look)

    return say


def test_a_database_that_is_away_for_a_while_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, looks: Callable[[list[Any]], None]
) -> None:
    settings = load_settings(sets=[f"DIR_PATHS.ROOT={tmp_path}"], environ={})
    local = LocalJobs(settings, sleep=lambda _: None)
    monkeypatch.setattr(local._sidecar, "start", lambda: None)
    looks([StoreError("away"), [(1, "state")], StoreError("away"), [], [(2, "end")]])
    assert [name for name, _ in local.follow(JOB)] == ["state", "end"]
    looks([StoreError("away")] * 1000)
    with pytest.raises(StoreError):
        list(local.follow(JOB))
