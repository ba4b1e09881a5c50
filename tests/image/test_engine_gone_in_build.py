"""An engine that ends while it builds: told as that, nothing of ours remains, and the next engine builds the image."""

from __future__ import annotations

import contextlib
import io
import os
import select
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from digits_image import Image
from docker_helpers import built, client_of, inputs_of
from own_engine import StartEngine

from workbench.errors import StepFailed
from workbench.image import docker as builder
from workbench.image import downloads

pytestmark = pytest.mark.integration

NAME = "interrupted"


class Told(io.StringIO):
    """A log that calls ``then``, once, when a line of it ends with ``words``."""

    def __init__(self, words: str, then: Callable[[], None]) -> None:
        super().__init__()
        self.words, self.then, self.came = words, then, False

    def write(self, text: str) -> int:
        if not self.came and text.rstrip().endswith(self.words):
            self.came = True
            self.then()
        return super().write(text)


def end(pid: int, number: signal.Signals) -> None:
    """Sends the signal to a process and returns when it is gone."""
    with contextlib.suppress(ProcessLookupError):
        process = os.pidfd_open(pid)
        signal.pidfd_send_signal(process, number)
        assert select.select([process], [], [], 60)[0]
        os.close(process)


def running(words: str) -> Iterator[int]:
    """Processes of this machine that have ``words`` in their command."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if words.encode() in path.read_bytes():
                yield int(path.parent.name)


@pytest.fixture
def waiting(tmp_path: Path) -> Iterator[str]:
    """What an instruction says that never ends by itself; a killed engine cannot end it either, so it ends here."""
    words = f"waiting in {tmp_path.name}"
    yield words
    for pid in running(words):
        end(pid, signal.SIGKILL)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_an_engine_that_ends_while_it_builds_is_told_and_the_next_one_builds(
    own_engine: StartEngine,
    image: Image,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    waiting: str,
    number: signal.Signals,
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker-config"))
    first = own_engine("unshare", "-m")  # what a killed engine has mounted goes with its namespace
    monkeypatch.setenv("DOCKER_HOST", first.address)
    engine = int((first.folder / "pid").read_text())
    script = f"import signal; print('{waiting}', flush=True); signal.pause()"
    step = f'WORKDIR /build\nRUN ["/usr/bin/python3.11", "-c", "{script}"]\n'
    render = builder.render
    log = Told(waiting, lambda: end(engine, number))
    with monkeypatch.context() as patch:
        patch.setattr(builder, "render", lambda parameters: render(parameters).replace("WORKDIR /build\n", step))
        patch.setattr("sys.stderr", log)
        with pytest.raises(StepFailed, match="engine went away while building the image") as caught:
            built(inputs_of(image), tmp_path / "first", name=NAME)
    assert log.came, log.getvalue()
    assert "run the same command again" in caught.value.cure
    assert not (downloads.cache_folder() / "contexts" / NAME / "context").exists()
    assert list(running(str(downloads.cache_folder() / "contexts" / NAME / "context"))) == []

    again = own_engine("unshare", "-m")
    monkeypatch.setenv("DOCKER_HOST", again.address)
    with client_of(again.address) as client:
        assert client.api.containers(all=True) == []
        outputs, _ = built(inputs_of(image), tmp_path / "second", name=NAME)
        assert client.images.get(outputs.values["config"]).id == outputs.values["config"]
        assert client.api.containers(all=True) == []
