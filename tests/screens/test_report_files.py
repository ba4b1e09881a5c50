from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import example_run
import pytest

from screens.report import junit, summary_markdown
from workbench.errors import MachineLacks

DIFFERENCES = [{"name": "model", "locked": "sha256:" + "a" * 64, "found": "sha256:" + "b" * 64}]
WORSE = [{"name": "int8.p50", "locked": 148_000.0, "found": 250_000.0, "unit": "ns"}]


def written(tmp_path: Path, *found: list[Any]) -> ElementTree.Element:
    path = tmp_path / "junit.xml"
    junit([example_run.state(each) for each in found], path)
    root = ElementTree.fromstring(path.read_bytes())
    check(root)
    return root


def check(root: ElementTree.Element) -> None:
    """What readers of JUnit XML rely on: its elements, their attributes, and counts that are right."""
    assert root.tag == "testsuites"
    for suite in root:
        assert suite.tag == "testsuite"
        cases = suite.findall("testcase")
        assert [child.tag for child in suite] == ["testcase"] * len(cases) + ["system-out"] * (len(suite) - len(cases))
        assert all(case.get("name") and case.get("classname") and float(case.get("time", "")) >= 0 for case in cases)
        assert all({child.tag for child in case} <= {"failure", "skipped"} and len(case) <= 1 for case in cases)
        assert int(suite.get("tests", "")) == len(cases)
        assert int(suite.get("failures", "")) == len(suite.findall("testcase/failure"))
        assert int(suite.get("skipped", "")) == len(suite.findall("testcase/skipped"))
        assert len({(case.get("classname"), case.get("name")) for case in cases}) == len(cases)
    for name in ("tests", "failures", "skipped"):
        assert int(root.get(name, "")) == sum(int(suite.get(name, "")) for suite in root)


def failing(root: ElementTree.Element) -> dict[str, str]:
    return {
        f"{case.get('classname')} {case.get('name')}": str(failure.get("message"))
        for case in root.iter("testcase")
        if (failure := case.find("failure")) is not None
    }


def test_a_case_an_artifact_a_figure_and_a_step(tmp_path: Path) -> None:
    root = written(tmp_path, example_run.replay_events())
    names = [case.get("classname") for case in root.iter("testcase")]
    assert names.count("digits.steps") == len(example_run.VALUES)
    assert names.count("digits.artifacts") == 7
    assert names.count("digits.figures") == 2
    assert failing(root) == {}
    assert root[0].get("name") == "recipes/digits.yaml"


def test_a_suite_a_recipe(tmp_path: Path) -> None:
    assert len(written(tmp_path, example_run.replay_events(), example_run.replay_events())) == 2


def test_what_differs_and_what_is_worse_fails_with_its_cause(tmp_path: Path) -> None:
    cause = "model.source: sha256:cc → sha256:dd"
    found = example_run.replay_events(same=["data"], differences=DIFFERENCES, worse=WORSE, cause=cause)
    failures = failing(written(tmp_path, found))
    assert list(failures) == ["digits.artifacts model", "digits.figures int8.p50"]
    told = f"locked sha256:{'a' * 12}, found sha256:{'b' * 12}; first differing input: {cause}"
    assert failures["digits.artifacts model"] == told
    assert failures["digits.figures int8.p50"].startswith(
        "worse than locked: 148 µs (no interval) → 250 µs (no interval); latency/int8-dynamic: Disturbed:"
    )


def test_level_figures_lets_artifacts_differ(tmp_path: Path) -> None:
    found = example_run.replay_events(level="figures", same=["data"], differences=DIFFERENCES)
    root = written(tmp_path, found)
    assert failing(root) == {}
    skipped = root.findall(".//testcase[@name='model']/skipped")
    assert str(skipped[0].get("message")).startswith("level figures: locked sha256:aaaa")


def test_a_failed_step_fails_and_what_came_after_is_skipped(tmp_path: Path) -> None:
    root = written(tmp_path, example_run.failed_events("parity", "It is not\x00 equal.", "Look."))
    assert failing(root) == {"digits.steps parity": "It is not\N{REPLACEMENT CHARACTER} equal. Look."}
    skipped = [case.get("name") for case in root.iter("testcase") if case.find("skipped") is not None]
    assert skipped == ["benchmark/alone", "benchmark/busy", "gates", "push"]


def test_a_run_that_ended_before_its_steps_still_fails(tmp_path: Path) -> None:
    error = {"kind": "MachineLacks", "message": "Another toolchain is here.", "cure": "Make that environment."}
    found = [example_run.started()[0], example_run.events.RunFinished(status="failed", exit_code=6, error=error)]
    root = written(tmp_path, example_run.stamped(found))
    assert list(failing(root).values()) == ["Another toolchain is here. Make that environment."]


def test_the_summary_is_markdown_with_the_verdict(tmp_path: Path) -> None:
    path = tmp_path / "new" / "summary.md"
    differing = example_run.replay_events(differences=DIFFERENCES, cause="model.source: <a|b>")
    summary_markdown([example_run.state(example_run.replay_events()), example_run.state(differing)], path)
    text = path.read_text(encoding="utf-8")

    assert re.search(r"^## ✅ digits: replay done in ", text, re.MULTILINE)
    assert "### reproduced 7, reused 0" in text
    assert "| artifact | locked | found |\n| --- | --- | --- |\n| model | sha256:aaaaaaaaaaaa |" in text
    assert "First differing input: model.source: &lt;a\\|b&gt;" in text
    assert "**model differs from the lock.**" in text


def test_the_summary_of_a_run_has_its_tables(tmp_path: Path) -> None:
    path = tmp_path / "summary.md"
    summary_markdown([example_run.state(example_run.run_events())], path)
    text = path.read_text(encoding="utf-8")

    assert "| variant | size | accuracy | change to original | gates |\n| --- | ---: | --- | --- | --- |" in text
    assert "| int8 (chosen) | 350.0 KiB | 0.986<br>\\[0.968, 0.994\\] |" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in rows)


def test_a_report_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(MachineLacks, match=r"taken/junit\.xml cannot be written"):
        junit([], tmp_path / "taken" / "junit.xml")
