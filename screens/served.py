"""The app as a page of the browser shows it: started by screens.serve, it ends when that is gone."""

from __future__ import annotations

import os
import select
import sys
import threading
from pathlib import Path

from screens.app import WorkbenchApp
from screens.settings import load_settings, settings_file
from workbench.errors import WorkbenchError
from workbench.project import project_of


def main() -> None:
    """Opens the app on the project of this folder."""
    try:
        app = WorkbenchApp(project_of(Path.cwd() / "here"), load_settings(settings_file()))
    except WorkbenchError as error:
        sys.exit(str(error))
    threading.Thread(target=_end_with_input, args=(app, sys.stdin.fileno()), daemon=True).start()
    app.run()


def _end_with_input(app: WorkbenchApp, descriptor: int) -> None:
    """Ends the app when nobody can write to it any more: a server that was killed says no farewell."""
    poll = select.poll()
    poll.register(descriptor, 0)  # what comes is the app's; that the other end is closed comes in any case
    while not any(event & (select.POLLHUP | select.POLLERR | select.POLLNVAL) for _, event in poll.poll()):
        pass
    try:
        app.call_from_thread(app.exit)
    except RuntimeError:  # it is not at work yet, or no more
        os._exit(1)


if __name__ == "__main__":
    main()
