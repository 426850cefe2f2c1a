"""The body of a retraining request, JSON or INI text, as a `RetrainRequest`, not checked yet."""

from __future__ import annotations

from typing import Any

from fastapi import Request
from starlette.concurrency import run_in_threadpool

from mindtrace.application import bodies
from mindtrace.application.problems import Problem
from mindtrace.service.retrain_request import RetrainRequest

ACCEPTED = ("application/json", "text/x-ini")


async def read_request(request: Request) -> RetrainRequest:
    """What a body asks for; Problem: 400 not JSON, 415 another type, 422 no configuration."""
    kind = bodies.require_type(request, ACCEPTED)
    body = await request.body()
    # In another thread: thousands of faults take longer than other requests should wait.
    return await run_in_threadpool(_request, kind, body)


def _request(kind: str, body: bytes) -> RetrainRequest:
    if kind == "application/json":
        return _from_fields(bodies.parse_object(body))
    return RetrainRequest.from_ini(_utf8(body))


def _from_fields(fields: dict[str, Any]) -> RetrainRequest:
    base = fields.pop("base", None)
    if base is not None and not isinstance(base, str):
        raise Problem(422, "'base' must be a text: NAME, NAME@ALIAS or NAME/VERSION")
    options = {name: fields.pop(name, False) for name in ("warm_start", "force")}
    for name, flag in options.items():
        if not isinstance(flag, bool):
            raise Problem(422, f"'{name}' must be true or false")
    if "config" not in fields:
        return RetrainRequest.from_mapping(fields, base=base, **options)
    if len(fields) > 1 or not isinstance(fields["config"], str):
        raise Problem(422, "'config' must be INI text, and then no section may be beside it")
    return RetrainRequest.from_ini(fields["config"], base=base, **options)


def _utf8(body: bytes) -> str:
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Problem(422, "the configuration is not UTF-8 text") from error
    if "\0" in text:
        raise Problem(422, "the configuration is not a text")
    return text
