"""Gates, and the choice among the variants that keep them. Pure functions on figures; nothing heavy is imported.

A gate ``holds``, ``fails`` or is ``undecided``. A measured figure is judged by its 95% interval, not by its value:

========  =======================================  ==============================
state     metric_drop, p99 (a limit from above)    metric_min (where more is better)
========  =======================================  ==============================
holds     the whole interval is within the limit   likewise
fails     the whole interval is beyond the limit   likewise
undecided the interval spans the limit, or there are too few samples for the figure
========  =======================================  ==============================

So how many samples there are decides what can be shown: with 360 samples and not one changed decision the interval of
an accuracy drop is ±0.8%, and a limit of 0.01 holds; with 100 samples it is ±2.8%, and the same limit is undecided.
``undecided: pass`` in the recipe lets such a gate through, and says so. The size of a model is exact.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

State = Literal["holds", "fails", "undecided"]
Figures = Mapping[str, Any]
Interval = tuple[float, float]

ORIGINAL = "original"
_SECOND = 1e9


@dataclass(frozen=True)
class Decision:
    """One gate for one variant: limit and value in words, and why it is so."""

    gate: str
    state: State
    limit: str
    value: str
    why: str


@dataclass(frozen=True)
class Choice:
    """The variant taken (None: no variant keeps the gates) and why; then ``closest`` names the one nearest to it."""

    variant: str | None
    why: str
    closest: str | None = None


def decide(gate: Mapping[str, Any], variant: str, figures: Figures) -> list[Decision]:
    """Judge one variant by every gate of the recipe.

    ``gate``: ``metric_drop``, ``metric_min`` (in units of the metric), ``model_size`` (bytes), ``p99`` ({of, max in
    seconds}) and ``undecided`` (fail or pass). ``figures``: ``size``, the values of the ``evaluate`` and ``latency``
    steps, those of the ``original`` in the same form, and ``benchmarks`` by name.
    """
    found = []
    if gate.get("metric_drop") is not None:
        found.append(_metric_drop(float(gate["metric_drop"]), variant, figures))
    if gate.get("metric_min") is not None:
        found.append(_metric_min(float(gate["metric_min"]), figures))
    if gate.get("model_size") is not None:
        found.append(_model_size(int(gate["model_size"]), figures))
    if gate.get("p99"):
        found.append(_p99(gate["p99"], variant, figures))
    if gate.get("undecided") == "pass":
        found = [_let_through(item) for item in found]
    return found


def choose(
    candidates: Mapping[str, Figures], decisions: Mapping[str, Sequence[Decision]], minimize: str = "p50"
) -> Choice:
    """Take the variant with the least ``minimize`` (p50, p99, size, metric_drop) among those that keep their gates.

    The original takes part on equal terms where it is among the candidates: a variant is taken over it only if it is
    better by more than the noise (the interval of the ratio, or of the drop, lies below no change; sizes are exact).
    Variants that the noise cannot tell from the best one are told apart by size, then by name.
    """
    keeping = [name for name in candidates if _keeps(decisions.get(name, ()))]
    if not keeping:
        return _none(candidates, decisions)
    scores = {name: _score(minimize, name, candidates[name]) for name in keeping}
    known = {name: score for name, score in scores.items() if score is not None}
    with_original = ORIGINAL in keeping
    if with_original:
        better = {n: s for n, s in known.items() if n != ORIGINAL and _beats_original(minimize, n, s, candidates)}
        if not better:
            return _stay(minimize, [name for name in keeping if name != ORIGINAL])
        known = better
    if not known:
        name = min(keeping, key=lambda n: (candidates[n]["size"], n))
        return Choice(name, f"{minimize} was not measured well enough for any variant; {name} is the smallest")
    return _best(minimize, known, candidates)


def remarks(figures: Figures) -> list[str]:
    """What speaks against the variant in words: larger, slower or worse than the original, each with its figures."""
    original = figures.get("original") or {}
    found = []
    size, before = figures.get("size"), original.get("size")
    if size is not None and before is not None and size > before:
        found.append(f"larger than the original: {_bytes(size)}, not {_bytes(before)}")
    latency = figures.get("latency") or {}
    ratio, verdict = latency.get("ratio"), latency.get("verdict")
    if verdict == "slower":
        low, high = latency.get("ratio_interval", (ratio, ratio))
        found.append(f"slower than the original: {ratio:.2f} times its latency ({low:.2f} to {high:.2f})")
    elif verdict == "no difference":
        found.append("not faster than the original: the difference in latency is within the noise")
    found.extend(_metric_remarks(figures))
    return found


def _metric_remarks(figures: Figures) -> list[str]:
    evaluate = figures.get("evaluate") or {}
    compare = evaluate.get("compare")
    if not compare or compare["drop"] <= 0:
        return []
    name, (low, high) = evaluate["metric"]["name"], compare["interval"]
    sure = "worse than the original" if low > 0 else "measured worse than the original, within the noise"
    return [f"{sure}: {name} by {compare['drop']:.4g} ({low:.4g} to {high:.4g})"]


def _metric_drop(limit: float, variant: str, figures: Figures) -> Decision:
    evaluate = figures.get("evaluate") or {}
    compare = evaluate.get("compare")
    name = evaluate.get("metric", {}).get("name", "metric")
    if compare is None:
        if variant == ORIGINAL:
            state: State = "holds" if limit >= 0 else "fails"
            return Decision("metric_drop", state, f"at most {limit:g}", "0", "it is the original itself")
        return Decision("metric_drop", "undecided", f"at most {limit:g}", "unknown", "it was not compared")
    low, high = compare["interval"]
    flipped = compare.get("flipped")
    changed = "" if flipped is None else f"; {flipped} of {evaluate.get('samples')} decisions changed"
    state = _below(limit, (low, high))
    value = f"{compare['drop']:.4g} ({low:.4g} to {high:.4g})"
    return Decision("metric_drop", state, f"at most {limit:g}", value, _because(state, f"the drop in {name}") + changed)


def _metric_min(limit: float, figures: Figures) -> Decision:
    metric = (figures.get("evaluate") or {}).get("metric")
    if metric is None:
        return Decision("metric_min", "undecided", f"{limit:g}", "unknown", "it was not evaluated")
    more, value = bool(metric["higher_is_better"]), float(metric["value"])
    low, high = metric.get("interval") or (value, value)
    state = _below(-limit, (-high, -low)) if more else _below(limit, (low, high))
    words = f"at {'least' if more else 'most'} {limit:g}"
    return Decision(
        "metric_min", state, words, f"{value:.4g} ({low:.4g} to {high:.4g})", _because(state, metric["name"])
    )


def _model_size(limit: int, figures: Figures) -> Decision:
    size = int(figures["size"])
    state: State = "holds" if size <= limit else "fails"
    over = "" if size <= limit else f", {_bytes(size - limit)} too much"
    return Decision("model_size", state, f"at most {_bytes(limit)}", _bytes(size), f"the file has {size} bytes{over}")


def _p99(gate: Mapping[str, Any], variant: str, figures: Figures) -> Decision:
    of, limit = str(gate.get("of", "variant")), float(gate["max"])
    name = "p99" if of == "variant" else f"p99 of {of}"
    words = f"at most {_seconds(limit)}"
    side, invalid = _measured(of, variant, figures)
    if side is None or side.get("p99_ns") is None:
        why = invalid or "too few samples for a 99th percentile: measure longer"
        return Decision(name, "undecided", words, "unknown", why)
    value = side["p99_ns"] / _SECOND
    low, high = (end / _SECOND for end in side.get("p99_interval_ns") or (side["p99_ns"], side["p99_ns"]))
    state = _below(limit, (low, high))
    shown = f"{_seconds(value)} ({_seconds(low)} to {_seconds(high)})"
    return Decision(name, state, words, shown, _because(state, "the 99th percentile"))


def _measured(of: str, variant: str, figures: Figures) -> tuple[Figures | None, str]:
    """The percentiles that the gate is about, or None and why there are none."""
    if of == "variant":
        latency = figures.get("latency") or {}
        own = latency.get("original") if variant == ORIGINAL else latency.get("variant")
        return own, "" if own else "its latency was not measured"
    benchmark = (figures.get("benchmarks") or {}).get(of)
    if not benchmark:
        return None, f"the benchmark {of} was not run"
    system = benchmark.get("image") or benchmark.get("process") or benchmark
    if system.get("valid") is False:
        return None, f"the benchmark {of} is not valid: {'; '.join(system.get('reasons') or ['see its log'])}"
    return system, ""


def _below(limit: float, interval: Interval) -> State:
    if interval[1] <= limit:
        return "holds"
    return "fails" if interval[0] > limit else "undecided"


def _because(state: State, what: str) -> str:
    if state == "undecided":
        return f"the interval of {what} spans the limit: more samples would decide"
    return f"the whole interval of {what} is {'within' if state == 'holds' else 'beyond'} the limit"


def _let_through(decision: Decision) -> Decision:
    if decision.state != "undecided":
        return decision
    why = f"undecided, and the recipe lets that pass ({decision.why})"
    return Decision(decision.gate, "holds", decision.limit, decision.value, why)


def _keeps(decisions: Sequence[Decision]) -> bool:
    return all(decision.state == "holds" for decision in decisions)


def _none(candidates: Mapping[str, Figures], decisions: Mapping[str, Sequence[Decision]]) -> Choice:
    """The closest: fewest gates failed, then fewest undecided; a variant before the original; the smaller; by name."""

    def distance(name: str) -> tuple[int, int, bool, int, str]:
        states = [decision.state for decision in decisions.get(name, ())]
        return states.count("fails"), states.count("undecided"), name == ORIGINAL, candidates[name]["size"], name

    if not candidates:
        return Choice(None, "there are no variants", None)
    closest = min(candidates, key=distance)
    missed = [f"{d.gate} {d.state} ({d.value}, {d.limit})" for d in decisions[closest] if d.state != "holds"]
    return Choice(None, f"no variant keeps the gates; closest is {closest}: {', '.join(missed)}", closest)


def _score(minimize: str, name: str, figures: Figures) -> tuple[float, Interval] | None:
    """What is minimised, with its interval, in units in which variants compare; None where it was not measured."""
    latency = figures.get("latency") or {}
    if minimize == "size":
        size = float(figures["size"])
        return size, (size, size)
    if minimize == "p50":
        if name == ORIGINAL:
            return 1.0, (1.0, 1.0)
        return _with_interval(latency.get("ratio"), latency.get("ratio_interval"))
    if minimize == "p99":
        own = latency.get("original" if name == ORIGINAL else "variant") or {}
        return _with_interval(own.get("p99_ns"), own.get("p99_interval_ns"))
    compare = (figures.get("evaluate") or {}).get("compare")
    if compare is None:
        return (0.0, (0.0, 0.0)) if name == ORIGINAL else None
    return _with_interval(compare["drop"], compare["interval"])


def _with_interval(value: float | None, interval: Sequence[float] | None) -> tuple[float, Interval] | None:
    if value is None or interval is None:
        return None
    return float(value), (float(interval[0]), float(interval[1]))


def _beats_original(minimize: str, name: str, score: tuple[float, Interval], candidates: Mapping[str, Figures]) -> bool:
    """Whether the variant's whole interval lies below the original's."""
    latency = candidates[name].get("latency") or {}
    if minimize == "p50":
        # The verdict is stricter than the 95% interval: at that, one model in twenty would differ from itself.
        return score[1][1] < 1.0 and latency.get("verdict", "faster") == "faster"
    if minimize == "p99":
        # Against the original as it was in the same alternating blocks, not in a step of its own.
        beside = latency.get("original") or {}
        other = _with_interval(beside.get("p99_ns"), beside.get("p99_interval_ns"))
    else:
        other = _score(minimize, ORIGINAL, candidates[ORIGINAL])
    return other is not None and score[1][1] < other[1][0]


def _stay(minimize: str, others: Sequence[str]) -> Choice:
    if not others:
        return Choice(ORIGINAL, "only the original keeps the gates")
    names = ", ".join(sorted(others))
    return Choice(
        ORIGINAL, f"no variant that keeps the gates ({names}) has a lower {_WORDS[minimize]} than the original"
    )


def _best(minimize: str, known: Mapping[str, tuple[float, Interval]], candidates: Mapping[str, Figures]) -> Choice:
    best = min(known, key=lambda name: (known[name][0], name))
    ties = [name for name in known if known[name][1][0] <= known[best][1][1]]
    taken = min(ties, key=lambda name: (candidates[name]["size"], name))
    why = f"{_WORDS[minimize]}: {_shown(minimize, known[taken])}, the lowest of those that keep the gates"
    if len(ties) > 1:
        others = ", ".join(sorted(set(ties) - {taken}))
        why = f"{_WORDS[minimize]}: {_shown(minimize, known[taken])}; not to be told from {others}, and smaller"
        if any(candidates[name]["size"] == candidates[taken]["size"] for name in ties if name != taken):
            why += " or first by name"
    return Choice(taken, why)


_WORDS: Mapping[str, str] = {"p50": "median latency", "p99": "p99", "size": "size", "metric_drop": "metric drop"}


def _shown(minimize: str, score: tuple[float, Interval]) -> str:
    value, (low, high) = score
    if minimize == "size":
        return _bytes(int(value))
    if minimize == "p50":
        return f"{value:.2f} times the original's ({low:.2f} to {high:.2f})"
    if minimize == "p99":
        return f"{_seconds(value / _SECOND)} ({_seconds(low / _SECOND)} to {_seconds(high / _SECOND)})"
    return f"{value:.4g} ({low:.4g} to {high:.4g})"


def _bytes(count: int) -> str:
    amount = float(count)
    for unit in ("B", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.2f} GiB"


def _seconds(value: float) -> str:
    for factor, unit in ((1.0, "s"), (1e3, "ms")):
        if value * factor >= 1:
            return f"{value * factor:.3g} {unit}"
    return f"{value * 1e6:.3g} µs"
