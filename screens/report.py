"""Reports of replays for CI: JUnit XML and a Markdown summary."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree

from screens.blocks import Block, Cell
from screens.console import failure
from screens.present import report_blocks
from screens.present_replay import disturbances, figure
from screens.words import short
from workbench.events import RunState, StepState
from workbench.store import unwritable

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 has no way to write."""


def junit(states: Sequence[RunState], path: Path) -> None:
    """Writes a JUnit report: a suite a recipe, a test case an artifact, a figure and a step. Raises MachineLacks."""
    root = ElementTree.Element("testsuites", name="workbench")
    for state in states:
        root.append(_suite(state))
    for name in ("tests", "failures", "errors", "skipped"):
        root.set(name, str(sum(int(suite.get(name, "0")) for suite in root)))
    root.set("time", f"{sum(_seconds(state) for state in states):.3f}")
    ElementTree.indent(root)
    text = ElementTree.tostring(root, encoding="unicode", xml_declaration=False)
    _write(path, f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n')


def summary_markdown(states: Sequence[RunState], path: Path) -> None:
    """Writes what the replays found as Markdown, for a CI's summary page. Raises MachineLacks."""
    _write(path, "\n\n".join("\n".join(_markdown(state)) for state in states) + "\n")


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise unwritable(path, error) from error


def _suite(state: RunState) -> ElementTree.Element:
    cases = [*_steps(state), *_artifacts(state), *_figures(state)]
    if not any(case.find("failure") is not None for case in cases) and _failed(state):
        cases.append(_case(state, "run", state.run, failure=" ".join(failure(state)) or f"ended as {state.status}"))
    failures = sum(case.find("failure") is not None for case in cases)
    skipped = sum(case.find("skipped") is not None for case in cases)
    suite = ElementTree.Element(
        "testsuite",
        name=_xml(state.recipe or state.name or state.run),
        tests=str(len(cases)),
        failures=str(failures),
        errors="0",
        skipped=str(skipped),
        time=f"{_seconds(state):.3f}",
    )
    suite.extend(cases)
    if text := "\n".join([*(state.verdict.remarks if state.verdict else ()), *state.notes, *failure(state)]):
        ElementTree.SubElement(suite, "system-out").text = _xml(text)
    return suite


def _failed(state: RunState) -> bool:
    return state.status != "done" or bool(state.exit_code)


def _steps(state: RunState) -> Iterator[ElementTree.Element]:
    for step in state.steps.values():
        why, skipped = _outcome(step)
        yield _case(state, "steps", step.id, seconds=step.seconds, failure=why, skipped=skipped)


def _outcome(step: StepState) -> tuple[str, str]:
    """Why a step failed, why it was skipped."""
    if step.status == "failed":
        error = step.error or {}
        return " ".join(str(error[key]) for key in ("message", "cure") if error.get(key)) or "failed", ""
    return "", "" if step.status in ("done", "reused") else step.status


def _artifacts(state: RunState) -> Iterator[ElementTree.Element]:
    if state.verdict is None:
        return
    for name in state.verdict.same:
        yield _case(state, "artifacts", name)
    for each in state.verdict.differences:
        said = f"locked {short(each.get('locked'))}, found {short(each.get('found'))}"
        if state.verdict.cause:
            said += f"; first differing input: {state.verdict.cause}"
        name = str(each.get("name", ""))
        if state.verdict.level == "exact":
            yield _case(state, "artifacts", name, failure=said)
        else:
            yield _case(state, "artifacts", name, skipped=f"level figures: {said}")


def _figures(state: RunState) -> Iterator[ElementTree.Element]:
    if state.verdict is None:
        return
    worse = {figure(each)[0]: figure(each) for each in state.verdict.worse}
    for name in dict.fromkeys([*state.verdict.compared, *worse]):
        if name in worse:
            _, locked, found = (" ".join(text.split()) for text in worse[name])
            told = "; ".join([f"worse than locked: {locked} → {found}", *disturbances(state)])
            yield _case(state, "figures", name, failure=told)
        else:
            yield _case(state, "figures", name)


def _case(
    state: RunState, what: str, name: str, *, seconds: float = 0.0, failure: str = "", skipped: str = ""
) -> ElementTree.Element:
    kind = f"{state.name or state.run}.{what}"
    case = ElementTree.Element("testcase", classname=_xml(kind), name=_xml(name), time=f"{seconds:.3f}")
    if failure:
        ElementTree.SubElement(case, "failure", message=_xml(failure)).text = _xml(failure)
    if skipped:
        ElementTree.SubElement(case, "skipped", message=_xml(skipped))
    return case


def _seconds(state: RunState) -> float:
    return max(state.ended - state.started, 0.0) if state.ended and state.started else 0.0


def _xml(text: str) -> str:
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)


def _markdown(state: RunState) -> Iterator[str]:
    first, *blocks = report_blocks(state)
    mark = "❌" if _failed(state) else "✅"
    yield f"## {mark} {_escaped(first.title)}"
    for line in failure(state):
        yield ""
        yield f"**{_escaped(line)}**"
    for block in blocks:
        yield from _block(block)


def _block(block: Block) -> Iterator[str]:
    yield ""
    yield f"### {_escaped(block.title)}"
    if block.rows:
        columns = max(len(block.columns), *(len(row) for row in block.rows))
        heads = [*block.columns, *[""] * (columns - len(block.columns))]
        yield ""
        yield _table_row([_escaped(head) for head in heads])
        yield _table_row(["---:" if index in block.right else "---" for index in range(columns)])
        for row in block.rows:
            yield _table_row([_cell(each) for each in row])
    for sentence in block.below:
        yield ""
        yield _escaped(sentence.line)


def _table_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(cell: Cell) -> str:
    return "<br>".join(_escaped(line) for line in cell.text.split("\n"))


def _escaped(text: str) -> str:
    """``text`` so that Markdown and HTML show it as it is."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("\n", " ")
    return re.sub(r"([\\`*_\[\]|~])", r"\\\1", text)
