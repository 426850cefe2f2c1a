"""`/models/{name}/history`, `/promote` and `/rollback`: preconditions first, one writer wins."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import TypeAdapter
from tests.application.conftest import Serve
from tests.contract.conftest import unpack

from mindtrace.application import models
from mindtrace.application.schemas import HistoryItem, Page, PromotionItem
from mindtrace.config.settings import Settings, load_settings
from mindtrace.errors import NotFoundError
from mindtrace.registry.champions import HistoryEntry
from mindtrace.system import ChildResult

LINES = [
    HistoryEntry(1, "m", "2026-01-01T00:00:00.000+00:00", "ann", "promote", None, 1, "first", None),
    HistoryEntry(2, "m", "2026-01-02T00:00:00.000+00:00", "bob", "refuse", 1, 3, None, "HOLD"),
    HistoryEntry(3, "m", "2026-01-03T00:00:00.000+00:00", "bob", "promote", 1, 2, None, "PROMOTE"),
]


def said(
    document: dict[str, Any], error: str = "", message: str = "", hint: str | None = None
) -> ChildResult:
    """What a child leaves behind that printed this and ended with this error."""
    problem = {"error": {"type": error, "message": message, "hint": hint}}
    stderr = json.dumps(problem).encode() if error else b""
    return ChildResult(1 if error else 0, json.dumps(document).encode(), stderr)


class Child:
    """Stands in for the process that writes; remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, list[str]]] = []
        self.answer = said({"revision": 4})

    def change(self, _: Settings, verb: str, words: list[str]) -> ChildResult:
        self.asked.append((verb, words))
        return self.answer


@pytest.fixture
def child(monkeypatch: pytest.MonkeyPatch) -> Child:
    def history(
        _: Settings, name: str, *, limit: int, before: int | None = None
    ) -> list[HistoryEntry]:
        if name != "m":
            raise NotFoundError("model", name, ["m"])
        return LINES[: None if before is None else before - 1][-limit:]

    child = Child()
    monkeypatch.setattr(models.promotion, "history", history)
    monkeypatch.setattr(models.promotion, "change_in_child", child.change)
    return child


def post(client: httpx.Client, verb: str, body: Any, tag: str | None = '"3"') -> httpx.Response:
    headers = {} if tag is None else {"If-Match": tag}
    return client.post(f"/models/m/{verb}", json=body, headers=headers)


def test_history_comes_newest_first_with_the_revision_as_etag(
    client: httpx.Client, child: Child
) -> None:
    response = client.get("/models/m/history", params={"limit": 2})
    assert response.headers["etag"] == '"3"'
    page = response.json()
    Page[HistoryItem].model_validate(page)
    assert [item["revision"] for item in page["items"]] == [3, 2]
    assert page["items"][1]["from"] == 1
    rest = client.get("/models/m/history", params={"cursor": page["next_cursor"]}).json()
    assert [item["revision"] for item in rest["items"]] == [1]
    assert rest["next_cursor"] is None


@pytest.mark.parametrize("name", ["n", "..", "a~history", "-x", "x" * 65])
def test_names_that_name_nothing(client: httpx.Client, child: Child, name: str) -> None:
    given = {"json": {"version": 1}, "headers": {"If-Match": '"3"'}}
    assert client.post(f"/models/{name}/promote", **given).status_code == 404
    assert child.asked == []


@pytest.mark.parametrize("verb", ["promote", "rollback"])
@pytest.mark.parametrize(
    ("tag", "status"),
    [
        (None, 428),
        ("", 428),
        ("3", 400),
        ('"3', 400),
        ('"2"', 412),
        ('W/"3"', 412),
        ('"33"', 412),
        ('"3"', 200),
        ('"1" , "3"', 400),
        ("*, *", 400),
        ("*", 200),
    ],
)
def test_a_change_wants_the_revision_that_was_seen(
    client: httpx.Client, child: Child, verb: str, tag: str | None, status: int
) -> None:
    response = post(client, verb, {"version": 2} if verb == "promote" else {}, tag)
    assert response.status_code == status
    assert bool(child.asked) == (status == 200)
    if status == 412:
        assert response.headers["etag"] == '"3"'
    if status == 200:
        assert response.headers["etag"] == '"4"'
        assert ("--if-revision" in child.asked[0][1]) == (tag != "*")


def test_a_wish_becomes_the_words_of_the_verb(client: httpx.Client, child: Child) -> None:
    body = {"version": 2, "margin": 0.5, "dry_run": True, "force": True, "reason": "--so"}
    assert post(client, "promote", body).status_code == 200
    assert post(client, "rollback", {"reason": "odd"}).status_code == 200
    assert child.asked == [
        (
            "promote",
            [
                *("m/2", "--margin", "0.5", "--dry-run", "--force"),
                *("--reason=--so", "--if-revision", "3"),
            ],
        ),
        ("rollback", ["m", "--reason=odd", "--if-revision", "3"]),
    ]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"version": "2"},
        {"version": 0},
        {"version": 2, "margin": 2},
        {"version": 2, "reason": ""},
        {"version": 2, "reason": "a\u0000b"},
        {"version": 2, "reason": "a\nb"},
        {"version": 2, "who": "me"},
        [2],
    ],
)
def test_a_wish_that_does_not_fit_is_422(client: httpx.Client, child: Child, body: Any) -> None:
    assert post(client, "promote", body).status_code == 422
    assert child.asked == []


def test_no_is_409_with_the_verdict(client: httpx.Client, child: Child) -> None:
    child.answer = said({"verdict": "HOLD", "version": 2}, "VerdictError", "HOLD: cannot tell")
    response = post(client, "promote", {"version": 2})
    assert response.status_code == 409
    problem = response.json()
    assert (problem["type"], problem["detail"]) == (
        "urn:mindtrace:problem:verdict",
        "HOLD: cannot tell",
    )
    assert problem["errors"][0]["verdict"] == "HOLD"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        *(("ConflictError", 409), ("NotFoundError", 404), ("UsageError", 422)),
        *(("BundleError", 503), ("StoreError", 503)),
    ],
)
def test_what_the_child_says_becomes_a_status(
    client: httpx.Client, child: Child, error: str, status: int
) -> None:
    child.answer = said({}, error, "a reason of /its/own", "what to do")
    answer = post(client, "rollback", {})
    assert answer.status_code == status
    told = answer.json()["detail"], answer.json().get("hint")
    assert (told == ("a reason of /its/own", "what to do")) == (status < 500)


def test_somebody_was_quicker(
    client: httpx.Client, child: Child, monkeypatch: pytest.MonkeyPatch
) -> None:
    def grows(*_: Any) -> ChildResult:
        monkeypatch.setattr(
            models.promotion, "history", lambda *_, **__: [replace(LINES[2], revision=4)]
        )
        return said({}, "ConflictError", "somebody was quicker")

    monkeypatch.setattr(models.promotion, "change_in_child", grows)
    response = post(client, "rollback", {})
    assert (response.status_code, response.headers["etag"]) == (412, '"4"')


@pytest.mark.slow
def test_a_real_child_promotes_and_rolls_back(tmp_path: Path, bundle: Path, serve: Serve) -> None:
    """On the registry of an earlier release: of its three versions 1 is champion, 3 is worse."""
    root = unpack(tmp_path).root
    settings = load_settings(sets=[f"DIR_PATHS.ROOT={root}"], environ={})
    with serve(settings, str(bundle)) as real:
        real.timeout = httpx.Timeout(120)

        def change(verb: str, body: Any, tag: str) -> httpx.Response:
            url = f"/models/digits/{verb}"
            return real.post(url, json=body, headers={"If-Match": tag})

        assert real.get("/models/digits/history").headers["etag"] == '"4"'
        absent = change("promote", {"version": 9}, '"4"')
        assert (absent.status_code, "digits/3" in absent.json()["detail"]) == (404, True)
        refused = change("promote", {"version": 3}, '"4"')
        assert refused.status_code == 409
        assert refused.json()["errors"][0]["verdict"] == "REJECT"
        stale = change("promote", {"version": 3}, '"4"')
        assert stale.status_code == 412, "the refusal is a revision of its own"
        body = {"version": 3, "force": True, "reason": "over HTTP"}
        done = change("promote", body, stale.headers["etag"])
        assert (done.status_code, done.headers["etag"]) == (200, '"6"')
        TypeAdapter(PromotionItem).validate_json(done.content, strict=True)
        back = change("rollback", {}, '"6"')
        assert (back.status_code, back.json()["to"]) == (200, 1)
        assert change("rollback", {}, '"7"').status_code == 409
        items = real.get("/models/digits/history").json()["items"]
    assert [item["action"] for item in items[:3]] == ["rollback", "promote", "refuse"]
    assert json.dumps(items).count("over HTTP") == 1
