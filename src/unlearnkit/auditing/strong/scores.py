"""Sets of models against a reference set: what the strong table is computed of, once each."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import torch
from torch import Tensor

from unlearnkit.attacks.forgetting_quality import forgetting_quality
from unlearnkit.attacks.iam import IamScores, iam_scores
from unlearnkit.attacks.klom import klom
from unlearnkit.attacks.ulira import log_ratios, ulira
from unlearnkit.attacks.wasserstein import wasserstein
from unlearnkit.auditing.strong import bootstrap_intervals as intervals
from unlearnkit.auditing.strong.margin_store import MarginMatrix, ModelId
from unlearnkit.core.runtime import Runtime
from unlearnkit.stats.matrix_checks import blocks


def towards_targets(signals: MarginMatrix) -> MarginMatrix:
    """Return signals whose margins say how far predictions have come towards the rows' targets.

    Of real targets the error is a poor margin: it folds the law of a prediction about its target
    and loses the side. Over models predictions are near to normal; what is taken of each is its
    part along the way from the mean prediction of all models to the target, which for one target is
    the prediction with a sign. All models have the same say in that way,
    so that labels of models can be exchanged as before.

    Args:
        signals: Of any task.

    Returns:
        The same signals where targets are no numbers.
    """
    if signals.residuals is None:
        return signals
    models, examples, numbers = signals.residuals.shape
    margins = torch.empty(models, examples, dtype=torch.float64)
    for part in blocks(examples, 2 * models * numbers):
        residuals = signals.residuals[:, part]
        gap = residuals.mean(0)
        size = gap.norm(dim=1, keepdim=True)
        even = torch.full_like(gap, numbers**-0.5)
        way = torch.where(size > 0, gap / torch.where(size > 0, size, 1.0), even)
        margins[:, part] = -(residuals * way).sum(2)
    return replace(signals, margins=margins)


class EnsembleScores:
    """Sets of models, each against one reference set, and what was found out about each."""

    def __init__(self, signals: MarginMatrix, rt: Runtime, against: str = "oracle") -> None:
        self.signals, self.rt = towards_targets(signals), rt
        self.against = against
        self.equal = signals.duplicates()
        copies = {
            m
            for group in self.equal
            for m in sorted((m for m in group if m.who == "unlearned"), key=_seed)[1:]
        }
        ours = sorted((m for m in signals.members if m.who == "unlearned"), key=_seed)
        self.distinct_models = [i for i, m in enumerate(ours) if m not in copies]
        self.quality = cache(lambda who: forgetting_quality(*self.pair(who)))
        self.ulira = cache(lambda who: ulira(*self._answers(who)))
        self.ratios = cache(lambda who: log_ratios(*self._answers(who)))
        """What U-LiRA's attackers say of the models they did not learn from, half by half."""
        self.iam = cache(self._degree)
        self.wasserstein = cache(lambda who: wasserstein(*self.pair(who)))
        self.klom = cache(
            lambda who, part: klom(self.answers(who, part), self.answers(against, part))
        )
        self.klom_reach = cache(self._klom_reach)

    def answers(self, who: str, section: str, what: str = "margins") -> Tensor:
        """Return what a set of models says; of equal unlearned models the first alone."""
        found = self.signals.of(who, section, what)
        return found[self.distinct_models] if who == "unlearned" else found

    def margins_of_sections(self, who: str, *sections: str) -> Tensor:
        """Return the margins of several sections side by side."""
        return torch.cat([self.answers(who, part) for part in sections], 1)

    def has(self, *sections: str) -> bool:
        """Return whether there are examples in these sections."""
        return all(len(self.signals.columns.get(s, ())) for s in sections)

    def size(self, section: str) -> int:
        """Return how many examples a section has."""
        return len(self.signals.columns.get(section, ()))

    @property
    def is_regression(self) -> bool:
        """Return whether targets are numbers, and margins say how near predictions are."""
        return self.signals.residuals is not None

    def original_margins(self, who: str, section: str) -> Tensor:
        """Return the margins of the originals that a set of models is held against, in order."""
        found = self.signals.of("original", section)
        return found[self.distinct_models] if who == "unlearned" else found

    def _degree(self, who: str) -> IamScores:
        return iam_scores(self.original_margins(who, "forget"), *self.pair(who))

    def _answers(self, who: str) -> tuple[Tensor, Tensor]:
        """Return margins, or all numbers of a prediction where it has several."""
        residuals = self.signals.residuals
        if residuals is None or residuals.shape[2] == 1:
            return self.pair(who)
        return self.answers(who, "forget", "residuals"), self.answers(
            self.against, "forget", "residuals"
        )

    def _klom_reach(self, section: str) -> intervals.HalfWidths:
        sides = self.answers("unlearned", section), self.answers(self.against, section)
        return intervals.klom_reach(*sides, self.rt.rng(f"strong/klom/{section}"))

    def pair(self, who: str) -> tuple[Tensor, Tensor]:
        """Return the margins of a set of models and of the reference on the forget set."""
        return self.answers(who, "forget"), self.answers(self.against, "forget")


def _seed(member: ModelId) -> int:
    return member.seed
