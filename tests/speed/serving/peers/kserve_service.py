"""The KServe SDK's custom model over an onnxruntime session."""

import os

from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer

from workbench.server.session import open_session


class Onnx(Model):
    def __init__(self) -> None:
        super().__init__("m")
        self.load()

    def load(self) -> bool:
        self.session = open_session(os.environ["MODEL"])
        self.ready = True
        return True

    def predict(self, payload: InferRequest, headers=None, response_headers=None) -> InferResponse:
        y = self.session.run(None, {"x": payload.inputs[0].as_numpy()})[0]
        output = InferOutput("y", list(y.shape), "FP32")
        output.set_data_from_numpy(y, binary_data=False)
        return InferResponse(payload.id or "", self.name, [output])


if __name__ == "__main__":
    ModelServer(http_port=int(os.environ["PORT"]), workers=1, enable_grpc=False, enable_latency_logging=False).start(
        [Onnx()]
    )
