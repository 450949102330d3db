"""Canaries in a character language model: exposure before and after influence updates.

Run with ``python -m experiments canaries``; with ``--write`` it writes
``docs/results/canaries.md``. The text is read from ``UNLEARNKIT_DATA``.
"""

import argparse
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

import unlearnkit as uk
from experiments.corrective import share
from unlearnkit.cases.alice import COPIES, SECRET, the_canary
from unlearnkit.catalog import metrics
from unlearnkit.core.case import Case
from unlearnkit.core.data import View
from unlearnkit.core.evidence import Evidence, Split
from unlearnkit.core.request import ForgetRequest
from unlearnkit.train.early_stopping import OFF

OUT = Path(__file__).parents[1] / "docs" / "results"
PLANTED = (2, COPIES)
METHODS: dict[str, tuple[str, dict[str, object]]] = {
    "influence_first": ("influence_first", {}),
    "influence_first, rate 0.003": ("influence_first", {"rate": 0.003, "guard": OFF}),
    "influence_first, rate 0.02": ("influence_first", {"rate": 0.02, "guard": OFF}),
    "influence_second": ("influence_second", {}),
    "influence_second, damping 0.001": ("influence_second", {"damping": 0.001, "guard": OFF}),
    "influence_second, Fisher, damping 0.001": (
        "influence_second",
        {"damping": 0.001, "curvature": "empirical_fisher", "guard": OFF},
    ),
    "finetune": ("finetune", {}),
    "warm_restart": ("warm_restart", {}),
    "neggrad_plus": ("neggrad_plus", {}),
}
NUMBERS = ("canary_exposure", "canary_log_perplexity", "accuracy_test", "correction_accuracy")
PAGE = """# Canaries in a character language model

Made by `python -m experiments canaries --write` (torch {torch}), means of {seeds} seeds, with the
smallest and largest exposure. Nothing here is a test.

The case is `alice`: an LSTM with 64 units reads 24 characters and predicts the next, trained on the
first 30,000 characters of Alice's Adventures in Wonderland. A phrase with a secret number of four
digits was planted in them. The request replaces the phrase, wherever it stands, by one with other
characters (Warnecke et al., NDSS 2023). Retrained models are trained on the replaced text.

Exposure: `log2 10,000 - log2 rank` of the secret among all 10,000 numbers, every one of them ranked
(Carlini et al., USENIX Security 2019). 13.3 bits: the model finds the secret likeliest of all. 1.4
bits: it does not know it. Log-perplexity: of the secret, in bits; random digits have 13.3 for a
model that knows that digits come. Test: accuracy on text never trained on. Corrected: accuracy on
the replaced windows. Cost: share of retraining, a backward pass counted as two forward.

{tables}
What it shows:

{findings}
"""


@dataclass(frozen=True)
class Line:
    """One way, with a secret planted so many times."""

    copies: int
    model: str
    values: dict[str, list[float]]
    """Each number by seed."""

    cost: float | None


def measure(seeds: int, planted: Sequence[int], cache: uk.Cache | None = None) -> Iterator[Line]:
    """Yield the lines of each number of copies: the references first, then the methods."""
    for copies in planted:
        asked = the_canary(SECRET, copies)
        case, request = asked.case, asked.request
        originals = [uk.train_original(case, seed=s, cache=cache).model for s in range(seeds)]
        retrained = uk.oracle(case, request, seeds=seeds, cache=cache).models
        for name, models in (("original", originals), ("retrained", retrained)):
            yield Line(copies, name, numbers(case, request, models), None)
        for name, (method, settings) in METHODS.items():
            how = uk.method(method, **settings)
            done = [
                uk.unlearn(m, case, request, how, uk.Runtime(seed=s))
                for s, m in enumerate(originals)
            ]
            found = numbers(case, request, [d.model for d in done])
            yield Line(copies, name, found, statistics.mean(share(d) for d in done))


def numbers(
    case: Case, request: ForgetRequest, models: Sequence[nn.Module]
) -> dict[str, list[float]]:
    """Return the numbers of some models, by name."""
    width, corrected = case.train.x.shape[1], case.partition(request).corrections
    views = {
        Split.CANDIDATES: View.all(case.canary.candidates(width, uk.Runtime())),
        Split.TEST: View.all(case.test),
        Split.CORRECTED: corrected,
    }
    seen = [Evidence({"unlearned": m}, views, case.task, uk.Runtime()) for m in models]
    return {n: [metrics()[n](e).value for e in seen] for n in NUMBERS}


def table(lines: Sequence[Line], copies: int) -> str:
    """Return the lines of one number of copies as Markdown."""
    out = [
        f"## {copies} copies",
        "",
        "| model | exposure | from, to | log-perplexity | test | corrected | cost |",
        "|---|---|---|---|---|---|---|",
    ]
    for line in lines:
        if line.copies == copies:
            exposure, bits, test, corrected = (line.values[n] for n in NUMBERS)
            mean = statistics.mean
            cost = "" if line.cost is None else f"{line.cost:.3f}"
            out.append(
                f"| {line.model} | {mean(exposure):.1f} | {min(exposure):.1f},"
                f" {max(exposure):.1f} | {mean(bits):.1f} | {mean(test):.3f} |"
                f" {mean(corrected):.3f} | {cost} |"
            )
    return "\n".join([*out, ""])


def findings(lines: Sequence[Line]) -> str:
    """Return, for each number of copies, which ways lower the exposure, and at what accuracy."""
    out = []
    for copies in sorted({line.copies for line in lines}):
        here = {
            line.model: {n: statistics.mean(v) for n, v in line.values.items()}
            for line in lines
            if line.copies == copies
        }
        before, want = here.pop("original"), here.pop("retrained")
        largest = before["canary_exposure"]
        lower = [
            f"`{m}` {v['canary_exposure']:.1f} (test accuracy {v['accuracy_test']:.3f})"
            for m, v in here.items()
            if v["canary_exposure"] < largest - 0.5
        ]
        rise = max(v["canary_log_perplexity"] for m, v in here.items() if "influence" in m)
        out.append(
            f"- {copies} copies: exposure {largest:.1f} before, {want['canary_exposure']:.1f}"
            f" retrained (test accuracy {before['accuracy_test']:.3f} and"
            f" {want['accuracy_test']:.3f}). Lower by half a bit or more:"
            f" {', '.join(lower) or 'none'}. Influence updates raise the log-perplexity of the"
            f" secret from {before['canary_log_perplexity']:.1f} to {rise:.1f} bits at most; a"
            f" retrained model has {want['canary_log_perplexity']:.1f}."
        )
    return "\n".join(out)


def main() -> None:
    """Measure, print, and write the page if wanted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--copies", type=int, nargs="+", default=list(PLANTED))
    parser.add_argument("--cache", type=Path, help="folder that keeps trained models")
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    cache = None if given.cache is None else uk.Cache(given.cache)
    lines = list(measure(given.seeds, given.copies, cache))
    text = PAGE.format(
        torch=torch.__version__,
        seeds=given.seeds,
        tables="\n".join(table(lines, copies) for copies in given.copies),
        findings=findings(lines),
    )
    print(text)
    if given.write:
        (OUT / "canaries.md").write_text(text, "utf-8")
