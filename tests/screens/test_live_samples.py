"""The samples of a run as the live panels take them, and the charts they are painted with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from app_support import answers, drive, run_folder, until
from example_run import record, run_events
from textual.widgets import Static

from screens import samples
from screens.app import WorkbenchApp
from screens.charts import Line, bar, columns, line_chart, spark
from screens.command import Command
from screens.samples import SampleSource, Window, merged, over_time, percentile, throughput
from screens.stages.benchmark import charted, figures_now, latency_lines, machine_lines, series_of
from screens.table import Rows
from screens.views import Views
from screens.workspace import WorkspaceScreen

READING = {"cpu": 50.0, "cpu_each": [10.0, 90.0], "memory_used": 1 << 30, "memory_total": 4 << 30, "gpus": []}


def line(kind: str, values: dict[str, Any], time: float = 1.0, step: str = "benchmark/alone") -> str:
    return json.dumps({"time": time, "step": step, "kind": kind, "values": values}) + "\n"


def latency(time: float, *histogram: list[int], series: str = "image-0") -> str:
    return line("latency", {"series": series, "histogram": histogram}, time)


def test_samples_come_by_and_by_and_nothing_new_is_the_same_object(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    source = SampleSource(path)
    assert source.advance() is source.advance()
    path.write_text(line("sensors", READING) + latency(1.0, [1000, 3]))
    first = source.advance()
    assert first.sensors[0].cpu_each == (10.0, 90.0)
    assert first.latencies["benchmark/alone", "image-0"][0].count == 3
    assert source.advance() is first
    with path.open("a") as file:
        file.write(latency(1.25, [2000, 5]) + '{"half": ')
    assert [window.count for window in source.advance().latencies["benchmark/alone", "image-0"]] == [3, 5]


def test_of_a_large_file_only_the_end_is_read_and_only_a_minute_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samples, "READ_BYTES", 100_000)
    path = tmp_path / "samples.jsonl"
    path.write_text("".join(latency(number / 4, [1000, number]) for number in range(20_000)))

    windows = SampleSource(path).advance().latencies["benchmark/alone", "image-0"]

    assert len(windows) == samples.KEPT
    assert windows[-1].count == 19_999


def test_what_is_no_sample_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    path.write_text('no json\n[1]\n{"kind": "latency", "values": 3}\n' + line("sensors", {"cpu": "x", "cpu_each": 3}))

    found = SampleSource(path).advance()

    assert found.sensors[0].cpu == 0.0


def test_a_percentile_needs_enough_queries() -> None:
    few, many = [(1000, 600)], [(1000, 980), (5000, 15), (9000, 5)]

    assert percentile(few, "p99") is None
    assert percentile(many, "p50") == 1000
    assert percentile(many, "p99") == 5000


def test_percentiles_over_time_are_of_the_last_five_seconds() -> None:
    windows = [Window(number / 4, ((1000 if number < 30 else 9000, 100),)) for number in range(60)]

    found = over_time(windows, "p99")

    assert found[5] is None
    assert found[10] == 1000
    assert found[-1] == 9000
    assert throughput(windows) == pytest.approx(400)


def test_histograms_add_up() -> None:
    assert merged([Window(0, ((1, 2), (5, 1))), Window(1, ((5, 4),))]) == [(1, 2), (5, 5)]


def test_charts_keep_their_room_and_show_the_greatest_value() -> None:
    chart = line_chart([Line("p50", [1.0, None, 3.0])], 30, 6, lambda value: f"{value:g}")
    histogram = columns([(1000, 1), (2000, 10), (4000, 1)], 20, 5, lambda value: f"{value:g}")

    assert len(chart) == 6
    assert max(len(each.plain) for each in chart) <= 30
    assert chart[0].plain.startswith("3 ")
    assert chart[-1].plain.strip() == "p50"
    assert len(histogram) == 5
    assert {len(each.plain) for each in histogram} == {20}
    assert "█" in histogram[0].plain
    assert line_chart([], 30, 6, str) == columns([], 20, 5, str) == []
    assert [bar(share, 4) for share in (0, 0.5, 1, 7)] == ["", "██", "████", "████"]


GPU = {
    "name": "Example GPU",
    "busy": 87.0,
    "memory_used": 10 << 30,
    "memory_total": 40 << 30,
    "power": 251.4,
    "power_limit": 400.0,
    "temperature": 64,
    "clock": 1410,
}


def machine(reading: dict[str, Any], tmp_path: Path) -> str:
    """The machine panel after two such readings."""
    path = tmp_path / "samples.jsonl"
    path.write_text(line("sensors", {**reading, "cpu": 0.0}) + line("sensors", reading, 1.25))
    return "\n".join(each.plain for each in machine_lines(SampleSource(path).advance(), "benchmark/alone", 60))


def test_a_gpu_tells_its_load_memory_power_temperature_and_clock(tmp_path: Path) -> None:
    told = machine({**READING, "gpus": [GPU]}, tmp_path)

    assert "GPU 0  Example GPU" in told
    assert "87 %" in told
    assert "10.0 GiB" in told
    assert "of 40.0 GiB" in told
    assert "251 of 400 W  64 °C  1410 MHz" in told


def test_what_a_gpu_does_not_tell_is_not_made_up(tmp_path: Path) -> None:
    told = machine({**READING, "gpus": [{"name": "Laptop [bold]GPU", "busy": None, "power": None}]}, tmp_path)

    assert "Laptop [bold]GPU" in told
    assert "not told" in told
    assert not any(unit in told for unit in (" W", "°C", "MHz"))


def test_many_cores_are_a_letter_each(tmp_path: Path) -> None:
    told = machine({**READING, "cpu_each": [0.0, 100.0] * 32}, tmp_path)

    assert "0 to 33" in told
    assert "34 to 63" in told
    assert told.count("▁█") >= 32


def test_the_last_minute_stands_beside_what_is_now() -> None:
    assert spark([0.0, 50.0, 100.0], 5) == "  ▁▅█"
    assert spark([0.0, 50.0, 100.0], 2) == "▅█"


def test_how_many_queries_wait_is_told_where_the_load_does_not_wait_itself(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    waiting = line("latency", {"series": "image", "histogram": [[1000, 500]], "waiting": 17})
    path.write_text(waiting + latency(1.0, [1000, 500], series="process"))
    series = series_of(SampleSource(path).advance(), "benchmark/alone")
    told = {each.plain.split()[0]: each.plain.split()[-1] for each in figures_now(series)}

    assert told["image"] == "17"
    assert told["process"] == "—"


def test_the_client_itself_is_not_charted_where_a_model_is() -> None:
    window = (Window(1.0, ((1000, 5),)),)

    assert charted({"image-0": window, "image-null": window})[0] == "image-0"
    assert charted({"image-null": window})[0] == "image-null"
    assert charted({}) == ("", ())
    assert latency_lines(window, 40, 8)[-1].plain == "p50, p95, p99: not enough samples"


def test_the_live_panels_come_up_while_a_benchmark_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Command, "answer", answers([]))
    happened = run_events()
    begun = next(at for at, each in enumerate(happened) if getattr(each, "step", "") == "benchmark/alone")
    folder = record(happened[: begun + 1], run_folder(tmp_path))
    windows = [latency(number / 4, [100_000, 400], [300_000, 20]) for number in range(40)]
    (folder / "samples.jsonl").write_text("".join([line("sensors", READING), *windows]))
    app = WorkbenchApp(tmp_path)
    monkeypatch.setattr("workbench.runs.is_alive", lambda _: True)

    async def flow(pilot: Any) -> None:
        await until(pilot, lambda: bool(app.screen.query_one("#runs", Rows).row_count))
        await app.open_recipe("recipes/digits.yaml", "benchmark")
        await until(pilot, lambda: isinstance(app.screen, WorkspaceScreen) and app.screen.view is not None)
        await until(pilot, lambda: app.screen.query_one(Views).shown == "panels")
        await until(pilot, lambda: "1,680" in painted(app, "throughput"))
        assert "core 1              90 %" in painted(app, "machine")
        await until(pilot, lambda: "p99" in painted(app, "over-time"))
        await pilot.press("v")
        await until(pilot, lambda: app.screen.query_one(Views).shown == "figures")

    drive(app, flow)


def painted(app: WorkbenchApp, panel: str) -> str:
    """The text of a panel."""
    from rich.console import Group

    found = app.screen.query_one(f"#{panel}", Static).content
    return "\n".join(str(each) for each in found.renderables) if isinstance(found, Group) else str(found)
