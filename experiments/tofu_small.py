"""TOFU without a download: invented authors, a small model from scratch, retrained references.

Run with ``python -m experiments tofu_small --write``: it writes ``docs/results/tofu_small.json``
after each model, goes on where it stopped, and then writes ``docs/results/tofu_small.md``.
"""

import argparse
import copy
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

import unlearnkit as uk
from experiments.word_models import dump, small_gpt2, word_tokenizer
from unlearnkit.core.runtime import Runtime
from unlearnkit.language.extraction import exact_memorization, extraction_strength
from unlearnkit.language.fictitious_authors import (
    VALUES,
    AuthorQuestion,
    author_questions,
    invent_authors,
)
from unlearnkit.language.muse import privacy_leak
from unlearnkit.language.question_scores import QuestionScores, score_questions
from unlearnkit.language.sequence_attacks import min_k_score
from unlearnkit.language.tofu import forget_quality, forget_truth, model_utility

OUT = Path(__file__).parents[1] / "docs" / "results"
METHODS = (
    *("gradient_ascent", "grad_diff", "npo", "simnpo", "task_vector", "rmu", "undial", "wga"),
    "finetune",
)
SIZES = {"world": 12, "forget": 4, "retain": 12, "held_out": 4, "validation": 4}
"""Authors of each part. The base model knows the world; the last two nobody learns."""

TEACH = uk.Recipe(optimizer="adamw", lr=5e-3, epochs=15, batch_size=32, schedule="linear")
TUNE = uk.Recipe(optimizer="adamw", lr=5e-3, epochs=15, batch_size=16, schedule="linear")


@dataclass(frozen=True)
class Library:
    """Everything that does not depend on a seed."""

    sizes: tuple[tuple[str, int], ...] = tuple(SIZES.items())

    @cached_property
    def rows(self) -> list[AuthorQuestion]:
        """Return the questions about all authors."""
        return author_questions(invent_authors(sum(n for _, n in self.sizes)))

    def part(self, name: str) -> list[AuthorQuestion]:
        """Return the questions about one part's authors."""
        names, start = list(dict.fromkeys(q.author for q in self.rows)), 0
        for part, count in self.sizes:
            if part == name:
                chosen = set(names[start : start + count])
            start += count
        return [q for q in self.rows if q.author in chosen]

    @cached_property
    def tokenizer(self) -> Any:
        """Return a tokenizer of all words that any text may have."""
        values = [v for some in VALUES.values() for v in some]
        texts = [
            t
            for q in self.rows
            for t in (q.question, q.paraphrased_question, q.answer, q.paraphrased_answer)
        ]
        return word_tokenizer([*texts, *values])


def pairs(questions: Sequence[AuthorQuestion]) -> list[dict[str, str]]:
    """Return prompts and completions, as a user would give them."""
    return [{"prompt": q.question, "completion": f" {q.answer}"} for q in questions]


def both_wordings(questions: Sequence[AuthorQuestion]) -> list[dict[str, str]]:
    """Return prompts and completions in both wordings of question and answer."""
    return [
        {"prompt": question, "completion": f" {answer}"}
        for q in questions
        for question in (q.question, q.paraphrased_question)
        for answer in (q.answer, q.paraphrased_answer)
    ]


def world_case(library: Library) -> uk.Case:
    """Return the case in which a base model learns the world."""
    return uk.Case(
        train=both_wordings(library.part("world")),
        task="causal_lm",
        processing_class=library.tokenizer,
        fresh=lambda: small_gpt2(len(library.tokenizer)),
        recipe=TEACH,
        name="tofu_small_world",
    )


def tuned_case(library: Library, base: nn.Module) -> tuple[uk.Case, uk.Rows]:
    """Return the case in which a base model learns invented authors, and whom it must forget."""
    forget = pairs(library.part("forget"))
    case = uk.Case(
        train=[*forget, *pairs(library.part("retain"))],
        validation=pairs(library.part("validation")),
        task="causal_lm",
        processing_class=library.tokenizer,
        fresh=lambda: copy.deepcopy(base),
        recipe=TUNE,
        name="tofu_small",
    )
    return case, uk.Rows(range(len(forget)))


def models(
    library: Library, seed: int, methods: Sequence[str], done: set[str]
) -> Iterator[tuple[str, nn.Module, float]]:
    """Yield name, model and processor seconds of each arm that is not done."""
    if done >= {"original", "retrain", *methods}:
        return
    with tempfile.TemporaryDirectory() as folder:
        cache = uk.Cache(Path(folder))
        base = uk.train_original(world_case(library), seed=seed, cache=cache).model
        case, request = tuned_case(library, base)
        original = uk.train_original(case, seed=seed, cache=cache).model
        if "original" not in done:
            yield "original", original, 0.0
        for name in ("retrain", *methods):
            if name not in done:
                start = time.process_time()
                made = uk.unlearn(original, case, request, name, Runtime(seed=seed)).model
                yield name, made, time.process_time() - start


def measure(
    library: Library, seeds: int, methods: Sequence[str], path: Path
) -> list[dict[str, Any]]:
    """Return the numbers of each model; models on file are not made again."""
    found: list[dict[str, Any]] = json.loads(path.read_text("utf-8")) if path.exists() else []
    for seed in range(seeds):
        done = {r["arm"] for r in found if r["seed"] == seed}
        for name, model, seconds in models(library, seed, methods, done):
            found.append({"seed": seed, "arm": name, "seconds": seconds, **numbers(library, model)})
            path.write_text(dump(found), "utf-8")
    return found


def numbers(library: Library, model: nn.Module) -> dict[str, Any]:
    """Return the numbers of one model, and the rows that comparisons with the retrained need."""
    parts = ("forget", "retain", "world", "held_out")
    score: dict[str, QuestionScores] = {
        p: score_questions(model, library.tokenizer, library.part(p), max_new_tokens=20)
        for p in parts
    }
    forget = score["forget"]
    probability, recall, _ = forget.utilities()
    return {
        "probability": probability,
        "recall": recall,
        "truth": forget_truth(forget.truth_ratios()),
        "truth_arithmetic": forget_truth(forget.truth_ratios("arithmetic")),
        "memorization": float(exact_memorization(forget.answers).mean()),
        "extraction": float(extraction_strength(forget.answers).mean()),
        "utility": model_utility([*score["retain"].utilities(), *score["world"].world_utilities()]),
        "retain_recall": score["retain"].utilities()[1],
        "ratios": [round(x, 6) for x in forget.truth_ratios().tolist()],
        "members": [round(x, 4) for x in min_k_score(forget.answers).tolist()],
        "others": [round(x, 4) for x in min_k_score(score["held_out"].answers).tolist()],
    }


def lines(runs: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yield the row of each arm: means over seeds, and the range of what compares distributions."""
    for arm in dict.fromkeys(r["arm"] for r in runs):
        own = [r for r in runs if r["arm"] == arm]
        truth = {r["seed"]: r for r in runs if r["arm"] == "retrain"}
        quality = [
            forget_quality(torch.tensor(r["ratios"]), torch.tensor(truth[r["seed"]]["ratios"]))
            for r in own
        ]
        leaks = [privacy_leak(*(scores(x) for x in (r, truth[r["seed"]]))) for r in own]
        names = ("probability", "recall", "truth", "truth_arithmetic", "memorization", "extraction")
        cells = [f"{statistics.mean(r[n] for r in own):.2f}" for n in (*names, "retain_recall")]
        least, most = min(q.p for q in quality), max(q.p for q in quality)
        distance = statistics.mean(q.distance for q in quality)
        utility = statistics.mean(r["utility"] for r in own)
        spread = f"{min(leaks):.0f} to {max(leaks):.0f}"
        seconds = statistics.mean(r["seconds"] for r in own)
        yield (
            f"| {arm} | {least:.1e} to {most:.1e} | {distance:.2f} | {utility:.2f} |"
            f" {' | '.join(cells)} | {spread} | {seconds:.0f} | {len(own)} |"
        )


def scores(run: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the attack's scores of forget and held-out answers."""
    return torch.tensor(run["members"]), torch.tensor(run["others"])


def page(library: Library, runs: Sequence[dict[str, Any]]) -> str:
    """Return the result as Markdown."""
    weights = sum(p.numel() for p in small_gpt2(len(library.tokenizer)).parameters())
    out = [
        "# TOFU, small: authors that were never real",
        "",
        f"A GPT-2 of {weights:,} weights learns questions about {SIZES['world']} invented authors"
        f" (the world), then is fine-tuned on {SIZES['forget'] + SIZES['retain']} others,"
        f" {len(library.part('forget')) // SIZES['forget']} questions each. {SIZES['forget']} of"
        " these must be forgotten. `retrain` is the same base fine-tuned without them. Made by"
        f" `python -m experiments tofu_small --write` (torch {torch.__version__},"
        f" {platform.machine()}); numbers of each model: [tofu_small.json](tofu_small.json).",
        "",
        "Forget quality: p-value and distance (D) of the two-sample Kolmogorov-Smirnov test of"
        f" truth ratios on {len(library.part('forget'))} forget questions, against the retrained"
        " model of the same seed; the lowest and the highest p of the seeds. Utility: harmonic mean"
        " of probability, ROUGE-L recall (no stemmer) and truth on retain and world questions (six"
        " numbers). On the forget set: probability, recall, truth (mean of min(R, 1/R)) with"
        " geometric and arithmetic truth ratios, exact memorisation, extraction strength. Retain:"
        " recall. PrivLeak: Min-40 % against answers about authors that nobody learned, in per"
        " cent; 0 is the aim. All are good when they equal the retrained model's, but utility,"
        " which is good when high. Methods run at their defaults, not chosen on this case.",
        "",
        "| model | forget quality p | D | utility | probability | recall | truth"
        " | truth, arithmetic | memorisation | extraction | retain | PrivLeak | seconds | seeds |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
        *lines(runs),
        "",
    ]
    return "\n".join(out)


def main() -> None:
    """Measure what is missing, print, and write the page if wanted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    library = Library()
    with tempfile.TemporaryDirectory() as folder:
        path = (OUT if given.write else Path(folder)) / "tofu_small.json"
        runs = measure(library, given.seeds, given.methods, path)
    text = page(library, runs)
    print(text)
    if given.write:
        (OUT / "tofu_small.md").write_text(text, "utf-8")


if __name__ == "__main__":
    main()
