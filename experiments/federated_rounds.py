"""Accuracy on forget and retained rows after each round of unlearning: digits, 10 clients, IID.

Run with ``python -m experiments federated_rounds``; with ``--write`` it draws
``docs/results/federated_rounds.svg``.
"""

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

import unlearnkit as uk
from benchmarks.drawing import figure
from experiments.federated import (
    METHODS,
    OUT,
    REBUILT,
    accuracy,
    make_case,
    serves,
    with_history_of,
)
from experiments.ten_deletions import PALETTE
from unlearnkit.federated import rounds as rounds_module
from unlearnkit.federated.aggregation import weighted_mean
from unlearnkit.methods import fed_eraser, fed_recover

WAYS = (*METHODS, "retrain")
REQUESTS = {"class": "A class", "client": "A client"}


@contextmanager
def global_states() -> Iterator[list[dict[str, Tensor]]]:
    """Record the global model after each round that is run within."""
    found: list[dict[str, Tensor]] = []

    def recorded(*given: Any) -> dict[str, Tensor]:
        mean = weighted_mean(*given)
        found.append({name: t.clone() for name, t in mean.items()})
        return mean

    with ExitStack() as stack:
        for module in (rounds_module, fed_eraser, fed_recover):
            stack.enter_context(patch.object(module, "weighted_mean", recorded))
        yield found


def measure() -> dict[tuple[str, str], list[tuple[float, float]]]:
    """Return accuracy on forget and retained rows after 0, 1, ... rounds, by request and method."""
    found = {}
    for request in REQUESTS:
        case, asked = make_case("iid", request)
        parts = case.partition(asked)
        with tempfile.TemporaryDirectory() as folder:
            original = uk.train_original(case, cache=uk.Cache(Path(folder))).model
        for method in WAYS:
            if not serves(method, request):
                continue
            given = with_history_of(method, case, original)
            with global_states() as states:
                uk.unlearn(original, given, asked, method)
            start = case.fresh() if method in {*REBUILT, "retrain"} else original
            curve = []
            for state in (start.state_dict(), *states):
                twin = case.fresh()
                twin.load_state_dict(state)
                curve.append(
                    (accuracy(twin, parts.forget, case), accuracy(twin, parts.retain, case))
                )
            found[request, method] = curve
            print(request, method, *(f"{f:.3f}/{r:.3f}" for f, r in curve), flush=True)
    return found


def plot(found: dict[tuple[str, str], list[tuple[float, float]]], path: Path) -> None:
    """Draw the curves: a panel for each request; forget rows solid, retained rows dashed."""
    with figure(path, 9.5, 4.6) as drawn:
        axes = drawn.subplots(1, len(REQUESTS), sharey=True)
        for ax, (request, title) in zip(axes, REQUESTS.items(), strict=True):
            for colour, method in zip(PALETTE, WAYS, strict=False):
                if (curve := found.get((request, method))) is None:
                    continue
                for column, style in enumerate(("-", "--")):
                    label = method if column == 0 else f"_{method}"
                    ax.plot([c[column] for c in curve], style, color=colour, lw=1.4, label=label)
            ax.set(
                title=f"{title} leaves", xlabel="Rounds (forget rows solid, retained rows dashed)"
            )
        axes[0].set_ylabel("Accuracy")
        lines = {line.get_label(): line for ax in axes for line in ax.get_lines()}
        names = [w for w in WAYS if w in lines]
        where = {"frameon": False, "fontsize": 8, "loc": "center right"}
        axes[0].legend([lines[n] for n in names], names, **where)


def main() -> None:
    """Measure, print, and draw if wanted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    found = measure()
    if given.write:
        plot(found, OUT / "federated_rounds.svg")
