"""What can go wrong in the server.

::

    Exception
    ├── ServerError         the server cannot start: a model or a setting is not usable
    │   └── NotHere         the same, for a package or GPU that only this setting needs is not here
    └── RequestError        one request cannot be answered; the client gets its status and message

The image carries this package alone, so these stand beside, not below, the errors of the workbench.
"""

from __future__ import annotations

FAULT = "the server failed at this; its log says why"
"""What a client is told of what nobody foresaw."""

LONGEST = 1000
"""About the most characters of a message to a client; the middle of a longer one is left out."""


class ServerError(Exception):
    """The server cannot start. ``message`` says what happened to which file or setting, ``cure`` what to do now."""

    def __init__(self, message: str, cure: str = "") -> None:
        super().__init__(f"{message} {cure}".strip())
        self.message = message
        self.cure = cure


class NotHere(ServerError):
    """The server cannot start without a package that is not installed, or a GPU that is not there."""


class RequestError(Exception):
    """A request that is answered with ``status`` and the protocol's error object holding ``message``.

    ``retry_after``: seconds after which the client may try again, where that is of use. ``allow``: the methods that
    the address takes, where it does not take this one.
    """

    def __init__(self, status: int, message: str, retry_after: int | None = None, allow: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        if len(message) > LONGEST:  # it names what the client sent, which may be as long as a body
            message = f"{message[: LONGEST // 2]} … {message[-LONGEST // 2 :]}"
        self.message = message
        self.retry_after = retry_after
        self.allow = allow
