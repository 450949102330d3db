"""What ``auto`` chooses today: candidate, cost, verdict and test accuracy against retraining.

    python -m experiments auto [--case NAME]

``auto`` runs with the shipped decision table on the cases of ``memory_table``, those by which its
order was chosen and those by which it was judged: one original each, judged against five retrained
models by the reference audit with its placebo control. A case that is written is not run again.
"""

import argparse
import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import unlearnkit as uk
from experiments.memory_table import GROUNDS, Ground
from experiments.over_finetuning import rounded
from unlearnkit.auto.selection import SelectedModel

OUT = Path("docs/results/auto.json")
ORACLES = 5
LONG = {"photographs, class"}
"""Cases that run only where they are asked for by name: they take a quarter of an hour."""


def chosen(ground: Ground) -> dict[str, Any]:
    """Return what ``auto`` does on a case, and what the audit says of it."""
    asked = ground.make()
    original = uk.train_original(asked.case).model
    refused = False
    try:
        done = uk.unlearn(original, asked.case, asked.request, "auto")
    except uk.AutoFailedError as e:
        done, refused = e.best, True
    assert isinstance(done, SelectedModel)
    report = uk.audit(done, oracle=uk.oracle(asked.case, asked.request, seeds=ORACLES))
    kind = "error" if asked.case.task.name == "regression" else "accuracy"
    utility = {split: report.row(f"{kind}_{split}") for split in ("retain", "test")}
    choice = done.choice
    found: dict[str, Any] = rounded(
        {
            "case": ground.name,
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
with the shipped [decision table](../auto.md), on one original of each case, against {oracles}
retrained models. The table's order comes from the cases marked "chooses" ([memory, utility and
cost](memory_table.md)); those marked "judges" played no part in it. One original a case shows what
is chosen and at what cost; the [cards](placebo.md) show what N models of a method remember.

- Cost: row passes of all tries, the look and all audits, as a share of retraining's; in brackets
  the same in processor time, and the share of checks in the cost.
- Test, retain: accuracy against that of retrained models, in points (a minus is a loss); where
  targets are numbers the error, in their unit (a plus is a loss). Test rows are those of kept
  classes.
- Memory gone, verdict: of the reference audit, with its placebo control of {oracles} models. So few
  models can accuse (`no`), and cannot show that memory is gone.
"""


COLUMNS = (
    *("case", "part", "line", "chosen", "tries", "cost (processor; checks)"),
    *("test: unlearned, retrained", "retain", "memory gone?", "verdict"),
)


def page(kept: Sequence[dict[str, Any]]) -> str:
    """Return the results as Markdown."""
    head = HEAD.format(torch=torch.__version__, machine=platform.machine(), oracles=ORACLES)
    lines = (COLUMNS, ["---"] * len(COLUMNS), *map(_cells, kept))
    return "\n".join([head, *(f"| {' | '.join(cells)} |" for cells in lines)]) + "\n"


def _cells(one: dict[str, Any]) -> list[str]:
    test, ideal = one["unlearned"]["test"], one["retrained"]["test"]
    return [
        one["case"],
        "judges" if one["judge"] else "chooses",
        one["line"],
        one["candidate"] + (" (refused)" if one["refused"] else ""),
        str(one["tries"]),
        f"{one['cost']:.2f} ({one['processor']:.2f}; {one['checks']:.2f})",
        f"{test:.3f}, {ideal:.3f} ({_gap(one, 'test')})",
        _gap(one, "retain"),
        one["answers"]["memory"],
        one["verdict"],
    ]


def _gap(one: dict[str, Any], split: str) -> str:
    gap = one["unlearned"][split] - one["retrained"][split]
    return f"{gap:+.3f}" if one["kind"] == "error" else f"{100 * gap:+.1f}"


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
    kept = {one["case"]: one for one in held}
    wanted = args.case or [g.name for g in GROUNDS if g.name not in LONG]
    if args.again or any(name not in kept for name in wanted):
        chosen(GROUNDS[0])  # the first call loads modules, which is no cost of a case
    for ground in GROUNDS:
        if ground.name in wanted and (args.again or ground.name not in kept):
            kept[ground.name] = chosen(ground)
            print(kept[ground.name], flush=True)
        rows = [kept[g.name] for g in GROUNDS if g.name in kept]
        lines = ",\n".join(json.dumps(one) for one in rows)
        args.out.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
        args.out.with_suffix(".md").write_text(page(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
