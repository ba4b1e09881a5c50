"""Where the server listens, by its environment and arguments, and the platform that started it.

The health check (:mod:`workbench.server.health`) reads the same, in a new process each time, and half of the standard
library's usual modules take more time to load than the check itself: this module imports nothing but the errors.
"""

from __future__ import annotations

from workbench.server.errors import ServerError

TYPE_CHECKING = False  # without the import of typing
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

HOST = "127.0.0.1"
PORT = 8000

SAGEMAKER, VERTEX, AZUREML = "sagemaker", "vertex", "azureml"
PLATFORMS = ("auto", SAGEMAKER, VERTEX, AZUREML)


class Platform:
    """A platform's contract: where it asks for health and predictions, and the port, which is that of
    ``port_variable``, else ``port``, else the server's own."""

    def __init__(self, name: str, health: str, predict: str, port_variable: str, port: int | None) -> None:
        self.name = name
        self.health = health
        self.predict = predict
        self.port_variable = port_variable
        self.port = port


def detect(environment: Mapping[str, str], arguments: Sequence[str]) -> Platform | None:
    """The platform that started this server, named by WORKBENCH_PLATFORM or told by ``environment`` and ``arguments``.

    ServerError where an argument is not known, or an address of Vertex AI is missing.
    """
    named = word(environment, "WORKBENCH_PLATFORM", PLATFORMS)
    if list(arguments) not in ([], ["serve"]):
        raise ServerError(
            f"The server does not know the arguments {' '.join(arguments)!r}.", "Give none, or serve as SageMaker does."
        )
    if arguments or named == SAGEMAKER or "SAGEMAKER_BIND_TO_PORT" in environment:
        return Platform(SAGEMAKER, "/ping", "/invocations", "SAGEMAKER_BIND_TO_PORT", 8080)
    if named == VERTEX or any(f"AIP_{name}" in environment for name in ("HTTP_PORT", "HEALTH_ROUTE", "PREDICT_ROUTE")):
        routes = [_route(environment, f"AIP_{name}_ROUTE") for name in ("HEALTH", "PREDICT")]
        return Platform(VERTEX, routes[0], routes[1], "AIP_HTTP_PORT", 8080)
    if named == AZUREML or "AZUREML_MODEL_DIR" in environment or "AZUREML_ENTRY_SCRIPT" in environment:
        return Platform(AZUREML, "/", "/score", "SERVER_PORT", 5001 if named == AZUREML else None)
    return None


def host_of(environment: Mapping[str, str]) -> str:
    """The address that the server listens on."""
    return environment.get("WORKBENCH_HOST") or HOST


def port_of(environment: Mapping[str, str], platform: Platform | None) -> int:
    """The port for HTTP. ServerError where what is set is none."""
    port = number(environment, "WORKBENCH_PORT", PORT, 0, 65535)
    if platform is None:
        return port
    return number(environment, platform.port_variable, port if platform.port is None else platform.port, 0, 65535)


def number(environment: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    """The whole number that a variable holds. ServerError where it holds something else, or beyond the bounds."""
    text = environment.get(name)
    if not text:
        return default
    if not text.isdecimal() or not low <= int(text) <= high:
        raise ServerError(f"{name}={text!r} is not usable.", f"Give a whole number from {low} to {high}.")
    return int(text)


def word(environment: Mapping[str, str], name: str, words: tuple[str, ...]) -> str:
    """The one of ``words`` that a variable holds, the first where it is unset. ServerError for another."""
    text = environment.get(name) or words[0]
    if text not in words:
        raise ServerError(f"{name}={text!r} is not usable.", f"Give one of {', '.join(words)}.")
    return text


def _route(environment: Mapping[str, str], variable: str) -> str:
    route = environment.get(variable, "")
    if not route.startswith("/"):
        raise ServerError(f"{variable}={route!r} is no address.", "Give a path such as /predict; Vertex AI sets it.")
    return route
