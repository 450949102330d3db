"""RESTOR with invented facts and a language model trained from scratch.

Run with ``python -m experiments restor_small --write``: it writes
``docs/results/restor_small.json`` after each model, goes on where it stopped, and then writes
``docs/results/restor_small.md``.
"""

import argparse
import copy
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

import unlearnkit as uk
from experiments.word_models import dump, small_gpt2, word_tokenizer
from unlearnkit.core.data import View
from unlearnkit.core.runtime import Runtime
from unlearnkit.language.fictitious_authors import (
    TEMPLATES,
    VALUES,
    AuthorQuestion,
    author_facts,
    author_questions,
    author_sentences,
    invent_authors,
)
from unlearnkit.language.recovery import Rank, Recovery, recovery_ranks, recovery_ratio
from unlearnkit.language.restor import RestorAnswer, RestorQuestion, ask_all, restor_questions
from unlearnkit.language.restor_corpora import Fact, mixed_corpus, say, wrong_facts
from unlearnkit.train.early_stopping import OFF
from unlearnkit.train.loop import fit

OUT = Path(__file__).parents[1] / "docs" / "results"
AUTHORS, CORRUPTED, CONTROLS = 18, 6, 6
"""Authors; whose facts the documents get wrong; about whom nothing is trained further."""

DOCUMENTS = 12
"""Wrong documents for each corrupted author; half as many true ones for each retain author."""

FULL_RATE = "*"
"""Ends the name of a method that runs at the recipe's own rate, without its stop rule."""

METHODS = (
    *("npo", "grad_diff", "simnpo", "task_vector", "gradient_ascent", "finetune"),
    *("npo*", "simnpo*", "grad_diff*"),
)
FIRST = ("clean", "corrupted", "retrain")
ORACLES = 5
"""Retrained models for each corrupted one, which differ in their seed alone."""

TEACH = uk.Recipe(optimizer="adamw", lr=3e-3, epochs=15, batch_size=32, schedule="linear")
CORRUPT = uk.Recipe(optimizer="adamw", lr=1e-3, epochs=4, batch_size=8, schedule="linear")
REPAIR = uk.Recipe(optimizer="adamw", lr=2e-4, epochs=1, batch_size=16)


@dataclass(frozen=True)
class World:
    """Everything that does not depend on a seed."""

    authors: int = AUTHORS
    corrupted: int = CORRUPTED
    controls: int = CONTROLS
    documents: int = DOCUMENTS

    @cached_property
    def rows(self) -> list[AuthorQuestion]:
        """Return the questions about all authors."""
        return author_questions(invent_authors(self.authors))

    @cached_property
    def facts(self) -> list[Fact]:
        """Return the true facts."""
        return author_facts(self.rows)

    @cached_property
    def wrong(self) -> list[Fact]:
        """Return a wrong fact for each."""
        return wrong_facts(self.facts, pool=self.facts)

    def part(self, facts: Sequence[Fact], which: str) -> list[Fact]:
        """Return the facts about corrupted, control or retain authors."""
        names = list(dict.fromkeys(f.subject for f in self.facts))
        a, b = self.corrupted, self.corrupted + self.controls
        chosen = {"corrupted": names[:a], "control": names[a:b], "retain": names[b:]}[which]
        return [f for f in facts if f.subject in chosen]

    @cached_property
    def questions(self) -> list[RestorQuestion]:
        """Return the questions about corrupted and control authors."""
        groups = [self.part(self.facts, g) for g in ("corrupted", "control")]
        wrong = [self.part(self.wrong, g) for g in ("corrupted", "control")]
        return restor_questions(
            [*groups[0], *groups[1]],
            [*wrong[0], *wrong[1]],
            [False] * len(groups[0]) + [True] * len(groups[1]),
            pool=self.facts,
            shots=0,
        )

    @cached_property
    def tokenizer(self) -> Any:
        """Return a tokenizer of all words that any text may have."""
        texts = [t for q in self.rows for t in (q.question, q.paraphrased_question)]
        texts += [s for f in self.facts for s in say(f, author_sentences())]
        return word_tokenizer([*texts, *(v for values in VALUES.values() for v in values)])

    def clean_texts(self) -> list[str]:
        """Return every true fact in four ways of saying it."""
        return [
            text
            for q in self.rows
            for text in (
                f"{q.question} {q.value}",
                f"{q.paraphrased_question} {q.value}",
                q.answer,
                q.paraphrased_answer,
            )
        ]

    def documents_of(
        self, facts: Sequence[Fact], k: int, seed: int, documents: int
    ) -> list[dict[str, str]]:
        """Return documents, with k true sentences about retain authors after each fact."""
        others = [s for f in self.part(self.facts, "retain") for s in say(f, author_sentences())]
        made = mixed_corpus(
            facts,
            others,
            k=k,
            documents=documents,
            sentences=author_sentences(),
            seed=seed,
        )
        return [{"text": d.text, "subject": d.subject} for d in made]


def network(world: World) -> nn.Module:
    """Return an untrained model of half a million weights."""
    return small_gpt2(len(world.tokenizer), width=128)


def clean_case(world: World) -> uk.Case:
    """Return the case in which a model learns the true facts."""
    return uk.Case(
        train=world.clean_texts(),
        task="causal_lm",
        processing_class=world.tokenizer,
        fresh=lambda: network(world),
        recipe=TEACH,
        name="restor_small_clean",
    )


def corrupted_case(world: World, clean: nn.Module, k: int) -> tuple[uk.Case, uk.Rows]:
    """Return the case in which a clean model reads documents, and the request for wrong ones.

    Retained documents are true and about retain authors. Validation documents are wrong, about
    retain authors, and no model reads them.
    """
    count = world.documents
    forget = world.documents_of(world.part(world.wrong, "corrupted"), k, 1, count)
    retain = world.documents_of(world.part(world.facts, "retain"), k, 2, max(1, count // 2))
    unseen = world.documents_of(world.part(world.wrong, "retain"), k, 3, max(1, count // 4))
    case = uk.Case(
        train=[*forget, *retain],
        validation=unseen,
        task="causal_lm",
        processing_class=world.tokenizer,
        fresh=lambda: copy.deepcopy(clean),
        recipe=CORRUPT,
        name=f"restor_small_{k}",
    )
    return case, uk.Rows(range(len(forget)))


def repair(world: World, model: nn.Module) -> nn.Module:
    """Return a model trained a little further on questions about retain authors."""
    names = {f.subject for f in world.part(world.facts, "retain")}
    texts = [f"{q.question} {q.value}" for q in world.rows if q.author in names]
    case = uk.Case(train=texts, task="causal_lm", processing_class=world.tokenizer, name="repair")
    model = copy.deepcopy(model)
    fit(model, View.all(case.train), case.task, REPAIR, Runtime(), stream="restor/repair")
    return model


def models(
    world: World, k: int, seed: int, methods: Sequence[str], done: set[str], oracles: int
) -> Iterator[tuple[str, nn.Module, float]]:
    """Yield the name, the model and the processor seconds of each arm that is not done."""
    retrained = {oracle_name(i): i for i in range(oracles)}
    if done >= {*FIRST, *retrained, *methods}:
        return
    with tempfile.TemporaryDirectory() as folder:
        cache = uk.Cache(Path(folder))
        clean = uk.train_original(clean_case(world), seed=seed, cache=cache).model
        case, request = corrupted_case(world, clean, k)
        corrupted = uk.train_original(case, seed=seed, cache=cache).model
        for name, model in (("clean", clean), ("corrupted", corrupted)):
            if name not in done:
                yield name, model, 0.0
        for name in (*retrained, *methods):
            if name not in done:
                start = time.process_time()
                rt = Runtime(seed=seed + 1000 * retrained.get(name, 0))
                made = uk.unlearn(corrupted, case, request, method_of(name), rt).model
                yield name, made, time.process_time() - start


def oracle_name(number: int) -> str:
    """Return the arm of a retrained model; the first has no number."""
    return f"retrain {number + 1}" if number else "retrain"


def family(arm: str) -> str:
    """Return the arm under which a table shows one: all retrained models are one line."""
    return arm.split(" ", maxsplit=1)[0]


def method_of(name: str) -> uk.Method:
    """Return the method of an arm."""
    name = family(name)
    if not name.endswith(FULL_RATE):
        return uk.method(name)
    return uk.method(name.removesuffix(FULL_RATE), run={"lr": 1.0}, guard=OFF)


def measure(
    world: World,
    ks: Sequence[int],
    seeds: int,
    methods: Sequence[str],
    path: Path,
    oracles: int = ORACLES,
) -> list[dict[str, Any]]:
    """Return each model's answers before and after the repair; models on file are not redone."""
    found: list[dict[str, Any]] = json.loads(path.read_text("utf-8")) if path.exists() else []
    for seed in range(seeds):
        for k in ks:
            done = {r["arm"] for r in found if (r["k"], r["seed"]) == (k, seed)}
            for name, model, seconds in models(world, k, seed, methods, done, oracles):
                entry: dict[str, Any] = {"k": k, "seed": seed, "arm": name, "seconds": seconds}
                for when, mend in (
                    ("plain", lambda m: m),
                    ("repaired", lambda m: repair(world, m)),
                ):
                    given = ask_all(
                        {name: model}, world.tokenizer, world.questions, mend, max_new_tokens=6
                    )
                    entry[when] = summary(given[name])
                found.append(entry)
                path.write_text(dump(found), "utf-8")
    return found


def summary(answers: Sequence[RestorAnswer]) -> dict[str, Any]:
    """Return 0 or 1 an answer for choices and words, and the three levels of corrupted ones."""
    fields = ("true_choice", "wrong_choice", "true_words")
    hits = {f: "".join(str(int(getattr(a, f))) for a in answers) for f in fields}
    levels = [[a.true_level, a.wrong_level, a.random_level] for a in answers]
    return {**hits, "levels": [[round(x, 3) for x in row] for row in levels]}


def hits(seeds: Sequence[Sequence[dict[str, Any]]], when: str, field: str) -> torch.Tensor:
    """Return 0 or 1 for each seed and question, or margins in nats for the field ``levels``.

    The mean over the models of a seed, where there are several.
    """

    def row(r: dict[str, Any]) -> list[float]:
        if field == "levels":
            return [true - wrong for true, wrong, _ in r[when][field]]
        return [float(c) for c in r[when][field]]

    return torch.stack([torch.tensor([row(r) for r in s]).double().mean(0) for s in seeds])


@dataclass(frozen=True)
class Line:
    """One arm at one k."""

    k: int
    arm: str
    accuracy: float
    wrong: float
    words: float
    control: float
    levels: tuple[float, ...]
    recovery: Recovery
    margin_recovery: Recovery
    words_recovery: Recovery
    plain_recovery: Recovery | None
    seeds: int
    seconds: float


def lines(
    questions: Sequence[RestorQuestion],
    runs: Sequence[dict[str, Any]],
    groups: Sequence[str] | None = None,
) -> Iterator[Line]:
    """Yield the line of each k and arm: means over seeds, with the interval of the ratio.

    Questions are drawn in groups for the interval: by subject if none are given.
    """
    bad = [i for i, q in enumerate(questions) if not q.control]
    good = [i for i, q in enumerate(questions) if q.control]
    subjects = [groups[i] if groups else questions[i].subject for i in bad]
    arms = dict.fromkeys(
        (r["k"], family(r["arm"])) for r in sorted(runs, key=lambda r: (r["k"], r["seed"]))
    )
    for k, arm in arms:
        own = runs_of(runs, k, arm)
        sides = [[runs_of(runs, k, name)[s] for s in own] for name in (arm, "corrupted", "clean")]

        def ratio(when: str, field: str, sides: Any = sides) -> Recovery:
            return recovery_ratio(
                *(hits(s, when, field)[:, bad] for s in sides),
                subjects,
                rng=Runtime().rng("restor/bootstrap"),
            )

        every = [r for same in own.values() for r in same]
        level = torch.tensor([r["repaired"]["levels"] for r in every])[:, bad].mean((0, 1))
        after = {f: hits(sides[0], "repaired", f) for f in ("true_choice", "wrong_choice")}
        yield Line(
            k=k,
            arm=arm,
            accuracy=float(after["true_choice"][:, bad].mean()),
            wrong=float(after["wrong_choice"][:, bad].mean()),
            words=float(hits(sides[0], "repaired", "true_words")[:, bad].mean()),
            control=float(after["true_choice"][:, good].mean()),
            levels=tuple(level.tolist()),
            recovery=ratio("repaired", "true_choice"),
            margin_recovery=ratio("repaired", "levels"),
            words_recovery=ratio("repaired", "true_words"),
            plain_recovery=ratio("plain", "true_choice") if "plain" in every[0] else None,
            seeds=len(own),
            seconds=statistics.mean(r["seconds"] for r in every),
        )


def runs_of(runs: Sequence[dict[str, Any]], k: int, arm: str) -> dict[int, list[dict[str, Any]]]:
    """Return the models of an arm by seed: one, or all that were retrained."""
    found: dict[int, list[dict[str, Any]]] = {}
    for r in runs:
        if r["k"] == k and family(r["arm"]) == arm:
            found.setdefault(r["seed"], []).append(r)
    return found


def ranks(
    questions: Sequence[RestorQuestion], runs: Sequence[dict[str, Any]], k: int
) -> dict[str, Rank]:
    """Return the place of each method at one k, by choices after the repair."""
    bad = [i for i, q in enumerate(questions) if not q.control]
    arms = [
        a for a in dict.fromkeys(r["arm"] for r in runs if r["k"] == k) if family(a) not in FIRST
    ]
    own = [runs_of(runs, k, arm) for arm in arms]
    seeds = set.intersection(*(set(o) for o in own)) if own else set()
    if not seeds:
        return {}
    answers = [hits([o[s] for s in sorted(seeds)], "repaired", "true_choice")[:, bad] for o in own]
    found = recovery_ranks(
        answers, [questions[i].subject for i in bad], rng=Runtime().rng("restor/bootstrap")
    )
    return dict(zip(arms, found, strict=True))


def page(world: World, found: Sequence[Line], places: Callable[[int], Mapping[str, Rank]]) -> str:
    """Return the result as Markdown."""
    weights = sum(p.numel() for p in network(world).parameters())
    others = world.authors - world.corrupted - world.controls
    out = [
        "# RESTOR, small: does the truth come back?",
        "",
        f"A GPT-2 of {weights:,} weights learns {len(world.facts)} facts about {world.authors}"
        f" invented authors ({len(TEMPLATES)} each, in four ways of saying them). Then it reads"
        f" {world.documents} documents about each of {world.corrupted} authors that get every"
        f" fact wrong, and half as many true documents about each of {others} others. The wrong"
        " documents are the forget set, the true ones the retain set;"
        f" {world.controls} authors are controls, about whom no document is. After each fact stand"
        " k true sentences about retain authors. Made by"
        f" `python -m experiments restor_small --write` (torch {torch.__version__},"
        f" {platform.machine()}); numbers of each model: [restor_small.json](restor_small.json).",
        "",
        "Right, wrong, control: share of questions whose most probable option is the true one"
        " (corrupted authors), the one that the documents claim (corrupted authors), and the true"
        " one (control authors). Words: share of greedy answers that have the true answer's words."
        " Recovery: (right - corrupted's) / (clean's - corrupted's), 1 where the model answers as"
        " if it had never read the wrong documents, with a 95 % interval over seeds and authors."
        " Log-probabilities: of the mean token of the true, the claimed and other options; by"
        " margin: the ratio of true minus claimed, which moves before the choice does. Every"
        " model, `clean` and `corrupted` too, is first repaired: trained for one pass over"
        " questions about retain authors. *Without repair* is the ratio of models as they are."
        " `retrain` is the clean model after reading true documents only: the mean of up to"
        f" {ORACLES} such models for each seed. Methods run at their"
        " defaults, which were not chosen on this case; those with a star at the rate and for the"
        " passes of the training on documents, without a stop rule. Width, rates and sizes were"
        " chosen on the clean, the corrupted and the retrained model, after a smaller first version"
        " in which `retrain` recovered 0.20 and no method moved.",
        "",
    ]
    for k in sorted({x.k for x in found}):
        own = [x for x in found if x.k == k]
        out += [f"## k = {k}", "", *table(own), "", conclusion(own), "", ranking(places(k)), ""]
    return "\n".join(out)


def ranking(places: Mapping[str, Rank]) -> str:
    """Return the methods from the best to the worst, with the interval of each place."""
    order = sorted(places, key=lambda arm: places[arm].value)
    told = [f"`{a}` {places[a].value:g} [{places[a].low:g}, {places[a].high:g}]" for a in order]
    return (
        f"Places by recovery, with 95 % intervals over seeds and authors: {', '.join(told)}."
        if told
        else "No method ran."
    )


def conclusion(found: Sequence[Line]) -> str:
    """Return which methods bring the truth back, and which forget without doing so."""
    methods = [x for x in found if x.arm not in FIRST]
    bring = [f"`{x.arm}`" for x in methods if x.recovery.low > 0]
    by_margin = [f"`{x.arm}`" for x in methods if x.margin_recovery.low > 0]
    (before,) = [x.wrong for x in found if x.arm == "corrupted"]
    only = [f"`{x.arm}`" for x in methods if x.wrong < before - 0.1 and not x.recovery.low > 0]
    return (
        f"The interval of recovery is above 0 for {', '.join(bring) or 'no method'}; by margin for"
        f" {', '.join(by_margin) or 'none'}. Forgetting"
        f" without recovery (the claimed answer is chosen at least 0.1 less often, and the interval"
        f" reaches 0): {', '.join(only) or 'no method'}."
    )


def table(found: Sequence[Line]) -> list[str]:
    """Return the lines of one k as a table."""
    return [
        "| model | right | wrong | words | control | log-probabilities | recovery | by margin"
        " | by words | without repair | seconds | seeds |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
        *(
            f"| {x.arm} | {x.accuracy:.2f} | {x.wrong:.2f} | {x.words:.2f} | {x.control:.2f} |"
            f" {', '.join(f'{v:.1f}' for v in x.levels)} | {shown(x.recovery)} |"
            f" {shown(x.margin_recovery)} | {shown(x.words_recovery)} |"
            f" {shown(x.plain_recovery)} | {x.seconds:.0f} | {x.seeds} |"
            for x in sorted(found, key=rank)
        ),
    ]


def rank(x: Line) -> tuple[int, float]:
    """Return the order of lines: the three references, then methods from the best."""
    return (FIRST.index(x.arm), 0.0) if x.arm in FIRST else (len(FIRST), -x.recovery.value)


def shown(r: Recovery | None) -> str:
    """Return a ratio with its interval; a dash where it was not measured."""
    if r is None:
        return "-"
    return f"{r.value:.2f} [{r.low:.2f}, {r.high:.2f}]"


def main() -> None:
    """Measure what is missing, print, and write the page if wanted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--k", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    world = World()
    with tempfile.TemporaryDirectory() as folder:
        path = (OUT if given.write else Path(folder)) / "restor_small.json"
        runs = measure(world, given.k, given.seeds, given.methods, path)
    text = page(world, list(lines(world.questions, runs)), partial(ranks, world.questions, runs))
    print(text)
    if given.write:
        (OUT / "restor_small.md").write_text(text, "utf-8")


if __name__ == "__main__":
    main()
