"""Jobs that are followed through a server's or a database's bad moments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from urllib3.exceptions import ProtocolError

from mindtrace.config.settings import load_settings
from mindtrace.errors import ConflictError, MindtraceError, NotFoundError, StoreError
from mindtrace.jobs.job import Event
from mindtrace.jobs.queue import JobQueue
from mindtrace.service.jobs import LocalJobs, RemoteJobs
from mindtrace.service.retrain_request import RetrainRequest

JOB = "20250131T235959123456-0a1b2c3d"


@dataclass
class Answer:
    """An HTTP answer."""

    status: int
    body: bytes

    @property
    def data(self) -> bytes:
        return self.body

    def close(self) -> None:
        pass

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.body.splitlines(keepends=True))


AWAY = Answer(503, b'{"detail": "jobs database: away"}')
RESTARTS = Answer(503, b"<html>a proxy before a server that restarts</html>")
FIRST = Answer(200, b'id: 1\nevent: state\ndata: {"n": 1}\n\n')
LAST = Answer(200, b'id: 2\nevent: end\ndata: {"n": 2}\n\n')


class Server:
    """A connection to a server that answers as it is told to."""

    def __init__(self, answers: list[Any]) -> None:
        self.asked: list[Mapping[str, str]] = []  # the headers of every request
        self.headers: Mapping[str, str] = {}
        self.answers = answers  # or what each request raises

    def request(self, *_: Any, headers: Mapping[str, str], **__: Any) -> Answer:
        self.asked.append(headers)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer  # type: ignore[no-any-return]


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mindtrace.service.jobs._POLL", 0.0)
    monkeypatch.setattr("mindtrace.service.jobs._PAUSE", 0.0)


def remote_jobs(server: Server) -> RemoteJobs:
    remote = RemoteJobs("http://there")
    remote._pool = server  # type: ignore[assignment]
    return remote


def test_each_submission_has_a_key_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that breaks is tried again, and the server must know it for the same."""
    keys = []
    remote = remote_jobs(Server([]))

    def ask(method: str, path: str, json: Any, headers: Mapping[str, str]) -> Any:
        keys.append(headers["Idempotency-Key"])
        return 202, {"job_id": JOB}

    monkeypatch.setattr(remote, "ask", ask)
    for key in (None, None, "mine"):
        remote.submit(RetrainRequest(), idempotency_key=key)
    assert len(set(keys)) == 3
    assert keys[-1] == "mine"


@pytest.mark.parametrize("moment", [AWAY, RESTARTS, ProtocolError()])
def test_a_server_that_is_busy_for_a_while_is_asked_again(moment: Any) -> None:
    server = Server([moment, FIRST, moment, LAST])
    assert list(remote_jobs(server).follow(JOB)) == [("state", {"n": 1}), ("end", {"n": 2})]
    assert [headers.get("Last-Event-ID") for headers in server.asked] == [None, None, "1", "1"]


@pytest.mark.parametrize(
    ("moment", "kind", "message"),
    [(AWAY, ConflictError, "away"), (RESTARTS, MindtraceError, "does not answer: 503")],
)
def test_a_server_that_stays_busy_is_told_of(
    moment: Any, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        list(remote_jobs(Server([moment] * 100)).follow(JOB))


def test_a_job_that_the_server_does_not_have_is_not_asked_for_again() -> None:
    server = Server([Answer(404, b'{"detail": "no job"}'), FIRST, LAST])
    with pytest.raises(NotFoundError, match="no job"):
        list(remote_jobs(server).follow(JOB))
    assert len(server.asked) == 1


def test_a_database_that_is_away_for_a_while_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load_settings(sets=[f"DIR_PATHS.ROOT={tmp_path}"], environ={})
    local = LocalJobs(settings)
    monkeypatch.setattr(local._sidecar, "start", lambda: None)
    first, last = Event(1, "state", {}), Event(2, "end", {})
    answers: list[Any] = [StoreError("away"), [first], StoreError("away"), [], [last]]
    queue = Mock(side_effect=answers)
    monkeypatch.setattr(JobQueue, "events", queue)
    assert [name for name, _ in local.follow(JOB)] == ["state", "end"]
    queue.side_effect = StoreError("away")
    with pytest.raises(StoreError):
        list(local.follow(JOB))
