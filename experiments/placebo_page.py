"""The page and the plot of method cards."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.drawing import panels
from unlearnkit.report.schema import Verdict

DIAL = "shrink_perturb, renew "
"""Label of the dial, before its setting."""

COLUMNS = (
    *("method", "memory gone?", "like retraining?", "retain / test", "cost"),
    *("memory", "signature", "likeness", "verdicts"),
)

HEAD = """# Cards of methods: memory, signature and likeness

Written by `python -m experiments placebo`; [numbers](placebo.json), with the sentences of both
answers. Every method at its defaults, and the dial of `shrink_perturb`, as the
[strong audit](../verdicts.md) judges them: by N models of each kind.

- Memory: unlearned against placebo models (the same method on models that never saw the forget
  set). Signature: placebo against retrained models. Likeness: unlearned against retrained models.
  Each cell: U-LiRA AUC (0.5 = alike), median KLoM (nats), mean shift of margins (standard
  deviations), exposed records.
- Memory gone, like retraining: the answers to the two questions, within the limits of the audit.
- Retain / test: accuracy minus that of retrained models, in points, with test rows of kept classes
  alone; a minus is a loss. Where targets are numbers: error minus theirs; a plus is a loss.
- Cost: row passes as a share of retraining's.
- Verdicts are those of the N models; an audit of a run adds what its one model shows. A lower fit
  of retained rows that noisy labels explain is no damage, by the same check as in an audit.

With 24 models single records cannot be attacked: such a card has the shift of margins alone, and
no verdict can pass. Their U-LiRA AUC with all models is in
[what methods add to fine-tuning](over_finetuning.md). Cards of `datamodel_matching` on a random
tenth are on [the page of attribution](attribution.md).

![Memory against test accuracy; cost as size](placebo.svg)

The area of a point is its cost; the dashed line is the test accuracy (or error) of retrained
models. The line of points is the dial of `shrink_perturb`. Its last point (`renew` 1) is a short
retraining, which never saw the forget set: a setting below it is worth its name only where it
answers test rows better.
"""


def page(kept: Mapping[str, Any], left_out: Mapping[str, Mapping[str, str]]) -> str:
    """Return the results as Markdown.

    Args:
        kept: The cards by request, number of models and label; and the false alarms.
        left_out: Which methods have no card on a request, and why.
    """
    cards = [(*key.split("/", 2), one) for key, one in kept.items() if "/" in key]
    parts = [HEAD]
    for request in left_out:
        mine = [(int(n), label, one) for name, n, label, one in cards if name == request]
        parts += _section(request, sorted(mine, key=lambda x: x[1]), left_out[request])
    if "false_alarms" in kept:
        parts.append(_alarms_text(kept["false_alarms"]))
    return "\n".join(parts)


def _section(
    request: str, mine: Sequence[tuple[int, str, dict[str, Any]]], left_out: Mapping[str, str]
) -> list[str]:
    done = [x for x in mine if "failed" not in x[2]]
    if not done:
        return [f"## {request}\n\nNot measured yet.\n"]
    most = max(n for n, *_ in done)
    first = next(one for n, _, one in done if n == most)
    unit = "error" if first["errors"] else "accuracy"
    retrained = " / ".join(f"{first['retrained'][s]:.3f}" for s in ("retain", "test"))
    like = first["arms"]["likeness"]
    yes = {
        question: [label for _, label, one in done if one["answers"][question][0] == "yes"]
        for question in ("memory", "likeness")
    }
    lines = [
        f"## {request}\n",
        f"{most} models of each kind where the method does not say otherwise; {like['records']}"
        f" records to forget. Untouched models against retrained ones: U-LiRA AUC"
        f" {_number(like['auc_original'], '.3f')}. Retrained models: {unit} {retrained} (retain /"
        f" test), median KLoM between two sets {_number(like['klom_floor'], '.2f')}.\n",
        f"Memory gone within limits: {'; '.join(yes['memory']) or 'none'}. Like retraining within"
        f" limits: {'; '.join(yes['likeness']) or 'none'}.\n",
        f"| {' | '.join(COLUMNS)} |",
        f"|{'---|' * len(COLUMNS)}",
    ]
    for n, label, one in done:
        name = label if n == most else f"{label} ({n} models)"
        lines.append(f"| {' | '.join(_cells(name, one))} |")
    why: dict[str, list[str]] = {}
    for label, reason in left_out.items():
        why.setdefault(reason, []).append(f"`{label}`")
    for _, label, one in mine:
        if "failed" in one:
            why.setdefault(one["failed"], []).append(f"`{label}`")
    told = "; ".join(f"{', '.join(names)}: {reason}" for reason, names in why.items())
    return [*lines, f"\nNo card: {told}.\n"]


def _cells(name: str, one: Mapping[str, Any]) -> list[str]:
    scale, form = (1.0, "+.3f") if one["errors"] else (100.0, "+.1f")
    gaps = (
        format(scale * (one["accuracy"][s] - one["retrained"][s]), form) for s in ("retain", "test")
    )
    return [
        name,
        one["answers"]["memory"][0],
        one["answers"]["likeness"][0],
        " / ".join(gaps),
        f"{one['cost']:.3f}",
        *(_cell(one["arms"].get(arm)) for arm in ("memory", "signature", "likeness")),
        ", ".join(v for v in one["verdicts"] if v != Verdict.INCONCLUSIVE) or Verdict.INCONCLUSIVE,
    ]


def _cell(arm: Mapping[str, Any] | None) -> str:
    if arm is None:
        return "no placebo arm"
    numbers = (
        _number(arm["auc"]["value"], ".3f"),
        _number(arm["klom"], ".2f"),
        _number(arm["shift"]["value"], "+.2f"),
    )
    few = arm["familiar"] is None or arm["strange"] is None
    exposed = "-" if few else str(arm["familiar"] + arm["strange"])
    return f"{'; '.join(numbers)}; {exposed}"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def plot(kept: Mapping[str, Any], path: Path) -> None:
    """Write memory against test accuracy, a panel for each request, the dial as a line."""
    each = [(*key.split("/", 2), one) for key, one in sorted(kept.items()) if "/" in key]
    lines = [
        x
        for x in each
        if "failed" not in x[-1]
        and x[-1]["arms"].get("memory", {}).get("auc", {}).get("value") is not None
    ]
    requests = list(dict.fromkeys(request for request, *_ in lines))
    with panels(path, requests, 2, 6.0, 4.4) as (_, drawn):
        for request, ax in drawn.items():
            mine = [(label, one) for name, _, label, one in lines if name == request]
            _panel(ax, mine)
            unit = "Test error" if mine[0][1]["errors"] else "Test accuracy"
            ax.set(title=request, ylabel=unit, xlabel="Memory: U-LiRA AUC (0.5 = none)")


def _panel(ax: Any, mine: Sequence[tuple[str, dict[str, Any]]]) -> None:
    points = [
        (label, one["arms"]["memory"]["auc"]["value"], one["accuracy"]["test"], one["cost"])
        for label, one in mine
    ]
    dial = [(x, y) for label, x, y, _ in points if label.startswith(DIAL)]
    if dial:
        ax.plot(*zip(*dial, strict=True), "-", color="0.7", zorder=0)
    for label, x, y, cost in points:
        own = label.startswith(DIAL)
        ax.scatter(x, y, s=8 + 200 * cost, color="C0" if own else "C1", alpha=0.7, lw=0)
    ax.axvline(0.5, color="0.6", lw=0.8, ls=":")
    ax.axhline(mine[0][1]["retrained"]["test"], color="0.6", lw=0.8, ls="--")
    named = sorted((y, x, label.replace(DIAL, "renew ")) for label, x, y, _ in points)
    low, high = ax.get_ylim()
    heights = spread([(y - low) / (high - low) for y, *_ in named], 0.045)
    for (y, x, text), height in zip(named, heights, strict=True):
        ax.annotate(
            text,
            (x, y),
            xytext=(1.04, height),
            textcoords="axes fraction",
            va="center",
            fontsize=6,
            arrowprops={"arrowstyle": "-", "lw": 0.3, "color": "0.5", "relpos": (0, 0.5)},
        )


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """Return sorted heights moved up, and down from 1, until neighbours are a gap apart.

    Args:
        heights: Ascending, as shares of the axis.
        gap: Least distance of two; less where so many do not fit between 0 and 1.

    Returns:
        As many heights, ascending.
    """
    gap, moved = min(gap, 1 / max(len(heights), 1)), list(heights)
    for i in range(1, len(moved)):
        moved[i] = max(moved[i], moved[i - 1] + gap)
    for i in reversed(range(len(moved))):
        moved[i] = min(moved[i], 1 - gap * (len(moved) - 1 - i))
    return moved


def _alarms_text(found: Mapping[str, Any]) -> str:
    names = ("memory accused", "likeness accused", "memory gone", "matches")
    rates = " | ".join(f"{found['rates'][name]:.3f}" for name in names)
    return f"""## False alarms

{found["draws"]} draws of equal arms, {found["models"]} models of each kind, {found["examples"]}
rows of each section; margins of models that differ as a whole. Nominal: 5 % for memory, 1 % for
likeness (permutation test).

| LEAKS or OVER-FORGOT | DISTINGUISHABLE | MEMORY GONE | MATCHES |
|---|---|---|---|
| {rates} |
"""
