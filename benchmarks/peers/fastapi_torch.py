"""FastAPI and PyTorch as most tutorials put them together."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from peers.network import TorchNetwork

app = FastAPI()
network = TorchNetwork()


class Question(BaseModel):
    """One image."""

    image: str


class Answer(BaseModel):
    """Its classes."""

    label: int
    probabilities: list[float]


@app.post("/inference", response_model=Answer)
def inference(question: Question) -> Any:
    return network.answer(question.image)
