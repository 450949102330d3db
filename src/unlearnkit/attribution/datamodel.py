"""Datamodel attribution: shifts predicted from models of random subsets of the training rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from unlearnkit.attribution.attributed_model import AttributedModel
from unlearnkit.attribution.leave_out_models import WITH
from unlearnkit.attribution.linear_datamodel import difference_weights, lasso_effects, ridge_weights
from unlearnkit.attribution.predicted_shift import PredictedShift
from unlearnkit.attribution.shift_quality import ShiftQuality, shift_quality
from unlearnkit.attribution.trained_outputs import PlannedTraining, TrainedOutputs
from unlearnkit.cache import Cache
from unlearnkit.core.checked import FrozenModel
from unlearnkit.core.data import View
from unlearnkit.core.errors import InputError
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.search_space import SearchRange
from unlearnkit.train.output_matching import centre_outputs

PENALTIES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
"""Ridge penalties that are tried, as multiples of the mean diagonal of ``X^T X``."""

PATH = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01)
"""LASSO penalties that are tried, as multiples of the smallest that makes all effects 0."""

SAMPLED = 2048
"""Outputs (row and class) on which penalties are compared and the quality is measured."""

_IN_PLAN = {"models", "share", "whole"}
"""Settings that say which models are trained: the address of their outputs has them."""

FIRST = 500_000
"""Seed of the first subset: far from those of originals and oracles."""


class DatamodelAttribution(FrozenModel):
    """Models of random subsets, and a linear function of which rows they were trained on."""

    kind: Literal["datamodel"] = "datamodel"
    """From models of random subsets."""

    estimator: Literal["ridge", "lasso", "difference"] = "ridge"
    """Ridge regression; LASSO (a penalty for each output); or the difference in means, which has no
    penalty."""

    models: int = Field(1024, ge=4)
    """Models of subsets (paper: m): 300,000 and 20,000 in the paper's experiments. More models than
    training rows are needed for sharp effects."""

    share: Annotated[float, SearchRange(0.5, 0.9)] = Field(0.5, gt=0, lt=1)
    """Size of a subset, of the training rows (paper: alpha, 0.5). Larger subsets are nearer to the
    full set, where a row has less effect, and cost more."""

    whole: int = Field(64, ge=0)
    """Models trained on all rows, besides: subsets of one size do not tell what a smaller training
    set does as such. The difference in means has none, as published."""

    held_out: float = Field(0.1, gt=0, lt=1)
    """Share of the models that choose the penalty and measure the quality; at the end all models
    are used."""

    def predict(
        self, subject: AttributedModel, read: View, rt: Runtime, cache: Cache
    ) -> PredictedShift:
        """Return the predicted shift of outputs on some rows.

        Args:
            subject: How models are trained; its own weights are not read.
            read: The N rows.
            rt: Where to train.
            cache: Where outputs of the models and the shift are kept.

        Returns:
            The shift of the mean output of a training, for every model of this kind. A training
            that diverges, a row that every subset has, and a subset without rows are errors of
            their own.
        """
        n = len(subject.train)
        whole = 0 if self.estimator == "difference" else self.whole
        every = [PlannedTraining(WITH + k, torch.arange(n)) for k in range(whole)]
        plan = (*every, *subset_plan(n, self.models, self.share))
        outputs = TrainedOutputs(subject, plan, read, rt, cache)
        key = {
            "kind": "datamodel shift",
            "outputs": outputs.address(),
            "forget": subject.request_digest(),
            "how": {n: v for n, v in self.model_dump().items() if n not in _IN_PLAN},
        }
        kept = cache.get(key, lambda: self._made(subject, outputs))
        facts = dict(kept.facts)
        work = int(facts.pop("work"))
        return PredictedShift(
            kept.tensors["shift"],
            ShiftQuality.of_facts(facts),
            f"datamodel ({self.estimator}, {self.models:,} models on {self.share:g} of the rows)",
            rows=subject.train.key(),
            forget=subject.request_digest(),
            read=read.key(),
            work=work,
        )

    def _made(
        self, subject: AttributedModel, outputs: TrainedOutputs
    ) -> tuple[dict[str, Tensor], dict[str, object]]:
        n = len(subject.train)
        masks = torch.zeros(len(outputs.plan), n, dtype=torch.bool)
        for k, one in enumerate(outputs.plan):
            masks[k, one.rows] = True
        test = max(1, round(self.held_out * self.models))
        away = -subject.forget.double()[None]
        if self.estimator == "lasso":
            shift, quality, work = _by_lasso(masks, test, away[0], outputs)
        else:
            shift, quality, work = self._by_weights(masks, test, away, outputs)
        return {"shift": shift.float()}, {**quality.facts(), "work": work}

    def _by_weights(
        self, masks: Tensor, test: int, away: Tensor, outputs: TrainedOutputs
    ) -> tuple[Tensor, ShiftQuality, int]:
        """Return shift, quality and work by an estimator that is linear in the outputs."""
        final = self._weights(masks, away)[:, 0]  # (L, m)
        fitted, held = masks[:-test], masks[-test:]
        whole = int(masks.all(1).sum())  # they come first
        inclusion = held.double() - fitted[whole:].double().mean(0)
        trial = self._weights(fitted, inclusion)  # (L, H, m - H)
        shift, sample, work, start = torch.zeros(0), [], 0, 0
        for block, spent in _read(outputs):
            part = final[:, start : start + len(block)]
            moved = part @ block.flatten(1).double()
            shift = moved if not len(shift) else shift + moved
            sample.append(_sampled(block))
            start, work = start + len(block), work + spent
        some = torch.cat(sample).double()
        observed = some[-test:] - some[whole:-test].mean(0)
        predicted = trial @ some[:-test]
        errors = (predicted - observed).square().mean((1, 2))
        best = int(errors.argmin())
        shape = outputs.read, len(shift[best]) // len(outputs.read)
        return (
            shift[best].reshape(len(shape[0]), shape[1]),
            shift_quality(predicted[best], observed),
            work,
        )

    def _weights(self, masks: Tensor, along: Tensor) -> Tensor:
        if self.estimator == "difference":
            return difference_weights(masks, along)
        return ridge_weights(masks, along, _scale(masks) * torch.tensor(PENALTIES))


def subset_plan(rows: int, models: int, share: float) -> tuple[PlannedTraining, ...]:
    """Return random subsets of one size, each with its seed.

    Args:
        rows: How many training rows there are.
        models: How many subsets.
        share: Size of a subset, as a share of the rows.

    Returns:
        The subsets; a longer plan begins with a shorter one.

    Raises:
        InputError: If a subset has no row or all rows.
    """
    size = int(share * rows)
    if not 0 < size < rows:
        raise InputError(
            f"datamodel: a share of {share:g} of {rows} rows is {size} rows; give one that takes"
            " some rows and leaves some"
        )
    plan = []
    for seed in range(FIRST, FIRST + models):
        order = torch.randperm(rows, generator=Runtime(seed=seed).rng("datamodel/subset"))
        plan.append(PlannedTraining(seed, order[:size].sort().values))
    return tuple(plan)


def _read(outputs: TrainedOutputs) -> Iterator[tuple[Tensor, int]]:
    for block, work in outputs.blocks():
        yield centre_outputs(block, outputs.subject.task), work


def _scale(masks: Tensor) -> float:
    """Return the mean diagonal of ``X^T X`` of centred inclusion."""
    return float((masks.double() - masks.double().mean(0)).square().sum(0).mean())


def _sampled(block: Tensor) -> Tensor:
    """Return at most ``SAMPLED`` outputs of each model, evenly over rows and classes."""
    flat = block.flatten(1)
    width = flat.shape[1]
    if width <= SAMPLED:
        return flat
    picks = Runtime().rng("datamodel/outputs")
    return flat[:, torch.randperm(width, generator=picks)[:SAMPLED]]


def _by_lasso(
    masks: Tensor, test: int, away: Tensor, outputs: TrainedOutputs
) -> tuple[Tensor, ShiftQuality, int]:
    """Return shift, quality and work by LASSO, with a penalty chosen for each output."""
    parts, work = [], 0
    for block, spent in _read(outputs):
        parts.append(block.flatten(1))
        work += spent
    y = torch.cat(parts)
    fitted, held = y[:-test], y[-test:]
    path = _path(masks[:-test], fitted)
    whole = int(masks.all(1).sum())  # they come first
    inclusion = (masks[-test:].float() - masks[whole:-test].float().mean(0)).to(y)
    observed = held - fitted[whole:].mean(0)
    guesses = torch.stack([inclusion @ beta for beta in path])  # (L, H, T)
    best = (guesses - observed).square().mean(1).argmin(0)
    predicted = guesses.gather(0, best.expand(1, len(held), -1))[0]
    gram, products, top = _moments(masks, y)
    beta = lasso_effects(gram, products, top * torch.tensor(PATH).to(y)[best])
    shift = away.to(beta) @ beta
    return shift.reshape(len(outputs.read), -1), shift_quality(predicted, observed), work


def _path(masks: Tensor, y: Tensor) -> Iterator[Tensor]:
    gram, products, top = _moments(masks, y)
    beta = None
    for share in PATH:
        beta = lasso_effects(gram, products, share * top, start=beta)
        yield beta


def _moments(masks: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    x = masks.to(y)
    x = x - x.mean(0)
    products = x.mT @ (y - y.mean(0)) / len(x)
    return x.mT @ x / len(x), products, products.abs().amax(0)
