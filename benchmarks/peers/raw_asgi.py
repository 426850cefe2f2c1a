"""The yardstick: the parts with nothing around them. It checks nothing and limits nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import orjson

from peers.network import FOLDER, arrays, pixels

_options = onnxruntime.SessionOptions()
_options.intra_op_num_threads = _options.inter_op_num_threads = 1
_run = onnxruntime.InferenceSession(
    str(FOLDER / "model.onnx"), _options, providers=["CPUExecutionProvider"]
).run
_known = arrays()
_mean, _std = np.float32(_known["mean"]), np.float32(_known["std"])


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answer any request as if it asked about one image."""
    if scope["type"] != "http":
        return
    parts = []
    while True:
        message = await receive()
        parts.append(message["body"])
        if not message.get("more_body"):
            break
    image = pixels(orjson.loads(b"".join(parts))["image"])
    levels = (image.astype(np.float32) / 255 - _mean) / _std
    row = _run(["probabilities"], {"images": levels[None, None]})[0][0]
    content = orjson.dumps(
        {"label": int(row.argmax()), "probabilities": row}, option=orjson.OPT_SERIALIZE_NUMPY
    )
    length = (b"content-length", b"%d" % len(content))
    head = [(b"content-type", b"application/json"), length]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    await send({"type": "http.response.body", "body": content})
