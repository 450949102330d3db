"""Localizer: finds the mask of a model for a request."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from unlearnkit.core.case import Case, Partition
from unlearnkit.core.data import View
from unlearnkit.core.digest import model_digest
from unlearnkit.core.errors import InputError, UnsupportedError
from unlearnkit.core.inference import first_rows
from unlearnkit.core.request import ForgetRequest, parse_request
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.task import Task
from unlearnkit.core.wrapped_models import unwrap
from unlearnkit.localize.criteria import (
    critical_memory,
    gradients,
    layer_order_scores,
    random_scores,
    trainable,
)
from unlearnkit.localize.mask import Mask
from unlearnkit.localize.mask_spec import MaskSpec
from unlearnkit.localize.top_k import check_scores, top_k
from unlearnkit.localize.units import blocks, scatter_units, select_units, unit_scores
from unlearnkit.train.memory_format import quick


class Localizer(MaskSpec):
    """How to choose the scalars of a model that may move."""

    @classmethod
    def of(cls, asked: MaskSpec) -> "Localizer":
        """Return what was requested, able to find it."""
        return cls(**dict(asked))

    def check(self, split: Partition) -> None:
        """Refuse a case without the rows that the criterion reads."""
        if split.forget is None:
            raise UnsupportedError(
                "localize: a mask is made for forget rows, which the case does not give"
            )
        if split.retain is None and self.criterion in {"weighted_grad_all", "critical_memory"}:
            raise UnsupportedError(
                f"localize: {self.criterion} reads retained rows, which the case does not give; use"
                " weighted_grad"
            )

    def find(
        self,
        model: nn.Module,
        case: Case,
        request: ForgetRequest | str | None,
        rt: Runtime | None = None,
    ) -> Mask:
        """Return the mask of a model for a request.

        Args:
            model: The trained model; comes back as it was.
            case: What it was trained on.
            request: What must go; None for a case made from parts.
            rt: Device, seed, cost; the CPU with seed 0 by default.

        Returns:
            The mask, on the CPU.
        """
        split = case.partition(None if request is None else parse_request(request))
        return self.find_in(unwrap(model), split, case.task, rt or Runtime())

    def find_in(
        self,
        model: nn.Module,
        split: Partition,
        task: Task,
        rt: Runtime,
        of: nn.Module | None = None,
    ) -> Mask:
        """Return the mask of a model for given rows.

        Args:
            model: The trained model, on the run's device; unchanged afterwards.
            split: The case's rows, by the request.
            task: Supplies each row's loss.
            rt: Device, seed, cost.
            of: The model that ``model`` is a copy of in another precision.

        Returns:
            The mask, on the CPU.
        """
        self.check(split)
        assert split.forget is not None
        with quick(model, first_rows(split.forget, rt), task, rt):
            chosen = self.choose(model, split.forget, split.retain, task, rt)
        return self.mask(chosen, model if of is None else of, split, rt)

    def mask(
        self, chosen: Mapping[str, Tensor], model: nn.Module, split: Partition, rt: Runtime
    ) -> Mask:
        """Return chosen scalars with all that is known of where they come from."""
        return Mask(
            chosen={n: m.cpu() for n, m in chosen.items()},
            budget=self.budget,
            criterion=self.criterion,
            granularity=self.granularity,
            model=model_digest(model),
            forget="" if split.forget is None else split.forget.key(),
            seed=rt.seed,
            found_by=self.model_dump(mode="json"),
        )

    def choose(
        self, model: nn.Module, forget: View, retain: View | None, task: Task, rt: Runtime
    ) -> dict[str, Tensor]:
        """Return boolean tensors by parameter name: True where a scalar is chosen."""
        params = dict(trainable(model))
        total = sum(p.numel() for p in params.values())
        if not total:
            raise InputError("localize: no parameter requires gradients; there is none to choose")
        budget = math.floor(self.budget * total + 1e-9)
        if self.granularity == "parameter":
            chosen = top_k(self._scalars(model, forget, retain, task, rt), budget)
        else:
            units = blocks(model, heads=self.granularity == "head")
            if self.criterion == "critical_memory":
                assert retain is not None
                scores = critical_memory(
                    model, forget, retain, task, rt, units, batch_size=self.batch_size
                )
            elif self.criterion == "random":
                rng = rt.rng("localize/random")
                scores = [torch.rand(b.count, generator=rng) for b in units]
            else:
                scalars = self._scalars(model, forget, retain, task, rt)
                check_scores(scalars)
                scores = unit_scores(units, scalars, self.top)
            taken = select_units(units, scores, budget)
            if self.criterion == "critical_memory":
                taken = [t & (s > 0) for t, s in zip(taken, scores, strict=True)]
            chosen = scatter_units(units, taken, params)
        if not any(bool(m.any()) for m in chosen.values()):
            raise InputError(
                f"localize: a budget of {self.budget:g}, {budget} of {total} scalars, holds no"
                f" {self.granularity} that the criterion chooses; raise it"
            )
        return chosen

    def _scalars(
        self, model: nn.Module, forget: View, retain: View | None, task: Task, rt: Runtime
    ) -> dict[str, Tensor]:
        """Return a float32 score of 0 or more for each scalar."""
        if self.criterion == "critical_memory":
            raise InputError(
                "localize: critical_memory silences whole units, got granularity 'parameter'; use"
                " 'channel'"
            )
        if self.criterion in {"deepest", "shallowest"}:
            return layer_order_scores(model, deepest=self.criterion == "deepest")
        if self.criterion == "random":
            return random_scores(model, rt, "localize/random")
        with torch.no_grad():
            if self.criterion == "weight":
                return {n: p.abs().float() for n, p in trainable(model)}
        views = [forget]
        if self.criterion == "weighted_grad_all":
            assert retain is not None
            views = [forget, retain]
        found = gradients(
            model, views, task, rt, batch_size=self.batch_size, accumulate=self.accumulate
        )
        if self.criterion != "grad":
            with torch.no_grad():
                for n, p in trainable(model):
                    found[n] *= p.abs()
        return {n: t.float() for n, t in found.items()}
