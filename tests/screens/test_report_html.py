"""The page of a run: what it says, that it needs nothing else, and that nothing in it can become more than text."""

from __future__ import annotations

import fcntl
import json
import re
from collections.abc import Iterable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import example_run
import msgspec
import pytest
from app_support import answers, drive, until
from support import workbench
from textual.widgets import Static

from screens.app import WorkbenchApp
from screens.command import Answer, Command
from screens.command_bar import CommandBar
from screens.present import report_blocks
from screens.report_html import page, see, write_report
from screens.samples import LEAST
from screens.table import Rows
from workbench import events
from workbench.errors import MachineLacks
from workbench.events import AnyEvent

NAME = "20260101-120000-digits-beef"
_VOID = {"meta", "br"}


class Page(HTMLParser):
    """A page taken apart: its elements with attributes, the text of each, and what was left open or closed wrongly."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.unbalanced: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.unbalanced.append(tag)

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def all(self, tag: str, class_: str = "") -> list[dict[str, str | None]]:
        """The attributes of the elements ``tag`` that have the class."""
        return [
            each
            for name, each in self.elements
            if name == tag and (not class_ or class_ in str(each.get("class")).split())
        ]


def latency(step: str, series: str, time: float, *buckets: tuple[int, int]) -> dict[str, Any]:
    return {
        "time": time,
        "step": step,
        "kind": "latency",
        "values": {"series": series, "histogram": [list(each) for each in buckets]},
    }


SAMPLES = [
    *(
        latency("latency/int8", series, 1_700_000_010.0 + at, (at_ns, 900), (2 * at_ns, 100))
        for series, at_ns in (("original", 311_296), ("variant", 147_456))
        for at in range(10)
    ),
    *(
        latency("benchmark/alone", f"{target}-{run}", 1_700_000_100.0 + 10 * run + at / 4, (bound, count))
        for target, bound, count in (("process", 147_456, 500), ("image", 425_984, 6))
        for run in range(3)
        for at in range(8)
    ),
    latency("benchmark/alone", "process-null", 1_700_000_140.0, (1_152, 987_654)),
    latency("benchmark/busy", "image-0", 1_700_000_150.0, (786_432, 2_000)),
    *(
        {
            "time": 1_700_000_000.0 + at,
            "step": "model",
            "kind": "sensors",
            "values": {"cpu": 40.0, "cpu_each": [40.0], "memory_used": 2**32, "memory_total": 2**34},
        }
        for at in range(20)
    ),
]


def run_of(folder: Path, found: Iterable[AnyEvent], samples: Iterable[dict[str, Any]] = SAMPLES) -> Path:
    run = example_run.record(found, folder / ".workbench/runs" / NAME)
    (run / "samples.jsonl").write_text("".join(json.dumps(each) + "\n" for each in samples))
    return run


def page_of(run: Path) -> Page:
    return Page(page(see(run)))


STATES: dict[str, list[AnyEvent]] = {
    "done": example_run.run_events(),
    "failed": example_run.failed_events("image", "The layers do not fit.", "Take fewer."),
    "failed at once": example_run.failed_events("model", "Broken."),
    "died": example_run.run_events()[:20],
    "not begun": [],
    "cancelled": example_run.stamped(
        [*example_run.run_events()[:9], events.RunFinished(status="cancelled", exit_code=130)]
    ),
    "replay": example_run.replay_events(),
}


@pytest.mark.parametrize("kind", STATES)
def test_the_page_of_any_run_is_whole_html_that_needs_nothing_else(tmp_path: Path, kind: str) -> None:
    run = run_of(tmp_path, STATES[kind])
    text = page(see(run))
    found = Page(text)

    assert found.unbalanced == found.open == []
    assert not {"script", "link", "img", "iframe", "object", "embed", "base", "form"} & {
        tag for tag, _ in found.elements
    }
    assert [name for _, each in found.elements for name in each if name in ("src", "href", "srcset", "onload")] == []
    assert re.findall(r"(?i)\w*://|//\w|url\(|@import", text) == []
    assert "default-src 'none'" in str(found.all("meta"))


def test_it_says_what_the_report_at_the_terminal_says(tmp_path: Path) -> None:
    run = run_of(tmp_path, example_run.run_events())
    shown = page_of(run).text
    told = [
        each.line
        for block in report_blocks(see(run).state)
        for each in [*(cell for row in block.rows for cell in row), *block.below]
    ]

    assert len(told) > 100
    assert [line for line in told if line not in shown] == []


def test_at_the_top_is_what_came_of_it_with_what_it_rests_on(tmp_path: Path) -> None:
    shown = page_of(run_of(tmp_path, example_run.run_events())).text

    for part in (
        "350.0 KiB int8, 0.26× the original's 1.3 MiB",  # noqa: RUF001
        "0.4771× [0.4688, 0.4856] of the original's, faster p50 148.0 µs [146.0, 151.0]",  # noqa: RUF001
        "in process, 1 thread, 41,000 queries, 10 pairs of processes",
        "Change in accuracy -0.0028 [-0.0083, +0.0000], not significant",
        "61.0 MiB compressed, 167.8 MiB unpacked, 4 layers",
        "Example CPU @ 2.00GHz, 2 cores, 24 GiB",
        "Started 2023-11-14 22:13:20 UTC",
    ):
        assert part in shown


def test_a_disturbed_measurement_says_so_at_the_top_too(tmp_path: Path) -> None:
    disturbed = {**example_run.CONDITIONS, "disturbed": True, "sentence": "Disturbed: somebody compiled."}
    changed = {"latency/int8": {**example_run.VALUES["latency/int8"], "conditions": disturbed}}
    shown = page_of(run_of(tmp_path, example_run.run_events(changed))).text

    assert "10 pairs of processes Disturbed: somebody compiled." in shown[: shown.index("Variants")]


def test_names_from_files_stay_text(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>\"'&\x1b[31m\u202e\ud800"
    found = [
        events.RunStarted(
            run=evil.replace("\ud800", ""),
            recipe="</title><img src=x onerror=alert(1)>",
            name="<b>bold</b>",
            mode="run",
            command=["workbench", "run", "$(reboot)</pre><script>"],
            pid=1,
            machine={"class": {"cpu": "<i>chip</i>"}},
            workbench="<u>1</u>",
        ),
        events.Planned(steps=[("<s>step</s>", "model"), ("evaluate/<x>", "evaluate"), ("latency/<x>", "latency")]),
        events.StepStarted(step="<s>step</s>", key="", ingredients={}),
        events.StepFailed(step="<s>step</s>", error={"message": "<em>no</em>", "cure": "javascript:alert(1)"}),
    ]
    samples = [latency("latency/<x>", series, 1.0, (1000, 5)) for series in ("original", "variant")]
    text = page(see(run_of(tmp_path, example_run.stamped(found), samples)))
    parsed = Page(text)

    known = {"html", "head", "meta", "title", "style", "body", "main", "header", "p", "h1", "h2", "h3", "span", "aside"}
    known |= {"section", "div", "table", "thead", "tbody", "tr", "th", "td", "small", "i", "pre", "footer", "b"}
    assert {tag for tag, _ in parsed.elements} <= known
    assert "<b>bold</b>" in parsed.text
    assert "</title><img src=x onerror=alert(1)>" in parsed.text
    assert "<s>step</s>" in parsed.text
    assert "\x1b" not in text
    assert "\u202e" not in text


def test_the_same_folder_gives_the_same_bytes(tmp_path: Path) -> None:
    run = run_of(tmp_path, example_run.run_events()[:40])
    with (run / "lock").open("ab") as lock:
        fcntl.flock(lock.fileno(), fcntl.LOCK_EX)
        write_report(run, tmp_path / "one.html")
        write_report(run, tmp_path / "deeper" / "two.html")
        shown = page_of(run).text

    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "deeper/two.html").read_bytes()
    assert "run running" in shown
    assert "goes on, and is shown as it was at 2023-11-14 22:13:59 UTC" in shown


def test_what_went_wrong_stands_at_the_top_with_its_cure_and_what_was_found_out_before_below(tmp_path: Path) -> None:
    shown = page_of(run_of(tmp_path, STATES["failed"])).text

    assert "The layers do not fit. Take fewer." in shown[: shown.index("Variants")]
    assert "✗ failed image The layers do not fit." in shown
    assert "- skipped parity" in shown


def test_a_plot_of_variants_has_a_mark_for_each_and_the_chosen_one_stands_out(tmp_path: Path) -> None:
    found = page_of(run_of(tmp_path, example_run.run_events()))

    # by size, and by the quality that was lost
    assert len(found.all("path", "chosen")) == 2
    assert len(found.all("circle", "original")) == 2
    assert len(found.all("circle", "variant")) == 2


def test_a_benchmark_has_its_latencies_over_time_and_as_a_histogram(tmp_path: Path) -> None:
    found = page_of(run_of(tmp_path, example_run.run_events()))

    assert "process, 12,000 queries of 3 runs" in found.text
    assert "image over HTTP, 144 queries of 3 runs" in found.text
    # 6 queries a quarter of a second: enough for a median and no more
    assert "image over HTTP, over time; p95, p99: not enough samples" in found.text
    assert len(found.all("path", "p99")) == 3, "a line for each run of the process"
    assert "987,654" not in found.text, "what the client itself costs is no latency of the model"
    assert LEAST["p95"] > 8 * 6


def test_no_plot_is_drawn_from_a_load_that_was_not_valid(tmp_path: Path) -> None:
    shown = page_of(run_of(tmp_path, example_run.run_events())).text

    assert "INVALID: 3 of 2000 requests failed" in shown
    assert "2,000 queries of 1 run" not in shown


def test_a_benchmark_under_way_shows_what_came_in_and_that_it_is_not_judged(tmp_path: Path) -> None:
    so_far = [*example_run.run_events()[:4], events.StepStarted(step="benchmark/alone", key="", ingredients={})]
    run = run_of(tmp_path, example_run.stamped(so_far))
    with (run / "lock").open("ab") as lock:
        fcntl.flock(lock.fileno(), fcntl.LOCK_EX)
        shown = page_of(run).text

    assert "benchmark/alone: running; not judged, this is what came in" in shown
    assert "process, 12,000 queries of 3 runs" in shown


def test_each_step_has_a_bar_where_it_ran_and_none_where_it_was_reused(tmp_path: Path) -> None:
    found = page_of(run_of(tmp_path, example_run.run_events()))
    reused = len(example_run.KINDS)

    assert len(found.all("i", "bar")) == len(example_run.VALUES) - reused
    assert found.text.count("↻ reused") == reused
    bars = [float(re.findall(r"left:([\d.]+)%", str(each["style"]))[0]) for each in found.all("i", "bar")]
    assert bars == sorted(bars)
    assert 0 <= bars[0] < bars[-1] < 100


def test_digests_tools_and_commands_are_whole(tmp_path: Path) -> None:
    found = example_run.run_events()
    at = next(n for n, each in enumerate(found) if isinstance(each, events.StepFinished) and each.step == "model")
    tools = {"tool onnx": "1.23.2", "tool numpy": "2.4.6", "input source": "x", "instruction set": "x86-64-v4"}
    found[at] = msgspec.structs.replace(found[at], ingredients=tools)
    shown = page_of(run_of(tmp_path, found)).text

    assert "Made with numpy 2.4.6, onnx 1.23.2, instruction set x86-64-v4." in shown

    assert f"int8/quantize/model 350.0 KiB sha256:{'ab' * 32}" in shown
    assert "workbench replay recipes/digits.yaml" in shown


def test_samples_that_are_half_a_line_or_nonsense_are_passed_over(tmp_path: Path) -> None:
    run = run_of(tmp_path, example_run.run_events())
    with (run / "samples.jsonl").open("a") as file:
        file.write('{"kind": "latency", "step": 3, "values": []}\n[1]\n')
        file.write(json.dumps(latency("benchmark/alone", "process-9", 0.0, (-5, 5), (5, -5), (10**30, 1))) + "\n")
        file.write('{"kind": "sens')

    assert "process, 12,000 queries of 3 runs" in page_of(run).text


def test_the_command_writes_the_page_into_the_run_folder_or_where_it_is_told_to(tmp_path: Path) -> None:
    run = run_of(tmp_path, example_run.run_events())

    done = workbench(tmp_path, "report")
    assert (done.returncode, done.stdout) == (0, f".workbench/runs/{NAME}/report.html\n")
    told = workbench(tmp_path, "report", NAME[:8], "-o", "out.html")
    assert (told.returncode, told.stdout) == (0, "out.html\n")
    assert (tmp_path / "out.html").read_bytes() == (run / "report.html").read_bytes() == page(see(run)).encode()
    missing = workbench(tmp_path, "report", "2019")
    assert missing.returncode == 2
    assert "There is no run 2019" in missing.stderr


def test_a_place_that_takes_no_file_is_told(tmp_path: Path) -> None:
    run = run_of(tmp_path, example_run.run_events())
    (tmp_path / "file").touch()

    with pytest.raises(MachineLacks, match="file"):
        write_report(run, tmp_path / "file" / "r.html")


def test_a_key_of_the_run_stage_writes_the_page_and_says_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(tmp_path, example_run.run_events())
    said: list[str] = []
    real, told = Command.answer, answers(said)

    async def answer(self: Command) -> Answer:
        return await (real if self.words[0] == "report" else told)(self)

    monkeypatch.setattr(Command, "answer", answer)
    app = WorkbenchApp(tmp_path)

    async def flow(pilot: Any) -> None:
        await until(pilot, lambda: bool(app.screen.query_one("#runs", Rows).row_count))
        await app.open_run(run)
        await until(pilot, lambda: getattr(app.screen, "view", None) is not None)
        await pilot.press("H")
        bar = app.screen.query_one(CommandBar)
        path = f".workbench/runs/{NAME}/report.html"
        await until(pilot, lambda: path in str(bar.query_one("#said", Static).content))
        assert str(bar.query_one("#command", Static).content) == f"$ workbench report {NAME}"
        assert (tmp_path / path).read_text().startswith("<!doctype html>")

    drive(app, flow)
