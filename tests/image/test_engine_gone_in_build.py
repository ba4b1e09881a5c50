"""An engine that stops, or is killed, in the middle of a build: each an engine of the test's own."""

from __future__ import annotations

import itertools
import os
import select
import signal
from pathlib import Path

import pytest
import services
from docker_helpers import PARAMS, Watching, built, client_of, inputs_of, tree_of
from image_helpers import Image

from workbench.errors import StepFailed
from workbench.image import downloads
from workbench.image.docker import build

pytestmark = pytest.mark.integration


class Stopping(Watching):
    """An ``Emit`` that sends the engine a signal, and waits until it is gone, when the build is at a step."""

    def __init__(self, scratch: Path, engine: Path, number: signal.Signals, at: str) -> None:
        super().__init__(scratch)
        self._engine, self._number, self._at = engine, number, at
        self.stopped = False

    def progress(self, done: float, total: float, text: str = "") -> None:
        super().progress(done, total, text)
        if text.startswith(self._at) and not self.stopped:
            self.stopped = True
            process = os.pidfd_open(int((self._engine / "pid").read_text()))
            signal.pidfd_send_signal(process, self._number)
            assert select.select([process], [], [], 60)[0]
            os.close(process)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_an_engine_that_goes_in_mid_build_is_told_and_the_next_build_goes_on(
    image: Image,
    tmp_path: Path,
    engine: services.Service,  # the test run has what an engine of one's own needs
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
) -> None:
    data = tmp_path / "docker-data"
    data.mkdir()
    names = (f"own{count}" for count in itertools.count())

    def start() -> services.Service:
        def command(folder: Path) -> tuple[str, list[str]]:
            address, words = services.engine_command(folder)
            return address, [*words, "--data-root", str(data)]

        found = services.shared(tmp_path, next(names), os.getpid(), command)
        services.wait_for_engine(found)
        monkeypatch.setenv("DOCKER_HOST", found.address)
        return found

    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker-config"))
    name = f"stopped-{number.name.lower()}"
    (tmp_path / "scratch").mkdir()
    try:
        emit = Stopping(tmp_path / "scratch", start().folder, number, "wheels 3/3")
        with pytest.raises(StepFailed, match="engine went away while building the image") as caught:
            build(inputs_of(image), {**PARAMS, "name": name}, emit)
        assert emit.stopped
        assert "finished steps are kept" in caught.value.cure
        assert not (downloads.cache_folder() / "contexts" / name).exists()

        again = start()
        outputs, _ = built(inputs_of(image), tmp_path / "again", name=name)
        assert tree_of(outputs)
        with client_of(again.address) as client:
            assert client.api.containers(all=True) == []
    finally:
        services.stop_all(tmp_path)
