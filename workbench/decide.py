"""Decisions: cheap steps that judge the values of others and run in the run process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from workbench.errors import GateFailed, WorkbenchError
from workbench.evaluate import gates
from workbench.plan import Ref, Step
from workbench.store import Result

Results = Mapping[str, Result]


@dataclass(frozen=True)
class Decided:
    """A decision: its values, the model that is passed on, and the error where a gate does not hold."""

    values: dict[str, Any]
    model: Ref | None = None
    error: WorkbenchError | None = None


def figures_of(name: str, results: Results) -> dict[str, Any]:
    """What is known of a variant, in the form :mod:`workbench.evaluate.gates` judges."""
    evaluate, latency = results[f"evaluate/{name}"].values, results[f"latency/{name}"].values
    return {"size": evaluate["size"], "evaluate": evaluate, "latency": latency}


def choose(step: Step, results: Results) -> Decided:
    """Takes the best variant that keeps the gates, or the one that the recipe names or the lock pins if it keeps them.

    What the recipe names is what the lock pins, unless the recipe changed; ``today`` is what would be taken without a
    lock.
    """
    variants, minimize, named = step.params["variants"], step.params["minimize"], step.params.get("named")
    pinned = named or step.params["pinned"]
    gate = dict(step.params["gate"])
    if gate.get("p99", {}).get("of", "variant") != "variant":
        del gate["p99"]  # judged after the benchmark it names
    original = figures_of("original", results)
    figures = {name: {**figures_of(name, results), "original": original} for name in ("original", *variants)}
    decisions = {name: gates.decide(gate, name, found) for name, found in figures.items()}
    choice = gates.choose(figures, decisions, minimize)
    values: dict[str, Any] = {
        "choice": pinned or choice.variant,
        "today": named or choice.variant,
        "why": _NAMED if named else "the lock says so" if pinned else choice.why,
        "decisions": {name: [asdict(item) for item in found] for name, found in decisions.items()},
        "remarks": {name: gates.remarks(figures[name]) for name in variants},
    }
    if pinned:
        broken = [item for item in decisions[pinned] if item.state != "holds"]
        error = _broken(pinned, broken, named=bool(named)) if broken else None
        return Decided(values, _model(step, pinned), error)
    if choice.variant is None:
        values["closest"] = choice.closest
        return Decided(values, None, _none(choice, decisions))
    return Decided(values, _model(step, choice.variant))


def _model(step: Step, name: str) -> Ref:
    found = step.inputs[name]
    assert isinstance(found, Ref)
    return found


_NAMED = "the recipe names it"


def _broken(name: str, broken: list[gates.Decision], *, named: bool) -> GateFailed:
    reasons = "; ".join(f"{item.gate} {item.state}: {item.why}" for item in broken)
    if named:
        return GateFailed(
            f"{name} does not keep the gates, and the recipe names it: {reasons}.",
            "Change the gate or choose.variant in the recipe, or have it chosen: choose: {minimize: p50}",
        )
    return GateFailed(
        f"{name} does not keep the gates: {reasons}.",
        "Change the gate or the variants in the recipe, or choose again: workbench run --update choice",
    )


def _none(choice: gates.Choice, decisions: Mapping[str, list[gates.Decision]]) -> GateFailed:
    closest = str(choice.closest)
    reasons = "; ".join(
        f"{item.gate} {item.state}: {item.why}" for item in decisions.get(closest, []) if item.state != "holds"
    )
    return GateFailed(
        f"No variant keeps the gates. The closest is {closest}: {reasons}.",
        "Loosen the gate, add a variant, or measure more samples.",
    )


def gates_after(step: Step, results: Results) -> Decided:
    """The gates that need a benchmark of the image."""
    name = str(results["choose"].values["choice"])
    gate = {key: value for key, value in step.params["gate"].items() if key in ("p99", "undecided")}
    if gate.get("p99", {}).get("of", "variant") == "variant":
        return Decided({"decisions": []})
    benchmarks = {key.split("/")[1]: result.values for key, result in results.items() if key.startswith("benchmark/")}
    decisions = gates.decide(gate, name, {**figures_of(name, results), "benchmarks": benchmarks})
    broken = [item for item in decisions if item.state != "holds"]
    named = results["choose"].values.get("why") == _NAMED
    error = _broken(name, broken, named=named) if broken else None
    return Decided({"decisions": [asdict(item) for item in decisions]}, None, error)


DECISIONS: Mapping[str, Callable[[Step, Results], Decided]] = {"choose": choose, "gates": gates_after}
