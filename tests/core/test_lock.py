"""The lock: stable, strict, and a judge of what is worse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from workbench import lock
from workbench.errors import UsageError
from workbench.lock import Artifacts, Figure, HostFigures, ImageFacts, Lock, Resolved
from workbench.schema import Tolerance

HOST = "A CPU, 2 cores, 24 GiB"


def digest(letter: str) -> str:
    return f"sha256:{letter * 64}"


def artifacts(**changes: Any) -> Artifacts:
    facts: dict[str, Any] = {
        "toolchain": {"onnxruntime": "1.32.0"},
        "instruction_set": "x86-64-v4+vnni",
        "seed": 0,
        "sources": {"model.source": digest("a")},
        "made": {"model": digest("b"), "int8/quantize": digest("c")},
        "choice": "int8",
        "image": ImageFacts(
            config=digest("d"), manifest=digest("e"), compressor="zlib 1.3", created=0, layers={"base": digest("f")}
        ),
        "base": Resolved(request={"debian": "bookworm"}, pins={"packages": [{"name": "libc6", "version": "2.36"}]}),
    }
    return Artifacts(**(facts | changes))


def figure(value: float, interval: tuple[float, float] | None = None, **changes: Any) -> Figure:
    facts: dict[str, Any] = {"unit": "ns", "better": "lower", "kind": "latency"}
    return Figure(value=value, interval=interval, **(facts | changes))


def metric(value: float, interval: tuple[float, float]) -> Figure:
    return figure(value, interval, better="higher", kind="metric", unit="")


def whole() -> Lock:
    values = {"int8.p50": figure(100, (90, 110))}
    return Lock(
        recipe={"model": digest("0")},
        artifacts=artifacts(),
        figures={HOST: HostFigures(machine={"kernel": "6.1"}, values=values)},
    )


def test_what_is_written_is_read_back_and_written_the_same(tmp_path: Path) -> None:
    path = tmp_path / "d.lock.yaml"
    lock.save(whole(), path)
    again = lock.load(path)
    assert again == whole()
    assert again.text() == path.read_text()


def test_there_may_be_no_lock(tmp_path: Path) -> None:
    assert lock.load(tmp_path / "none.lock.yaml") is None


def test_a_lock_that_was_tampered_with_is_refused_with_every_problem(tmp_path: Path) -> None:
    path = tmp_path / "d.lock.yaml"
    path.write_text(whole().text().replace(digest("b"), "sha256:nonsense").replace("choice: int8", "chois: int8"))
    with pytest.raises(UsageError) as caught:
        lock.load(path)
    assert "artifacts.made.model" in str(caught.value)
    assert "artifacts.chois" in str(caught.value)


def test_differences_come_causes_first() -> None:
    found = artifacts(sources={"model.source": digest("1")}, made={"model": digest("2"), "int8/quantize": digest("c")})
    assert [item.name for item in lock.differences(artifacts(), found)] == ["model.source", "model"]


def test_another_toolchain_is_the_first_difference() -> None:
    found = artifacts(toolchain={"onnxruntime": "1.33.0"}, made={"model": digest("2"), "int8/quantize": digest("c")})
    first = lock.differences(artifacts(), found)[0]
    assert str(first) == "tool onnxruntime: 1.32.0 → 1.33.0"


@pytest.mark.parametrize(
    ("locked", "now", "worse"),
    [
        (figure(100, (90, 110)), figure(300, (290, 310)), True),
        (figure(100, (90, 110)), figure(120, (115, 125)), False),  # inside the tolerance of 25%
        (figure(100, (90, 160)), figure(150, (140, 190)), False),  # the intervals overlap
        (figure(100, (90, 110)), figure(10, (9, 11)), False),  # better is not worse
        (figure(100), figure(101, kind="size", unit="B"), True),  # a size has no noise
        (metric(0.98, (0.97, 0.99)), metric(0.9, (0.89, 0.91)), True),
        (metric(0.98, (0.97, 0.99)), metric(0.975, (0.96, 0.98)), False),
    ],
)  # fmt: skip
def test_worse_is_outside_both_intervals_and_the_tolerance(locked: Figure, now: Figure, worse: bool) -> None:
    assert now.worse_than(locked, Tolerance()) is worse


def test_only_figures_that_left_their_interval_and_tolerance_are_changes() -> None:
    old = {HOST: HostFigures(machine={}, values={"a.p50": figure(100, (90, 110)), "b.p50": figure(100, (90, 110))})}
    new = HostFigures(machine={}, values={"a.p50": figure(104, (95, 115)), "b.p50": figure(30, (29, 31))})
    assert lock.figure_changes(old, new, HOST, Tolerance()) == ["b.p50: 100 → 30 ns"]
    assert lock.figure_changes(old, new, "another host", Tolerance()) == ["a.p50: new", "b.p50: new"]


def test_two_branches_that_changed_different_things_merge_by_line() -> None:
    """Every digest, package and figure has lines of its own."""
    text = whole().text()
    assert sum(digest(letter) in line for line in text.splitlines() for letter in "abcdef") == 6
