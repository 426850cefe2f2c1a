"""Floor 10: from the body of a request to what a client asks of a training.

In: JSON, INI text or a form with an INI file. Out: an `Order`, whose keys nobody has
looked at yet; the service knows which of them a request may set.
"""

from __future__ import annotations

from typing import Any

from fastapi import Request
from starlette.concurrency import run_in_threadpool

from mindtrace.application import bodies
from mindtrace.application.problems import Problem
from mindtrace.application.security import media_type
from mindtrace.service.retrain import Order, Overlay

ACCEPTED = ("application/json", "text/x-ini", "multipart/form-data")


async def read_order(request: Request) -> Order:
    """The wishes in a body of any of the accepted types.

    Raises:
        Problem: 400 not JSON, 415 another type, 422 without a configuration.
    """
    kind = media_type(request.headers.get("content-type", "").encode("latin-1"))
    if kind not in ACCEPTED:
        raise bodies.unsupported(kind, ACCEPTED)
    is_form = kind == "multipart/form-data"
    body = await (bodies.form_file(request, "config") if is_form else request.body())
    # In another thread: thousands of faults take longer than other requests should wait.
    return await run_in_threadpool(_order, kind, body)


def _order(kind: str, body: bytes) -> Order:
    if kind == "application/json":
        return _from_fields(bodies.parse_object(body))
    return Order(Overlay.from_ini(_utf8(body)))


def _from_fields(fields: dict[str, Any]) -> Order:
    base = fields.pop("base", None)
    if base is not None and not isinstance(base, str):
        raise Problem(422, "'base' must be a text: NAME, NAME@ALIAS or NAME/VERSION")
    flags = {name: fields.pop(name, False) for name in ("warm_start", "force")}
    for name, flag in flags.items():
        if not isinstance(flag, bool):
            raise Problem(422, f"'{name}' must be true or false")
    return Order(_overlay(fields), base, **flags)


def _overlay(fields: dict[str, Any]) -> Overlay:
    if "config" not in fields:
        return Overlay.from_mapping(fields)
    if len(fields) > 1 or not isinstance(fields["config"], str):
        raise Problem(422, "'config' must be INI text, and then no section may be beside it")
    return Overlay.from_ini(fields["config"])


def _utf8(body: bytes) -> str:
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Problem(422, "the configuration is not UTF-8 text") from error
    if "\0" in text:
        raise Problem(422, "the configuration is not a text")
    return text
