"""The small table of deep regression unlearning: digits 0 to 2 leave a network that reads numbers.

Run with ``python -m experiments digits_as_numbers``; with ``--write`` it writes
``docs/results/digits_as_numbers.md``. Settings are those of the published code, not our defaults:
Adam, whole epochs, forget rows in every batch, attention maps as published with weight 50.
"""

import argparse
import platform
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from scipy.stats import wasserstein_distance
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

import unlearnkit as uk
from unlearnkit.core.data import TensorData
from unlearnkit.core.method import Problem
from unlearnkit.core.recipe import FineTuneSchedule
from unlearnkit.methods.blindspot_regression import BlindspotRegression
from unlearnkit.methods.gaussian_amnesiac import GaussianAmnesiac

PAGE = Path(__file__).parents[1] / "docs" / "results" / "digits_as_numbers.md"
LOW, LATE = 2, 1e-3
"""Largest digit that must go; the rate of Adam in unlearning (training: ten times that)."""

EXPECTED = {
    "original": ((0.72, 0.07), (0.43, 0.08), (4.98, 0.20)),
    "oracle": ((0.52, 0.03), (5.19, 0.22), (0.0, 0.0)),
    "finetune, 5 epochs": ((0.59, 0.03), (0.54, 0.04), (4.80, 0.09)),
    "gaussian_amnesiac, 1 epoch": ((0.67, 0.07), (1.39, 0.36), (3.92, 0.27)),
    "blind model, 2 epochs": ((1.58, 0.44), (3.79, 0.63), (1.38, 0.50)),
    "blindspot_regression 2 + 1": ((0.63, 0.05), (1.41, 0.69), (3.89, 0.53)),
    "blindspot_regression 2 + 5": ((0.55, 0.03), (3.64, 0.62), (1.58, 0.52)),
    "blind model, 10 epochs": ((0.59, 0.03), (5.14, 0.27), (0.30, 0.10)),
    "blindspot_regression 10 + 1": ((0.60, 0.00), (1.49, 0.30), (3.79, 0.18)),
    "blindspot_regression 10 + 5": ((0.58, 0.01), (4.57, 0.17), (0.61, 0.06)),
}
"""What the specification measured: retained and forget error on test rows, distance to the oracle;
each with its deviation over seeds."""

Numbers = tuple[float, float, float]


def network() -> nn.Module:
    """Return three convolutions with batch normalisation and one output."""

    def block(a: int, b: int, stride: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(a, b, 3, stride, 1), nn.BatchNorm2d(b), nn.ReLU())

    body = block(1, 32, 1), block(32, 64, 1), block(64, 64, 2)
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 1))


@dataclass(frozen=True)
class Bench:
    """The rows, split once with a class's share in each part."""

    case: uk.Case
    test: TensorData
    forget: Tensor

    @classmethod
    def make(cls) -> "Bench":
        """Return the rows with 450 of them held out."""
        bunch = load_digits()
        x = torch.tensor(bunch.data / 16).float().reshape(-1, 1, 8, 8)
        y = torch.tensor(bunch.target).float()
        train, test = train_test_split(
            range(len(y)), test_size=450, stratify=bunch.target, random_state=0
        )
        rows = TensorData(x[train], y[train])
        task = uk.Regression.infer(rows, loss="l1")
        recipe = uk.Recipe(optimizer="adam", lr=1e-2, epochs=20, batch_size=64)
        case = uk.Case(train=rows, task=task, fresh=network, recipe=recipe)
        return cls(case, TensorData(x[test], y[test]), (rows.y <= LOW).nonzero()[:, 0])

    def models(self, seed: int) -> Iterator[tuple[str, nn.Module]]:
        """Yield each line's model for one seed; the oracle first."""
        request, rt = uk.Rows(self.forget.tolist()), uk.Runtime(seed=seed)
        yield "oracle", uk.oracle(self.case, request, seeds=[seed]).models[0]
        model = uk.train_original(self.case, seed=seed).model
        yield "original", model

        def adam(epochs: int, lr: float = LATE) -> FineTuneSchedule:
            return FineTuneSchedule.exact(optimizer="adam", lr=lr, epochs=epochs, batch_size=64)

        def unlearned(how: uk.Method) -> nn.Module:
            return uk.unlearn(model, self.case, request, how, rt).model

        yield "finetune, 5 epochs", unlearned(uk.method("finetune", run=adam(5)))
        amnesiac = GaussianAmnesiac(early=1, run=adam(1))
        yield "gaussian_amnesiac, 1 epoch", unlearned(amnesiac)
        parts = self.case.partition(request)
        problem = Problem(
            model=model,
            original=model,
            task=self.case.task,
            forget=parts.forget,
            retain=parts.retain,
            validation=None,
            recipe=self.case.recipe,
            build=network,
        )
        for exposed in (2, 10):
            how = [
                BlindspotRegression(
                    blind=adam(exposed, 10 * LATE),
                    attention=50.0,
                    maps="reference",
                    early=1,
                    run=adam(epochs),
                )
                for epochs in (1, 5)
            ]
            blind = how[0].blind_model(problem, uk.Runtime(seed=seed))
            yield f"blind model, {exposed} epochs", blind
            for h, epochs in zip(how, (1, 5), strict=True):
                yield f"blindspot_regression {exposed} + {epochs}", unlearned(h)

    def numbers(self, model: nn.Module, oracle: nn.Module) -> Numbers:
        """Return retained and forget error on test rows, and W1 to the oracle on forget rows."""
        answers, low = predicted(model, self.test.x), self.test.y <= LOW
        error = (answers - self.test.y).abs()
        rows = self.case.train.x[self.forget]
        apart = wasserstein_distance(predicted(model, rows), predicted(oracle, rows))
        return float(error[~low].mean()), float(error[low].mean()), float(apart)


@torch.inference_mode()
def predicted(model: nn.Module, x: Tensor) -> Tensor:
    """Return the prediction of each row ``(N,)``."""
    return model.eval()(x)[:, 0]


def main() -> None:
    """Measure, print the page, write it when asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name}")
    asked = parser.parse_args()
    bench, found = Bench.make(), {}
    for seed in range(asked.seeds):
        oracle = None
        for name, model in bench.models(seed):
            oracle = oracle or model
            numbers = bench.numbers(model, oracle)
            found.setdefault(name, []).append(numbers)
            print(seed, name, *(f"{v:.3f}" for v in numbers), flush=True)
    text = page(found)
    print(text)
    if asked.write:
        PAGE.write_text(text, encoding="utf-8")


def page(found: dict[str, list[Numbers]]) -> str:
    """Return the table: each number, beside it the specification's."""
    seeds = len(next(iter(found.values())))
    head = "| model | retained error | expected | forget error | expected | W1 | expected |"
    lines = [
        "# Digits as numbers, with the settings of the published code",
        "",
        "A small convolutional network reads handwritten digits as numbers; 0, 1 and 2 must go."
        " Errors are mean absolute ones on the 450 test rows; W1 is the Wasserstein distance to"
        " the oracle of the same seed on the forgotten training rows. Mean ± standard deviation"
        f" over {seeds} seeds; expected is what the specification of the method measured. An"
        " exclamation mark: further from it than both deviations together, doubled. Made by"
        f" `python -m experiments digits_as_numbers --write` (torch {torch.__version__},"
        f" {platform.machine()}).",
        "",
        head,
        "|---|---|---|---|---|---|---|",
    ]
    for name, expected in EXPECTED.items():
        cells = [
            f"{mean:.2f} ± {sd:.2f}{'' if near(mean, sd, *want) else ' !'} |"
            f" {want[0]:.2f} ± {want[1]:.2f}"
            for want, values in zip(expected, zip(*found[name], strict=True), strict=True)
            for mean, sd in [(statistics.mean(values), spread(values))]
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", "What the specification asserts, of the means:", ""]
    lines += [
        f"- {what}: {'holds' if true else '**does not hold**'}" for what, true in checks(found)
    ]
    return "\n".join(lines) + "\n"


def checks(found: dict[str, list[Numbers]]) -> Iterator[tuple[str, bool]]:
    """Yield each assertion of the specification, and whether it is true."""
    mean = {n: [statistics.mean(v) for v in zip(*each, strict=True)] for n, each in found.items()}
    tuned, drawn = mean["finetune, 5 epochs"], mean["gaussian_amnesiac, 1 epoch"]
    for exposed in (2, 10):
        mine = mean[f"blindspot_regression {exposed} + 5"]
        blind = mean[f"blind model, {exposed} epochs"]
        name = f"blindspot_regression {exposed} + 5"
        off = abs(mine[1] / blind[1] - 1)
        yield f"{name}: forget error within 25 % of the blind model's ({off:.0%})", off <= 0.25
        yield f"{name}: retained error at most 0.75", mine[0] <= 0.75
        closer = mine[2] < min(tuned[2], drawn[2])
        yield f"{name}: nearer to the oracle than the other two methods", closer
    yield "finetune leaves a forget error below 1", tuned[1] < 1


def near(mean: float, sd: float, want: float, off: float) -> bool:
    """Tell whether two means are within twice the sum of their deviations."""
    return abs(mean - want) <= 2 * (sd + off) + 0.005


def spread(values: tuple[float, ...]) -> float:
    """Return the standard deviation; 0 of one value."""
    return statistics.stdev(values) if len(values) > 1 else 0.0
