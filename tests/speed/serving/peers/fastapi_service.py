"""FastAPI over an onnxruntime session: typed JSON by pydantic, and raw bytes.

``async def``: in its pool of threads (``def``) it answers half as many requests.
"""

import os

import numpy as np
from fastapi import FastAPI, Request, Response
from pydantic import BaseModel

from workbench.server.session import open_session

session = open_session(os.environ["MODEL"])
row = session.get_inputs()[0].shape[1:]
app = FastAPI()


class Tensor(BaseModel):
    shape: list[int]
    data: list[float]


@app.post("/predict")
async def predict(tensor: Tensor) -> Tensor:
    x = np.array(tensor.data, np.float32).reshape(tensor.shape)
    y = session.run(None, {"x": x})[0]
    return Tensor(shape=list(y.shape), data=y.ravel().tolist())


@app.post("/raw")
async def raw(request: Request) -> Response:
    x = np.frombuffer(await request.body(), np.float32).reshape(-1, *row)
    return Response(session.run(None, {"x": x})[0].tobytes(), media_type="application/octet-stream")
