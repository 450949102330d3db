"""What the store and the weights of a retrieval-augmented model keep of the forget set.

    python -m experiments retrieval_memory

Each line is a model: before; with the rows deleted from its store alone; with its reader unlearned
alone; with both; retrained. Means over originals of three seeds. The AUC is that of the margin
between forget rows and never-seen rows; the aim is the value of retrained models, which never saw
the rows and do not store them.
"""

import argparse
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor, nn

import unlearnkit as uk
from experiments.plays import speeches_of_plays
from unlearnkit.cases.author_genres import RECIPE, WORDS, a_random_tenth, four_authors, word_row
from unlearnkit.cases.registry import CaseWithRequest, random_indices
from unlearnkit.core.case import Case
from unlearnkit.core.data import View
from unlearnkit.core.evidence import Evidence, Split
from unlearnkit.retrieval import HashedWords, PassageReader, retrieval_case

OUT = Path("docs/results/retrieval_memory.md")
SEEDS, ORACLES = 3, 5
SPEAKERS = ("GLOUCESTER", "MENENIUS", "ROMEO", "LEONTES", "PETRUCHIO")
EACH, FEWEST = 60, 12
ARMS = {
    "store only": uk.method("retrieval_memory", weights="keep"),
    "weights only": uk.method("shrink_perturb"),
    "both": uk.method("retrieval_memory"),
}


@cache
def speeches() -> Case | None:
    """Return speeches of five characters of Shakespeare, 40 each to train on; None without them."""
    read = speeches_of_plays()
    if read is None:
        return None
    found: dict[str, list[str]] = {name: [] for name in SPEAKERS}
    for name, said in read:
        if name in found and len(re.findall(r"\w+", said)) >= FEWEST:
            found[name].append(said)
    rows = [(word_row(s), c) for c, name in enumerate(SPEAKERS) for s in found[name][:EACH]]
    x, y = (torch.tensor(column) for column in zip(*rows, strict=True))
    order = torch.randperm(len(y), generator=uk.Runtime().rng("speeches"))
    x, y = x[order], y[order]
    cut = len(y) * 2 // 3
    case = Case(
        train=(x[:cut], y[:cut]),
        test=(x[cut:], y[cut:]),
        task=uk.Classification(len(SPEAKERS)),
        fresh=lambda: PassageReader(WORDS, len(SPEAKERS)),
        recipe=RECIPE,
        name="speeches",
    )
    return retrieval_case(case, retriever=lambda: HashedWords(WORDS))


def random_speeches() -> CaseWithRequest | None:
    """Forget a tenth of the speeches, drawn at random."""
    case = speeches()
    if case is None or case.train is None:
        return None
    n = len(case.train)
    return CaseWithRequest(case, uk.Rows(random_indices(n, n // 10, "speeches/tenth")))


def one_speaker() -> CaseWithRequest | None:
    """Forget a character."""
    case = speeches()
    return None if case is None else CaseWithRequest(case, uk.Classes(2))


REQUESTS: dict[str, Callable[[], CaseWithRequest | None]] = {
    "4 of 40 invented authors": four_authors,
    "a tenth of the sentences about them": a_random_tenth,
    "a tenth of 200 speeches": random_speeches,
    "one of 5 speakers": one_speaker,
}


def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Return the share of right answers."""
    with torch.inference_mode():
        return float((model.eval()(x).argmax(1) == y).float().mean())


class Table:
    """The numbers of one request, model by model."""

    def __init__(self, asked: CaseWithRequest) -> None:
        """Take the case and the request."""
        self.case, parts = asked.case, asked.case.partition(asked.request)
        assert parts.forget is not None
        assert self.case.test is not None
        held_out, test = self.case.held_out or self.case.test, self.case.test
        kept = ~torch.isin(test.y, torch.tensor(parts.removed_classes))
        gone = torch.isin(held_out.y, torch.tensor(parts.removed_classes))
        unseen = gone if bool(gone.any()) else torch.ones_like(gone)
        self.forget = parts.forget
        self.views = {
            Split.FORGET: parts.forget,
            Split.HELD_OUT: View(held_out, unseen.nonzero()[:, 0]),
        }
        self.test = View(test, kept.nonzero()[:, 0])

    def row(self, model: nn.Module, original: nn.Module) -> list[float]:
        """Return test accuracy, forget accuracy, AUC, memory in the store and in the weights."""
        models = {"original": original, "unlearned": model}
        e = Evidence(models, self.views, self.case.task, uk.Runtime())
        metrics = uk.catalog.metrics()
        right = [accuracy(model, v.data.x[v.rows], v.y) for v in (self.test, self.forget)]
        names = ("margin_auc", "memory_in_store", "memory_in_weights")
        return right + [metrics[name](e).value for name in names]


def lines(name: str, asked: CaseWithRequest) -> list[str]:
    """Return the table's lines of one request."""
    table, (case, request) = Table(asked), (asked.case, asked.request)
    originals = [uk.train_original(case, seed=s).model for s in range(SEEDS)]
    found = {"before": [table.row(m, m) for m in originals]}
    runs = uk.oracle(case, request, seeds=ORACLES).runs
    for arm, how in ARMS.items():
        done = [uk.unlearn(m, case, request, how).model for m in originals]
        same = {m.store.digest for m in done} == {run.model.store.digest for run in runs}
        assert same is (arm != "weights only")
        found[arm] = [table.row(new, old) for new, old in zip(done, originals, strict=True)]
    found["retrained"] = [table.row(run.model, run.model) for run in runs]
    out = []
    for arm, rows in found.items():
        mean = [f"{fmean(column):.2f}" for column in zip(*rows, strict=True)]
        if arm != "both":
            mean[3:] = ["", ""]
        if arm == "retrained":
            auc = [row[2] for row in rows]
            mean[2] += f" ({min(auc):.2f} to {max(auc):.2f})"
        out.append(f"| {name} | {arm} | " + " | ".join(mean) + " |")
        print(out[-1])
    return out


def page(rows: list[str]) -> str:
    """Return the page of results."""
    return HEAD + "\n".join(rows) + "\n"


HEAD = """# Forgetting in a retrieval-augmented model

Made by `python -m experiments retrieval_memory`, in about 40 seconds of one core. A reader
answers from its weights and from the 5 rows of its store that are nearest to the input
(`unlearnkit.retrieval`). *Store only*: the forget rows are deleted from the store, weights stay
(`retrieval_memory` with `weights` = `keep`). *Weights only*: `shrink_perturb` on the reader, the
store stays. *Both*: `retrieval_memory`. *Retrained*: the reader never saw the rows and the store
never held them, five models. Others are means over three originals.
`shrink_perturb` was chosen on the two requests about invented authors; the speeches played no part.

AUC: of the margin between forget rows and never-seen rows; good is the value of retrained models.
Store, weights: by how much the AUC of *both* rises when the original's store, or the original's
weights, are put back (`memory_in_store`, `memory_in_weights`). After each deletion the store was,
bit for bit, that of the retrained models.

Sentences are about invented authors, whom a model knows from its training rows alone: which of 4
genres an author writes. Speeches are by 5 characters of Shakespeare: who speaks.

| Request | Model | Test accuracy | Forget accuracy | AUC | Store | Weights |
|---|---|---|---|---|---|---|
"""


def main() -> None:
    """Measure all requests whose data are at hand, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[str] = []
    for name, ask in REQUESTS.items():
        asked = ask()
        if asked is None:
            print(f"{name}: no folder shakespeare in UNLEARNKIT_DATA")
        else:
            rows += lines(name, asked)
    args.out.write_text(page(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
