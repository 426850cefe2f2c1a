"""LitServe: `python -m peers.lit_server PORT`."""

from __future__ import annotations

import sys
from typing import Any

import litserve

from peers.network import TorchNetwork, as_answer


class Digits(litserve.LitAPI):
    """One image a request."""

    def setup(self, device: str) -> None:
        self.network = TorchNetwork()

    # Without a type: LitServe would take one for the schema of the body.
    def decode_request(self, request):  # type: ignore[no-untyped-def]
        return self.network.tensor(request["image"])

    def predict(self, x: Any) -> Any:
        return self.network.probabilities(x[None])[0]

    def encode_response(self, output: Any) -> dict[str, Any]:
        return as_answer(output)


if __name__ == "__main__":
    server = litserve.LitServer(
        Digits(api_path="/inference"), accelerator="cpu", workers_per_device=1
    )
    server.run(port=int(sys.argv[1]), host="127.0.0.1", generate_client_file=False)
