"""What ``auto`` chooses today: candidate, cost, verdict and test accuracy against retraining.

    python -m experiments auto [--case NAME]

``auto`` runs with the shipped decision table on the cases of ``memory_table``, those by which its
order was chosen and those by which it was judged: five originals each, judged against five
retrained models by the reference audit with its placebo control. What is written is not run again.
"""

import argparse
import json
import platform
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import torch

import unlearnkit as uk
from experiments.memory_table import GROUNDS, Ground
from experiments.over_finetuning import rounded
from unlearnkit.auto.selection import SelectedModel
from unlearnkit.core.runtime import Runtime
from unlearnkit.stats.intervals import mean_interval

OUT = Path("docs/results/auto.json")
ORACLES, ORIGINALS = 5, 5
LONG = {"photographs, class"}
"""Cases that run only where they are asked for by name: they take a quarter of an hour."""


def chosen(ground: Ground, seed: int) -> dict[str, Any]:
    """Return what ``auto`` does with one original of a case, and what the audit says of it."""
    asked = ground.make()
    cache = uk.Cache()
    original = uk.train_original(asked.case, seed=seed, cache=cache).model
    refused = False
    try:
        done = uk.unlearn(original, asked.case, asked.request, "auto", rt=Runtime(seed=seed))
    except uk.AutoFailedError as e:
        done, refused = e.best, True
    assert isinstance(done, SelectedModel)
    oracles = uk.oracle(asked.case, asked.request, seeds=ORACLES, cache=cache)
    report = uk.audit(done, oracle=oracles, cache=cache)
    kind = "error" if asked.case.task.name == "regression" else "accuracy"
    utility = {split: report.row(f"{kind}_{split}") for split in ("retain", "test")}
    choice = done.choice
    found: dict[str, Any] = rounded(
        {
            "case": ground.name,
            "seed": seed,
            "judge": ground.judge,
            "line": choice.line,
            "candidate": choice.candidate,
            "refused": refused,
            "passed": choice.passed,
            "tries": sum(x.ran for x in choice.candidates),
            "cost": choice.cost,
            "checks": choice.checks,
            "processor": choice.processor_cost,
            "verdict": report.verdict,
            "reason": report.reason,
            "answers": {a.question: a.answer for a in report.answers},
            "kind": kind,
            "unlearned": {s: None if r is None else r.estimate.value for s, r in utility.items()},
            "retrained": {
                s: None if r is None or r.oracle is None else r.oracle.mean
                for s, r in utility.items()
            },
        }
    )
    return found


HEAD = """# What auto chooses

Written by `python -m experiments auto` (torch {torch}, {machine}); [numbers](auto.json). `auto`
with the shipped [decision table](../auto.md), on {seeds} originals of each case, against {oracles}
retrained models. The table's order comes from the cases marked "chooses" ([memory, utility and
cost](memory_table.md)); those marked "judges" played no part in it. The [cards](placebo.md) show
what N models of a method remember.

- Chosen, tries, memory gone, verdict: how many of the originals had which.
- Cost: row passes of all tries, the look and all audits, as a share of retraining's: mean, largest;
  in brackets the mean of the same in processor time, and of what the look and the audits cost, as a
  share of what the tries cost.
- Test, retain: accuracy against that of retrained models, in points, with Student's 95 % interval
  of its mean over the originals (a minus is a loss); where targets are numbers the error, in their
  unit (a plus is a loss). Test rows are those of kept classes.
- Memory gone, verdict: of the reference audit, with its placebo control of {oracles} models. So few
  models can accuse (`no`), and cannot show that memory is gone.
"""


COLUMNS = (
    *("case", "part", "line", "chosen", "tries", "cost (processor; checks)"),
    *("test", "retain", "memory gone?", "verdict"),
)


def page(kept: Sequence[dict[str, Any]]) -> str:
    """Return the results as Markdown."""
    head = HEAD.format(
        torch=torch.__version__, machine=platform.machine(), oracles=ORACLES, seeds=ORIGINALS
    )
    cases = list(dict.fromkeys(one["case"] for one in kept))
    rows = [_cells([one for one in kept if one["case"] == case]) for case in cases]
    lines = (COLUMNS, ["---"] * len(COLUMNS), *rows)
    return "\n".join([head, *(f"| {' | '.join(cells)} |" for cells in lines)]) + "\n"


def _cells(mine: Sequence[dict[str, Any]]) -> list[str]:
    cost = [one["cost"] for one in mine]
    processor, checks = (mean(one[name] for one in mine) for name in ("processor", "checks"))
    return [
        mine[0]["case"],
        "judges" if mine[0]["judge"] else "chooses",
        mine[0]["line"],
        _counts(one["candidate"] + (" (refused)" if one["refused"] else "") for one in mine),
        _counts(str(one["tries"]) for one in mine),
        f"{mean(cost):.2f}, {max(cost):.2f} ({processor:.2f}; {checks:.2f})",
        _gap(mine, "test"),
        _gap(mine, "retain"),
        _counts(one["answers"]["memory"] for one in mine),
        _counts(one["verdict"] for one in mine),
    ]


def _counts(values: Iterable[str]) -> str:
    found = Counter(values).most_common()
    return ", ".join(f"{value} ({n})" if len(found) > 1 else value for value, n in found)


def _gap(mine: Sequence[dict[str, Any]], split: str) -> str:
    form, scale = ("+.3f", 1.0) if mine[0]["kind"] == "error" else ("+.1f", 100.0)
    gaps = [scale * (one["unlearned"][split] - one["retrained"][split]) for one in mine]
    low, high = mean_interval(torch.tensor(gaps))
    return f"{mean(gaps):{form}} [{low:{form}}, {high:{form}}]"


def main() -> None:
    """Run ``auto`` where it has not run yet; write ``docs/results/auto``."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--case", action="append", choices=[g.name for g in GROUNDS])
    parser.add_argument("--again", action="store_true", help="run cases anew that are written")
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    torch.set_num_threads(1)
    held = json.loads(args.out.read_text(encoding="utf-8")) if args.out.exists() else []
    kept = {(one["case"], one["seed"]): one for one in held}
    wanted = args.case or [g.name for g in GROUNDS if g.name not in LONG]
    every = [(g, seed) for g in GROUNDS for seed in range(ORIGINALS)]
    due = [
        (g, seed)
        for g, seed in every
        if g.name in wanted and (args.again or (g.name, seed) not in kept)
    ]
    if due:
        chosen(GROUNDS[0], 0)  # the first call loads modules, which is no cost of a case
    for ground, seed in due:
        kept[ground.name, seed] = one = chosen(ground, seed)
        print(one, flush=True)
        _write(args.out, [kept[g.name, s] for g, s in every if (g.name, s) in kept])
    _write(args.out, [kept[g.name, s] for g, s in every if (g.name, s) in kept])


def _write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    lines = ",\n".join(json.dumps(one) for one in rows)
    path.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    path.with_suffix(".md").write_text(page(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
