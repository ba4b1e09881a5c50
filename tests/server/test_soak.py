"""A server that gets more than it can take, and one whose versions are switched under load. ``make soak`` is longer."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import soaking
import wrk
from wrk import Pace

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not wrk.is_there(), reason="needs wrk (apt-get install wrk)"),
]
SECONDS = 6
LEAK = 4 << 20


def test_overload_is_answered_refused_and_costs_no_memory(tmp_path: Path) -> None:
    soaking.write_versions(tmp_path, layers=40)
    with soaking.served(tmp_path, WORKBENCH_THREADS="1", WORKBENCH_QUEUE="16", WORKBENCH_BATCH_ROWS="4") as server:
        seen = soaking.under_load(server, Pace(connections=96), SECONDS)
        assert seen.taken.ok > 0
        assert seen.taken.refused > 1000
        assert seen.taken.errors == 0
        assert {status for status, _ in seen.health} == {200}
        # A body or a future kept for each of those refused would be more than this.
        assert seen.growth() * SECONDS < LEAK
        server.process.send_signal(signal.SIGTERM)
        code, _, err = server.end()
    assert code == 0
    assert "Traceback" not in err


def test_a_rolling_switch_of_versions_fails_no_request(tmp_path: Path) -> None:
    soaking.write_versions(tmp_path, layers=2, versions=2)
    with soaking.served(tmp_path, WORKBENCH_THREADS="1", WORKBENCH_REPOSITORY="1") as server:
        seen = soaking.while_switching(server, Pace(connections=16), SECONDS)
        assert seen.taken.ok > 0
        assert seen.taken.refused == seen.taken.errors == 0
        assert seen.versions[:2] == ["2", "1"]
        server.process.send_signal(signal.SIGTERM)
        assert server.end()[0] == 0
