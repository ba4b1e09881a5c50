"""LitServe over an onnxruntime session: JSON, or the bytes of a tensor as base64 in it, as its guide has images."""

import base64
import os

import litserve
import numpy as np

from workbench.server.session import open_session


class Onnx(litserve.LitAPI):
    def setup(self, device):
        self.session = open_session(os.environ["MODEL"])

    def decode_request(self, request):
        if "raw" in request:
            return np.frombuffer(base64.b64decode(request["raw"]), np.float32).reshape(request["shape"])
        return np.array(request["data"], np.float32).reshape(request["shape"])

    def predict(self, x):
        return self.session.run(None, {"x": x})[0]

    def encode_response(self, output):
        return {"shape": output.shape, "data": output.ravel().tolist()}


if __name__ == "__main__":
    server = litserve.LitServer(Onnx(), accelerator="cpu", workers_per_device=1, timeout=False)
    server.run(
        host="127.0.0.1",
        port=int(os.environ["PORT"]),
        num_api_servers=1,
        log_level="warning",
        generate_client_file=False,
        access_log=False,
    )
