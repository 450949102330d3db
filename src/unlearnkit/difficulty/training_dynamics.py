"""Training dynamics: proxies of memorisation from one training run.

Zhao et al., NeurIPS 2024, arXiv:2406.01257 (RUM) and arXiv:2410.16516: rows that are learned late
are those that a model trained without them would get wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from unlearnkit.cache import Cache
from unlearnkit.core.case import Case
from unlearnkit.core.data import Batch, View
from unlearnkit.core.errors import UnsupportedError
from unlearnkit.core.inference import predict
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.training import training_key
from unlearnkit.train.ensemble import LAYERS
from unlearnkit.train.loop import Pass, alternate
from unlearnkit.train.rng_guard import seeded_global_rngs
from unlearnkit.train.training_task import epoch_sampler, training_task

Proxy = Literal["confidence", "top", "surety", "correctness"]


@dataclass(frozen=True)
class TrainingDynamics:
    """Of each of N training rows, means over the states after each epoch, in eval mode."""

    model: nn.Module
    """The trained model: an original."""

    confidence: Tensor
    """Probability of the row's class ``(N,)``."""

    top: Tensor
    """Largest probability ``(N,)``."""

    surety: Tensor
    """Negative entropy, ``sum p ln p`` ``(N,)``, in nats."""

    correctness: Tensor
    """Share of epochs after which the row was right ``(N,)``."""

    def memorised(self, by: Proxy = "confidence") -> Tensor:
        """Return a score ``(N,)`` that is high for memorised rows: the negative of a mean."""
        return -torch.as_tensor(getattr(self, by))


def record_dynamics(
    case: Case, *, seed: int = 0, rt: Runtime | None = None, cache: Cache | None = None
) -> TrainingDynamics:
    """Train an original and read what it says of its training rows after each epoch.

    Initial weights, order and augmentation are those of ``train_original`` of the same seed, so the
    model is too; reading costs a forward pass over the training set an epoch, a third of the
    training itself.

    Args:
        case: Rows of a classification, model factory, recipe.
        seed: Of initial weights and order.
        rt: Where to train; its own seed plays no part.
        cache: Where means and weights are kept.

    Returns:
        The means and the model, from the cache if they are there.
    """
    view, place, cache = trainable(case), rt or Runtime(), cache or Cache()
    run_rt = place.fork(seed)
    model, key = start(case, view, run_rt, "watched course")

    def make() -> tuple[dict[str, Tensor], dict[str, Any]]:
        assert case.recipe is not None
        place.note(
            f"difficulty: an original is trained and watched first, once: {len(view):,} rows for"
            f" {case.recipe.epochs} epochs, and a third more"
        )
        means = _watched(model, view, case, run_rt)
        return means | {f"model/{n}": t for n, t in model.state_dict().items()}, {}

    kept = cache.get(key, make).tensors
    model.load_state_dict({n: kept[f"model/{n}"] for n in model.state_dict()})
    return TrainingDynamics(model, *(kept[n] for n in _READ))


def _watched(model: nn.Module, view: View, case: Case, rt: Runtime) -> dict[str, Tensor]:
    assert case.recipe is not None
    seen, stream = training_task(case.task, case.recipe), f"original {rt.seed}"
    task, sums = case.task, {n: torch.zeros(len(view), dtype=torch.float64) for n in _READ}
    states = 0

    def loss(batch: Batch) -> Tensor:
        return seen.losses(seen.outputs(model, batch), batch)

    def read(_: int) -> bool:
        nonlocal states
        states += 1
        log_p = task.log_probs(predict(model, view, task, rt).double())
        assert log_p is not None
        sums["confidence"] += log_p.gather(1, view.y[:, None])[:, 0].exp()
        sums["top"] += log_p.amax(1).exp()
        sums["surety"] += torch.special.entr(log_p.exp()).sum(1).neg()
        sums["correctness"] += (log_p.argmax(1) == view.y).double()
        return False

    with seeded_global_rngs(rt, LAYERS):
        one = Pass(view, loss, stream, sampler=epoch_sampler(case.recipe))
        alternate(model, (one,), case.recipe, rt, after_epoch=read)
    return {n: t / states for n, t in sums.items()}


_READ = ("confidence", "top", "surety", "correctness")


def trainable(case: Case) -> View:
    """Return all training rows of a classification that can be trained from scratch."""
    if case.train is None or case.fresh is None or case.recipe is None:
        raise UnsupportedError(
            "difficulty: needs a training set, a model factory and a recipe; give"
            " Case(train=..., fresh=..., recipe=...)"
        )
    if case.train_model is not None:
        raise UnsupportedError(
            "difficulty: follows the epochs of a recipe, and train_model does not show its own; use"
            " a case with recipe= alone"
        )
    view = View.all(case.train)
    if not view.labelled or view.y.ndim != 1 or view.y.is_floating_point():
        raise UnsupportedError(
            f"difficulty: memorisation is measured by classes, got the task {case.task.name}"
        )
    return view


def start(
    case: Case, view: View, rt: Runtime, kind: str, data: str | None = None
) -> tuple[nn.Module, dict[str, Any]]:
    """Return an untrained model on the device, and the cache key of training it on these rows."""
    assert case.fresh is not None
    assert case.recipe is not None
    with seeded_global_rngs(rt, "train/init"):
        model = case.fresh()
    key = training_key(kind, model, view.key(data), case.task, case.recipe, rt)
    return model.to(rt.device), key
