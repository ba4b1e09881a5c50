"""What hosting platforms ask of a container, on the server's own port: where it listens, how it says that it is well,
and where predictions are asked of it. None of them names a model in its requests.

=========  =================================  =======================  ==========================================
platform   told by                            port                     addresses
=========  =================================  =======================  ==========================================
SageMaker  the argument ``serve``, or         SAGEMAKER_BIND_TO_PORT,  ``GET /ping``, ``POST /invocations``
           SAGEMAKER_BIND_TO_PORT             else 8080
Vertex AI  AIP_HTTP_PORT, AIP_HEALTH_ROUTE    AIP_HTTP_PORT,           GET of AIP_HEALTH_ROUTE, POST to
           or AIP_PREDICT_ROUTE               else 8080                AIP_PREDICT_ROUTE
Azure ML   AZUREML_MODEL_DIR or               SERVER_PORT,             ``GET /``, ``POST /score``
           AZUREML_ENTRY_SCRIPT               else WORKBENCH_PORT
=========  =================================  =======================  ==========================================

``WORKBENCH_PLATFORM`` names one where nothing tells it; Azure ML's port is then 5001, its own server's. Where Azure
ML's deployment names port and routes of the container (``inference_config``), those of Kubernetes and V1 below do too.

- SageMaker: https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-inference-code.html
- Vertex AI: https://cloud.google.com/vertex-ai/docs/predictions/custom-container-requirements. AIP_STORAGE_URI is not
  read: the image carries its model.
- Azure ML: https://learn.microsoft.com/azure/machine-learning/how-to-inference-server-http and the routes of
  https://github.com/microsoft/azureml-inference-server; errors are ``{"message": ...}`` there.
- Kubernetes, always: ``/livez``, ``/readyz`` and ``/healthz``, after its own components
  (https://kubernetes.io/docs/reference/using-api/health-checks/).

Predictions are asked in V1 form (workbench.server.v1) or in V2 form, also binary with the header of the protocol or,
as no platform but Vertex AI passes headers on, in the content type that Triton has on SageMaker; and as rows of CSV
without a header, where the model has one numeric input of two axes. CSV comes back where ``Accept`` puts it first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from workbench.server.address import AZUREML, Platform
from workbench.server.app import App, Response, Route, Scope, header_length, refusal_headers
from workbench.server.errors import RequestError, ServerError
from workbench.server.protocol import BINARY, HEADER_LENGTH, JSON, answer, encode

CSV = b"text/csv"
TRITON = b"application/vnd.sagemaker-triton.binary+json"
_TRITON_LENGTH = b"json-header-size"
_TEXT = b"text/plain; charset=utf-8"


def install(app: App, platform: Platform | None, model: str = "") -> None:
    """Adds the addresses of ``platform`` to ``app``, and the probes of Kubernetes.

    ``model`` is the one that answers; without it the only one there is. ServerError where that is none or unclear.
    """
    app.routes |= {
        "/livez": _probe(lambda: True),
        "/readyz": _probe(lambda: app.ready),
        "/healthz": _probe(lambda: app.ready),
    }
    if platform is None:
        return
    try:
        _chosen(app, model)
    except RequestError as error:
        raise ServerError(
            f"{platform.name} asks for predictions without naming a model: {error.message}.",
            "Set WORKBENCH_PLATFORM_MODEL to the name of one.",
        ) from None
    health, score = _health(app, platform), _scoring(app, platform, model)
    if platform.health == platform.predict:
        health = score = _both(health, score)
    app.routes |= {platform.health: health, platform.predict: score}


# --- health


def _probe(well: Callable[[], bool], said: bytes = b"ok") -> Route:
    async def probe(_scope: Scope, _body: bytes) -> Response:
        return Response(said, content_type=_TEXT) if well() else Response(b"not ready", 503, _TEXT)

    return Route("GET", probe, operations=lambda words: words.probe(), open="GET HEAD")


def _health(app: App, platform: Platform) -> Route:
    route = _probe(lambda: app.ready, b"")
    route.refusal = _message if platform.name == AZUREML else None
    return route


def _message(error: RequestError) -> Response:
    """An error as Azure ML's own server has it."""
    return Response(encode({"message": error.message}), error.status, headers=refusal_headers(error))


def _both(one: Route, other: Route) -> Route:
    """Two routes at one address, told apart by their methods; ``one`` is that of health."""

    async def either(scope: Scope, body: bytes) -> Response:
        return await (other if scope["method"] == other.method else one).answer(scope, body)

    def operations(words: Any) -> Mapping[str, Any]:
        return {**words.described(one), **words.described(other)}

    return Route(f"{one.method} {other.method}", either, other.refusal, operations, one.open)


# --- predictions


def _scoring(app: App, platform: Platform, model: str) -> Route:
    async def score(scope: Scope, body: bytes) -> Response:
        return await predict(app, _chosen(app, model), scope, body)

    refusal, key = (_message, "Message") if platform.name == AZUREML else (None, "Error")
    return Route("POST", score, refusal, lambda words: words.scoring(app, _chosen(app, model), key))


def _chosen(app: App, model: str) -> str:
    if model:
        app.repository.served(model)
        return model
    names = app.repository.names()
    if len(names) != 1:
        raise RequestError(404, f"there is not one model here but {', '.join(names) or 'none'}")
    return names[0]


async def predict(app: App, name: str, scope: Scope, body: bytes) -> Response:
    """The answer to a request for model ``name``, in whichever form it is. RequestError 415 where that is none."""
    from workbench.server import v1

    headers = dict(scope["headers"])
    kind, _, parameters = headers.get(b"content-type", JSON).partition(b";")
    kind = kind.strip().lower()
    length = _triton_length(parameters) if kind == TRITON else header_length(scope)
    if length is not None or kind == JSON and v1.is_v2(body):
        return await _v2(app, name, body, length, triton=kind == TRITON)
    if kind not in (JSON, CSV):
        raise RequestError(415, f"content type {kind.decode('latin-1')!r} is not read here; send application/json")
    accepted = headers.get(b"accept", b"").partition(b",")[0].partition(b";")[0].strip().lower()
    if kind == JSON and accepted != CSV:
        return Response(await v1.predict(app, name, None, body))

    from workbench.server import rows

    read = rows.read if kind == CSV else v1.read
    _, asked, results = await v1.infer(app, name, None, lambda model: read(body, model))
    if accepted == CSV:
        return Response(rows.written(asked, results), content_type=CSV)
    return Response(encode(v1.written(asked, results)))


async def _v2(app: App, name: str, body: bytes, length: int | None, *, triton: bool) -> Response:
    from workbench.server import v1

    model, asked, results = await v1.infer(app, name, None, lambda model: model.reader.read(body, length))
    found, head = answer(model.name, model.version, asked, results, model.outputs)
    if head is None:
        return Response(found)
    if triton:
        return Response(found, content_type=b"%b;%b=%d" % (TRITON, _TRITON_LENGTH, head))
    return Response(found, content_type=BINARY, headers=((HEADER_LENGTH, b"%d" % head),))


def _triton_length(parameters: bytes) -> int:
    key, _, value = parameters.strip().partition(b"=")
    if key != _TRITON_LENGTH or not value.isdigit() or len(value) > 15:
        raise RequestError(400, f"content type {TRITON.decode()!r} takes ;{_TRITON_LENGTH.decode()}= and a length")
    return int(value)
