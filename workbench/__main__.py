"""The command's entry: ``workbench``, and ``python -m workbench``."""

import gc
import sys
from collections.abc import Callable
from functools import partial

from workbench.errors import Cancelled, WorkbenchError


def main() -> None:
    """Runs the command, or the app where none is given at a terminal; errors are sentences with an exit code.

    Loading makes much and no garbage, so the collector rests meanwhile, and what is loaded by then is no concern of its
    later rounds, the one at the interpreter's end included: 12 of 71 ms of ``--help``.
    """
    gc.disable()
    try:
        command = _command()
        gc.freeze()
        gc.enable()
        command()
    except KeyboardInterrupt:  # while it loads; the commands have ends of their own
        sys.exit(Cancelled.exit_code)
    except WorkbenchError as error:
        sys.stderr.write("\n".join(filter(None, [f"workbench: {error.message}", error.cure])) + "\n")
        sys.exit(error.exit_code)
    finally:
        gc.freeze()


def _command() -> Callable[[], object]:
    """What is asked for. The app does not load the commands: it starts them, and is on the screen 0.1 s earlier."""
    if len(sys.argv) == 1 and sys.stdin.isatty() and sys.stdout.isatty():
        from screens.app import open_app

        return open_app
    from workbench.cli import app

    return partial(app, prog_name="workbench")


if __name__ == "__main__":
    main()
