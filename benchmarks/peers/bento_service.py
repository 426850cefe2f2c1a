"""BentoML: `bentoml serve peers.bento_service:Digits --port PORT`."""

# No `from __future__ import annotations`: BentoML reads the types of the method.
import bentoml

from peers.network import TorchNetwork


@bentoml.service(workers=1, traffic={"timeout": 30})
class Digits:
    """One image a request."""

    def __init__(self) -> None:
        self.network = TorchNetwork()

    @bentoml.api(route="/inference")
    def inference(self, image: str) -> dict:
        return self.network.answer(image)
