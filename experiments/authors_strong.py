"""The strong audit of a language model that forgets invented authors.

Run with ``python -m experiments authors_strong --models 32 --write``: it trains that many originals
and twice as many retrained models, keeps them in the cache, goes on where it stopped, and writes
``docs/results/authors_strong.md``.
"""

import argparse
import copy
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

import unlearnkit as uk
from experiments.tofu_small import Library, pairs, world_case
from experiments.word_models import small_gpt2
from unlearnkit.core.runtime import Runtime
from unlearnkit.report.report import Report
from unlearnkit.report.schema import Estimate

OUT = Path(__file__).parents[1] / "docs" / "results"
SIZES = (("world", 6), ("forget", 2), ("retain", 6), ("held_out", 2), ("validation", 2))
"""Authors of each part."""

METHODS = ("grad_diff", "npo")
TUNE = uk.Recipe(optimizer="adamw", lr=5e-3, epochs=15, batch_size=16, schedule="linear")


def authors_case(library: Library, base: nn.Module) -> tuple[uk.Case, uk.Groups]:
    """Return the case in which a base model learns authors, and whom it must forget.

    Test rows are about authors that nobody learns.
    """
    learned = [*library.part("forget"), *library.part("retain")]
    case = uk.Case(
        train=[*pairs(library.part("forget")), *pairs(library.part("retain"))],
        test=pairs(library.part("held_out")),
        validation=pairs(library.part("validation")),
        group=[q.author for q in learned],
        task="causal_lm",
        processing_class=library.tokenizer,
        fresh=lambda: copy.deepcopy(base),
        recipe=TUNE,
        name="authors_strong",
    )
    return case, uk.Groups(list(dict.fromkeys(q.author for q in library.part("forget"))))


@dataclass(frozen=True)
class Audited:
    """A method and what the strong audit says of it."""

    method: str
    report: Report
    seconds: float
    """Of the processor; models that were in the cache cost none."""


def audits(
    library: Library, methods: Sequence[str], models: int, cache: uk.Cache
) -> Iterator[Audited]:
    """Yield the strong audit of each method."""
    base = uk.train_original(world_case(library), seed=0, cache=cache).model
    case, request = authors_case(library, base)
    original = uk.train_original(case, seed=0, cache=cache).model
    for name in methods:
        start = time.process_time()
        done = uk.unlearn(original, case, request, name, Runtime())
        report = uk.audit(done, tier="strong", models=models, cache=cache)
        yield Audited(name, report, time.process_time() - start)


HEAD = (
    *("method", "verdict", "comparison", "shift", "p", "KLoM", "of equal sets"),
    *("accuracy", "attack", "U-LiRA"),
)


def table(found: Sequence[Audited]) -> Iterator[str]:
    """Yield the lines of the comparisons of arms, method by method."""
    yield f"| {' | '.join(HEAD)} |"
    yield "|---" * len(HEAD) + "|"
    for one in found:
        for arm in one.report.strong.arms if one.report.strong else ():
            cells = (
                *(one.method, one.report.verdict.value, arm.name, interval(arm.shift)),
                *(number(arm.p, 3), number(arm.klom), number(arm.klom_floor)),
                *(interval(arm.accuracy), interval(arm.attack), interval(arm.auc)),
            )
            yield f"| {' | '.join(cells)} |"


def interval(estimate: Estimate | None) -> str:
    """Return a value with its interval, as far as there are any."""
    if estimate is None or estimate.value is None:
        return "-"
    if estimate.low is None or estimate.high is None:
        return number(estimate.value)
    return f"{estimate.value:.2f} [{estimate.low:.2f}, {estimate.high:.2f}]"


def number(value: float | None, digits: int = 2) -> str:
    """Return a number, or a dash."""
    return "-" if value is None else f"{value:.{digits}f}"


def page(library: Library, found: Sequence[Audited], models: int) -> str:
    """Return the result as Markdown."""
    weights = sum(p.numel() for p in small_gpt2(len(library.tokenizer)).parameters())
    sizes, rows = dict(SIZES), len(library.part("forget"))
    out = [
        "# Invented authors, judged record by record",
        "",
        f"A GPT-2 of {weights:,} weights that knows {sizes['world']} invented authors is fine-tuned"
        f" on {sizes['forget'] + sizes['retain']} others; a request names {sizes['forget']} of"
        f" these as groups ({rows} rows). The strong audit trains {models} originals, {models}"
        f" retrained models and {models} more as the floor, and runs each method on the originals"
        " and, as placebo, on the second set of retrained models. Made by"
        f" `python -m experiments authors_strong --models {models} --write` (torch"
        f" {torch.__version__}, {platform.machine()}). Methods run at their defaults, not chosen on"
        " this case.",
        "",
        "Memory: unlearned models against placebo models, which went through the same method and"
        " never saw the authors. Signature: placebo against retrained. Likeness: unlearned against"
        " retrained. All on the forget rows. Shift: of the mean margin, in standard deviations of"
        " the second set; 0 is alike, above it the first set knows the rows better; p of its"
        " permutation test. KLoM: median over rows of the distance of margins, and that of two"
        " equal sets of retrained models. Accuracy: how many fewer tokens the first set gets wrong."
        " Attack: difference in AUC against never-seen rows. U-LiRA: AUC record by record, 0.5 is"
        " alike; it needs 64 models of each kind and is left out below that.",
        "",
        *table(found),
        "",
    ]
    for one in found:
        out += [f"`{one.method}`: {one.report.reason}", ""]
    return "\n".join(out)


def main() -> None:
    """Audit, print, and write the page if wanted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=32)
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--cache", type=Path, help="folder of trained models; the usual one if not")
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    library, cache = Library(SIZES), uk.Cache(given.cache) if given.cache else uk.Cache()
    found = []
    for one in audits(library, given.methods, given.models, cache):
        print(f"{one.method}: {one.seconds:.0f} s of processor", flush=True)
        found.append(one)
        print(*table([one]), sep="\n", flush=True)
    text = page(library, found, given.models)
    print(text)
    if given.write:
        (OUT / "authors_strong.md").write_text(text, "utf-8")


if __name__ == "__main__":
    main()
