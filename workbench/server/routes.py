"""What the server tells of itself, beside what the protocol has for that."""

from __future__ import annotations

from workbench.server.app import App, Response, Route, Scope
from workbench.server.protocol import encode


def metrics_route(app: App) -> Route:
    """``GET /metrics``, of all workers where there are several. What it takes is loaded when it is first asked: most
    start-ups are waited for, no scrape is."""
    registry = None

    async def scrape(_scope: Scope, _body: bytes) -> Response:
        nonlocal registry
        from workbench.server import metrics

        if app.shared is not None:
            await app.shared.gather()
            of_all = metrics.exposition_of_all(app.shared)
            return Response(metrics.text(of_all), content_type=metrics.CONTENT_TYPE)
        registry = registry or metrics.exposition(app.repository, app.cache, app.observer)
        return Response(metrics.text(registry), content_type=metrics.CONTENT_TYPE)

    return Route("GET", scrape, operations=lambda words: words.metrics())


def openapi_route(app: App) -> Route:
    """``GET /openapi.json``: all that is answered over HTTP, with the signatures of the models as they are loaded."""

    async def describe(_scope: Scope, _body: bytes) -> Response:
        from workbench.server import openapi

        return Response(encode(openapi.document(app)))

    return Route("GET", describe, operations=lambda words: words.itself())
