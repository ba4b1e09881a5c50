"""Who we are to a registry: the accounts of Docker's configuration, and the helpers that it names."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any

from workbench.errors import MachineLacks


@dataclass(frozen=True)
class Account:
    """A user and a password, or (``user`` is empty) an identity token that stands for both."""

    user: str
    secret: str = field(repr=False)


def account_for(host: str) -> Account | None:
    """The account that Docker's configuration has for ``host``, or None.

    The configuration lies in ``DOCKER_CONFIG`` or ``~/.docker``; helpers (``docker-credential-NAME``) are run without a
    shell. Raises MachineLacks where either cannot be read.
    """
    # Here, not above: it costs 0.2 s, and a registry that asks nobody who he is needs none of it.
    from docker import auth, errors

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a helper that is missing is said below, as an error
            found = auth.load_config().resolve_authconfig(host)
    except errors.DockerException as error:
        raise MachineLacks(
            f"Docker's configuration has no usable account for {host}: its file or credential helper fails.",
            f"Correct the configuration, or log in again: docker login {host}",
        ) from error
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise MachineLacks(
            f"The account for {host} in Docker's configuration cannot be read.", f"Log in again: docker login {host}"
        ) from error
    return _account(found or {})


def _account(found: dict[str, Any]) -> Account | None:
    # The library spells what a helper says with capitals and what the file says without.
    found = {str(key).lower(): value for key, value in found.items()}
    if token := found.get("identitytoken"):
        return Account("", str(token))
    if found.get("username") and found.get("password") is not None:
        return Account(str(found["username"]), str(found["password"]))
    return None
