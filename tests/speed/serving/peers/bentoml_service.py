"""BentoML over an onnxruntime session: numpy arrays as JSON, and raw bytes as a file."""

import os
from pathlib import Path

import bentoml
import numpy as np

from workbench.server.session import open_session


@bentoml.service(workers=1, logging={"access": {"enabled": False}})
class Onnx:
    def __init__(self) -> None:
        self.session = open_session(os.environ["MODEL"])
        self.row = self.session.get_inputs()[0].shape[1:]

    @bentoml.api
    def predict(self, x: np.ndarray) -> np.ndarray:
        return self.session.run(None, {"x": x.astype(np.float32)})[0]

    @bentoml.api
    def raw(self, file: Path, /) -> np.ndarray:
        x = np.frombuffer(file.read_bytes(), np.float32).reshape(-1, *self.row)
        return self.session.run(None, {"x": x})[0]
