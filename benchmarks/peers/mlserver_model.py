"""MLServer: `mlserver start FOLDER`, whose settings name this class."""

from __future__ import annotations

import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.types import InferenceRequest, InferenceResponse

from peers.network import TorchNetwork


class Digits(MLModel):
    """One image a request, in Open Inference Protocol v2."""

    async def load(self) -> bool:
        self.network = TorchNetwork()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        (text,) = StringCodec.decode_input(payload.inputs[0])
        row = self.network.probabilities(self.network.tensor(text)[None])
        output = NumpyCodec.encode_output("probabilities", np.asarray(row))
        return InferenceResponse(model_name=self.name, outputs=[output])
