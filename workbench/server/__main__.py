"""``python -m workbench.server``: serve a folder of models as the environment says.

The one argument that it takes, ``serve``, says that SageMaker started it.
"""

from __future__ import annotations

import gc
import os
import signal
import sys


def main() -> int:
    """Serve until SIGTERM: 0 after a clean stop, 2 (and one line saying why) where a setting or model is not usable."""
    # Until requests are taken there is nothing to finish: a stop while loading is a clean stop too. PID 1 of a
    # container ignores SIGTERM unless a handler is set.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    # What is imported stays, and looking through it for garbage again and again takes a tenth of the start.
    # workbench.server.serve switches it on again.
    gc.disable()

    from workbench.server.errors import ServerError
    from workbench.server.serve import serve_folder
    from workbench.server.settings import from_environment

    try:
        serve_folder(from_environment(os.environ, sys.argv[1:]))
    except ServerError as error:
        print(f"workbench.server: {error}", file=sys.stderr)  # noqa: T201 - the log of a container is stderr
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
