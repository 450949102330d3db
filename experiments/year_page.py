"""Page and plot of the year of deletion requests."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.drawing import figure

COMMAND = "python -m experiments year"
PALETTE = ("#1b6ca8", "#d1495b", "#66a182", "#8d6a9f", "#edae49")
SHORT = {
    "MATCHES RETRAINING WITHIN LIMITS": "matches",
    "MEMORY GONE WITHIN LIMITS": "memory gone",
    "INCONCLUSIVE": "inconclusive",
}

COLUMNS = (
    "Data", "Policy", "Requests done", "Late", "Batches", "Retrained", "Rows", "Cost", "Seconds",
    "Test error, start to end", "Most", "Distance", "Memory", "Verdicts",
)  # fmt: skip

HEAD = f"""# A year of deletion requests

Made by `{COMMAND}`. 365 simulated days on one model. Requests arrive as a Poisson process (digits:
0.6 a day, Adult: 1.0 a day) and name one training row or a few. One in ten must be answered within
10 days, the others within 30; one in twenty is sent twice, one in thirty-three names nobody. Every
third day a timer calls the real [ledger](../ledger.md#many-batches), but for an outage from day 200
to 211. Requests wait at most 14 days for company. Every policy gets the same requests.

- Digits: 1,437 training and 360 test rows, a perceptron, 20 epochs. Adult: the first 5,000 training
  and 4,000 test people, a perceptron, 4 epochs.
- *rule* is `retrain_when: {{batches: 6, rows_share: 0.05, test_error_rise: 0.01}}`. Policies
  without a reference audit have a fast one. *fine-tune* alone accepts every verdict and never
  retrains: it shows the drift that the rule limits.
- Cost: retrainings, audits not counted; of shards it is not counted. Seconds: of the processor,
  audits included; other programs shared the machine.
- Memory: the chance that a row deleted during the year has a lower loss than a test row, under the
  last model, with its standard error for two independent groups. It is good when it equals that of
  *retrain*, whose last model saw none of them: the two groups need not be equally difficult.
- Late: answered after the deadline. Requests that are missing among those done named nobody, or
  still wait on the last day.

| {" | ".join(COLUMNS)} |
|{"---|" * len(COLUMNS)}
"""


READING = """Dots: batches that the rule had retrained. What the lines show:

- Fine-tuning alone moves ever farther from its last retraining. On Adult its test error rises with
  it, on digits it does not. The rule cuts both off with four retrainings a year.
- No policy's last model remembers the deleted rows more than a retrained one, within two standard
  errors: rows drawn at random are little remembered by models as small as these.
- Audits are most of the time on Adult, so that a cheap method saves little of it.
- A fast audit says INCONCLUSIVE at best: it has no retrained models to compare with.
- What is late is the outage's. Everything else is answered days before its deadline.
"""


def _line(name: str, one: Mapping[str, Any]) -> str:
    data, policy = name.split("/")
    batches = one["batches"]
    errors = [b["test_error"] for b in batches]
    verdicts = Counter(SHORT.get(b["verdict"], b["verdict"].lower()) for b in batches)
    cells = (
        data,
        policy,
        f"{one['states'].get('done', 0)} of {one['requests']}",
        str(one["late"]),
        str(len(batches)),
        str(sum(b["methods"][-1] == "retrain" for b in batches)),
        f"{one['rows']} of {one['training_rows']:,}",
        "" if "SISA" in policy else f"{one['cost']:.1f}",
        f"{one['seconds']:.0f}",
        f"{errors[0]:.3f} to {errors[-1]:.3f}",
        f"{max(errors):.3f}",
        f"{max(b['distance'] for b in batches):.2f}",
        f"{one['memory']['auc']:.3f} ± {one['memory']['error']:.3f}",
        ", ".join(f"{n} {v}" for v, n in verdicts.most_common()),
    )
    return f"| {' | '.join(cells)} |\n"


def page(kept: Mapping[str, Any]) -> str:
    """Return the page of results."""
    lines = "".join(_line(name, one) for name, one in kept.items())
    speed = "".join(
        f"- {name}: {one['seconds_early']:.2f} s a batch in the first sixth of the year,"
        f" {one['seconds_late']:.2f} s in the last; {one['entries']} entries verified in"
        f" {one['verify_seconds']:.2f} s, {len(one['wrong'])} faults\n"
        for name, one in kept.items()
    )
    figure_line = "![Cost, drift and waiting time over the year](year.svg)"
    return (
        f"{HEAD}{lines}\n{figure_line}\n\n{READING}\n## Does a batch become slower with the number"
        f" of requests before it?\n\nMedian seconds of the processor:\n\n{speed}"
    )


PANELS: dict[str, Callable[[Mapping[str, Any]], Sequence[float]]] = {
    "Seconds so far": lambda one: _sums([b["seconds"] for b in one["batches"]]),
    "Test error": lambda one: [b["test_error"] for b in one["batches"]],
    "Distance since the\nlast retraining": lambda one: [b["distance"] for b in one["batches"]],
    "Days from arrival to\nanswer, longest of a batch": lambda one: [
        b["waited"] for b in one["batches"]
    ],
}


def _sums(values: Sequence[float]) -> list[float]:
    total, found = 0.0, []
    for value in values:
        total += value
        found.append(total)
    return found


def plot(kept: Mapping[str, Any], path: Path) -> None:
    """Write the plot: a column for each data set, a row for each quantity, a line for a policy."""
    names = list(dict.fromkeys(key.split("/")[0] for key in kept))
    with figure(path, 4.6 * len(names), 9.2) as drawn:
        axes = drawn.subplots(len(PANELS), len(names), squeeze=False, sharex=True)
        for column, data in enumerate(names):
            mine = {k.split("/")[1]: v for k, v in kept.items() if k.startswith(f"{data}/")}
            for row, (what, value) in enumerate(PANELS.items()):
                ax = axes[row][column]
                _draw(ax, mine, value)
                if column == 0:
                    ax.set_ylabel(what)
            axes[-1][column].axhline(30, color="#8a8f99", lw=0.8, ls="--")
            axes[-1][column].annotate("deadline of most", (5, 30), (0, 3), fontsize=7.5,
                                      textcoords="offset points", color="#5a5f69")  # fmt: skip
            axes[-1][column].set_ylim(0, 34)
            axes[-1][column].set_xlabel("Day")
            axes[0][column].legend(
                title=data, loc="lower left", bbox_to_anchor=(-0.05, 1.0), frameon=False,
                fontsize=8, title_fontsize=10, alignment="left",
            )  # fmt: skip


def _draw(
    ax: Any, mine: Mapping[str, Any], value: Callable[[Mapping[str, Any]], Sequence[float]]
) -> None:
    ax.axvspan(200, 212, color="#e4e6eb", lw=0)
    for colour, (label, one) in zip(PALETTE, mine.items(), strict=False):
        days = [b["day"] for b in one["batches"]]
        values = value(one)
        ax.plot(days, values, "-", lw=1.2, color=colour, label=label)
        again = [i for i, b in enumerate(one["batches"]) if b["retrain"]]
        ax.plot([days[i] for i in again], [values[i] for i in again], "o", ms=4, color=colour)
