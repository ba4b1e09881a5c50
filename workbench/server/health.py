"""``python -S /app/workbench/server/health.py``: whether this container's server is ready, for its health check.

Ends with 0 where it is, else with 1 and a line saying why, which ``docker inspect`` shows. It asks at the address that
the running server's own arguments and environment say, as far as the kernel tells them: those of a check are not the
same where a platform gives the container an argument, or its entrypoint is a script.

- With TLS it speaks TLS, and takes any certificate: it is loopback, and the certificate is for other names.
- Where clients need a certificate, which a check has none of, the handshake is the answer. The server makes it only
  once the models are loaded, and only as long as it takes requests.
- API keys are no matter: probes need none.

It runs every few seconds on the server's own CPUs, so it imports next to nothing: ``_socket`` where
``socket`` takes three times as long as all the rest, and ``ssl`` only for TLS.
"""

from __future__ import annotations

# ruff: noqa: PTH115, PTH123, PTH208 - pathlib alone would double the time
import _socket
import os
import sys

from workbench.server.address import detect, host_of, port_of
from workbench.server.errors import ServerError

TYPE_CHECKING = False  # without the import of typing
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PATIENCE_S = 3.0
"""For each of connecting, handshake and answer."""

_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what is listened on, not what is asked
_REQUEST = b"GET /v2/health/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
_MODULE = [b"-m", b"workbench.server"]


def main() -> int:
    """The check: 0 where the server is ready, else 1 and why on stderr."""
    try:
        why = ask(*running())
    except ServerError as error:
        why = str(error)
    if why:
        sys.stderr.write(f"workbench.server is not ready: {why}\n")
    return 1 if why else 0


def running(proc: str = "/proc") -> tuple[Sequence[str], Mapping[str, str]]:
    """Arguments and environment of the server that runs in this container; none and this process's own where the
    kernel tells of no server."""
    ours = os.readlink(f"{proc}/self/ns/mnt")
    for pid in sorted(filter(str.isdecimal, os.listdir(proc)), key=int):
        try:
            words = _words(f"{proc}/{pid}/cmdline")
            at = next((at for at in range(len(words)) if words[at : at + 2] == _MODULE), None)
            # With shared process ids there may be servers of other containers, whose files are others.
            if at is not None and os.readlink(f"{proc}/{pid}/ns/mnt") == ours:
                pairs = (os.fsdecode(word).partition("=") for word in _words(f"{proc}/{pid}/environ"))
                return list(map(os.fsdecode, words[at + 2 :])), {name: value for name, _, value in pairs}
        except OSError:  # it has ended, or is another user's
            continue
    return (), os.environ


def ask(arguments: Sequence[str], environment: Mapping[str, str]) -> str:
    """Why the server that was started so is not ready; empty where it is. ServerError where none can be started so."""
    host, port = host_of(environment), port_of(environment, detect(environment, arguments))
    try:
        return _asked(_LOOPBACK.get(host, host), port, environment)
    except OSError as error:
        return f"{host}:{port} does not answer: {error}"


def _asked(host: str, port: int, environment: Mapping[str, str]) -> str:
    # A name in bytes is taken as it is; letters would be brought into a name server's form, with much to import.
    name = host.encode() if host.isascii() else host
    family, kind, number, _, where = _socket.getaddrinfo(name, port, 0, _socket.SOCK_STREAM)[0]
    connection = _socket.socket(family, kind, number)
    try:
        connection.settimeout(PATIENCE_S)
        connection.connect(where)
        if not environment.get("WORKBENCH_TLS_CERT"):
            connection.sendall(_REQUEST)
            return _refusal(connection.recv(64))
        return _ask_in_tls(connection, to_the_end=not environment.get("WORKBENCH_TLS_CLIENT_CA"))
    finally:
        connection.close()


def _ask_in_tls(connection: _socket.socket, *, to_the_end: bool) -> str:
    import socket
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    plain = socket.socket(fileno=connection.detach())
    plain.settimeout(PATIENCE_S)
    with context.wrap_socket(plain) as secure:
        if not to_the_end:
            return ""
        secure.sendall(_REQUEST)
        return _refusal(secure.recv(64))


def _refusal(answer: bytes) -> str:
    if answer.startswith(b"HTTP/1.1 200 "):
        return ""
    return f"it answers {answer.partition(b'HTTP/1.1 ')[2][:3].decode('latin-1') or 'nothing'}"


def _words(path: str) -> list[bytes]:
    with open(path, "rb") as file:
        return file.read().split(b"\0")[:-1]


if __name__ == "__main__":
    sys.exit(main())
