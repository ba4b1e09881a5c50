"""What a run found out about each variant, gathered from its steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from screens.words import items, mapping
from workbench.events import RunState


@dataclass(frozen=True)
class Variant:
    """One variant: the values of its ``evaluate`` and ``latency`` steps (empty where not there yet), its gates as
    ``{gate, state, why}``, and remarks."""

    name: str
    chosen: bool
    evaluate: Mapping[str, Any]
    latency: Mapping[str, Any]
    gates: tuple[Mapping[str, Any], ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def size(self) -> Any:
        """Bytes of its model file."""
        return self.evaluate.get("size")

    @property
    def percentiles(self) -> Mapping[str, Any]:
        """Its own latencies in ns, with their intervals."""
        return mapping(self.latency, "original" if self.name == "original" else "variant")


def variants(state: RunState) -> list[Variant]:
    """The original and every variant that has values, in the order of the plan."""
    measured: dict[str, dict[str, Mapping[str, Any]]] = {}
    for step in state.steps.values():
        if step.kind in ("evaluate", "latency") and step.values:
            measured.setdefault(step.id.partition("/")[2], {})[step.kind] = step.values
    chosen = _values(state, "choose").get("choice")
    return [
        Variant(
            name,
            name == chosen,
            found.get("evaluate", {}),
            found.get("latency", {}),
            _gates(state, name, name == chosen),
            tuple(str(remark) for remark in items(_values(state, "choose"), "remarks", name)),
        )
        for name, found in measured.items()
    ]


def _gates(state: RunState, name: str, chosen: bool) -> tuple[Mapping[str, Any], ...]:
    """The decisions on a variant; those that needed a benchmark of the image are on the chosen one."""
    found = items(_values(state, "choose"), "decisions", name)
    if chosen:
        found += items(_values(state, "gates"), "decisions")
    return tuple(mapping(decision) for decision in found)


def _values(state: RunState, step: str) -> Mapping[str, Any]:
    return state.steps[step].values if step in state.steps else {}
