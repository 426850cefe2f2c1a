"""Floor 10: what an orchestrator asks: does the process live, can it answer."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from mindtrace.application.document import problems
from mindtrace.application.schemas import Alive
from mindtrace.application.slot import ModelSlot

router = APIRouter(prefix="/healthz", tags=["health"])


@router.get(
    "/live",
    summary="Does the process answer",
    response_model=Alive,
    response_model_exclude_none=True,
)
async def live() -> dict[str, Any]:
    """Never touches the model."""
    return {"status": "live"}


@router.get("/ready", summary="Can it classify", response_model=Alive, responses=problems(503))
async def ready(request: Request) -> dict[str, Any]:
    """A model is loaded, its golden images have passed, and the server means to stay."""
    slot: ModelSlot = request.app.state.slot
    model = slot.demand_ready()
    return {"status": "ready", "model_name": model.model_name, "version": model.version}
