"""Control models: short retraining that tests an accusation of the fast audit.

A fast audit has no retrained model. Before it accuses a model, it trains a control for a tenth of
the training (by a user's own loop: on a tenth of the rows): on the retain set, so that it never saw
the forget set. What the control shows too lies in the rows and not in the model. A second
control, trained on all rows, shows how much of a loss of utility comes from the removal of the
data. Two more, on a half of the retain set each, show whether its labels are noisy; every tier asks
them before it calls a lower fit of the retain set damage.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from unlearnkit.auditing.label_noise import LabelNoise, label_noise
from unlearnkit.cache import Cache
from unlearnkit.core.case import Case, Partition
from unlearnkit.core.data import Data, TensorData, View
from unlearnkit.core.errors import DivergedError, UnsupportedError
from unlearnkit.core.evidence import Evidence, Split
from unlearnkit.core.keys import Keys
from unlearnkit.core.recipe import Recipe
from unlearnkit.core.runtime import Runtime
from unlearnkit.oracles import TrainedModel, oracle, train_original

CONTROL_SHARE = 0.1
"""Length of a control's training, as a share of the passes over rows that the original took."""

CONTROL_SEED = 3000
"""Seed of the controls; no original and no oracle has it by default."""


@dataclass
class ControlModels:
    """The controls of a case and a request, trained when they are needed, once each."""

    case: Case
    parts: Partition
    """Its forget set and its retain set."""

    rt: Runtime
    """Where they are trained; its meter counts their cost, whether they come from the cache or
    not."""

    cache: Cache

    share: float = CONTROL_SHARE
    """Length of a control's training, as a share of the original's; at 0 there are none."""

    leaks_only: bool = False
    """Whether only forget rows that look too familiar are followed up: whoever acts on leaks alone
    needs no control for rows that look unfamiliar, such as wrong labels."""

    _trained: dict[str, Evidence | str] = field(default_factory=dict)
    _noise: LabelNoise | None = None

    @property
    def trained(self) -> bool:
        """Return whether any control was trained, or could not be."""
        return bool(self._trained)

    def without_forget_set(self, like: Evidence) -> Evidence | str:
        """Return what a control that never saw the forget set shows on the rows of an audit.

        Args:
            like: The evidence of the audit: rows, task, runtime.

        Returns:
            Evidence with the control as its unlearned model; or why there is no control.
        """
        return self._find("without", like)

    def with_forget_set(self, like: Evidence) -> Evidence | str:
        """Return what a control that was trained on all rows shows on the rows of an audit.

        Args:
            like: The evidence of the audit: rows, task, runtime.

        Returns:
            Evidence with the control as its unlearned model; or why there is no control.
        """
        return self._find("with", like)

    def label_noise(self, like: Evidence) -> LabelNoise:
        """Return how much noisier the labels of the retain set are than those of the test rows.

        Args:
            like: The evidence of the audit: rows, task, runtime.

        Returns:
            The noise; unknown, with the reason, where no control can be trained.
        """
        if self._noise is None:
            self._noise = self._measured_noise(like)
        return self._noise

    def _measured_noise(self, like: Evidence) -> LabelNoise:
        if not {Split.RETAIN, Split.TEST} <= set(like.views) or self.parts.retain is None:
            return LabelNoise(0.0, 0.0, "there is no retain set, or there are no test rows")
        whole = self.parts.retain
        order = torch.randperm(len(whole), generator=self.rt.rng("control/halves"))
        half = whole.rows[order[: len(whole) // 2]]
        first = torch.isin(whole.rows, half)
        found = []
        for part in (whole.pick(first), whole.pick(~first)):
            one = self._train(partial(self._on_retained, part, "control/half"), like)
            if isinstance(one, str):
                return LabelNoise(0.0, 0.0, one)
            found.append(one)
        return label_noise((found[0], found[1]), torch.isin(like.views[Split.RETAIN].rows, half))

    def _find(self, what: str, like: Evidence) -> Evidence | str:
        if what not in self._trained:
            make = self._without if what == "without" else self._with
            self._trained[what] = self._train(make, like)
        return self._trained[what]

    def _train(self, make: Callable[[], TrainedModel], like: Evidence) -> Evidence | str:
        if not self.share:
            return "none is wanted"
        missing = [
            name
            for name, value in (("fresh", self.case.fresh), ("recipe", self.case.training))
            if value is None
        ]
        if missing:
            return f"the case has no {' and no '.join(missing)}"
        try:
            trained = make()
        except (DivergedError, UnsupportedError) as e:
            return str(e)
        self.rt.cost.forward += trained.cost.forward
        self.rt.cost.backward += trained.cost.backward
        return _evidence_of(trained.model, like)

    def _without(self) -> TrainedModel:
        if self.parts.retain is None:
            raise UnsupportedError("the case has no retain set")
        return self._on_retained(self.parts.retain, "control/retain")

    def _on_retained(self, rows: View, stream: str) -> TrainedModel:
        if self.parts.forget is None:
            raise UnsupportedError("the case has no forget set")
        parts = (self.parts.forget, self._sample(rows, stream))
        case = self.case.replace(train=None, parts=parts, recipe=self._short())
        return oracle(case, None, seeds=[CONTROL_SEED], rt=self.rt, cache=self.cache).runs[0]

    def _with(self) -> TrainedModel:
        train = self._all_rows()
        rows = self._sample(View.all(train), "control/all")
        loop = self.case.train_model
        case = self.case.replace(
            train=train.pick(rows.rows), parts=None, manipulated=None, recipe=self._short(),
            keys=Keys(), train_model=None if loop is None else loop.after_deletion(rows.rows),
        )  # fmt: skip
        return train_original(case, seed=CONTROL_SEED, rt=self.rt, cache=self.cache)

    def _all_rows(self) -> Data:
        """Return the training set, or both parts together where they are tensors."""
        if self.case.train is not None:
            return self.case.train
        both = [view.data for view in (self.parts.forget, self.parts.retain) if view is not None]
        tensors = [(d.x, d.y) for d in both if isinstance(d, TensorData)]
        inputs = [x for x, _ in tensors if isinstance(x, Tensor)]
        if len(inputs) < 2:
            raise UnsupportedError("the case has no whole training set")
        return TensorData(torch.cat(inputs), torch.cat([y for _, y in tensors]))

    def _short(self) -> Recipe | None:
        """Return the recipe with a share of its epochs; a user's own loop cannot be shortened."""
        if self.case.recipe is None:
            return None
        epochs = max(1, round(self.share * self.case.recipe.epochs))
        return self.case.recipe.model_copy(update={"epochs": epochs})

    def _sample(self, rows: View, stream: str) -> View:
        """Return as many rows as keep a training within the share; of a user's loop, the share."""
        epochs = self.case.training.epochs if isinstance(self.case.training, Recipe) else 1
        count = max(1, math.ceil(self.share * epochs * len(rows)))
        return rows.sample(count, self.rt, stream)


def _evidence_of(model: nn.Module, like: Evidence) -> Evidence:
    return Evidence(
        {"unlearned": model},
        like.views,
        like.task,
        like.rt,
        random=like.random,
        recipe=like.recipe,
        at_random=like.at_random,
    )
