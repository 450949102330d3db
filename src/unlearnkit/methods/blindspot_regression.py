"""Blindspot for regression: distillation from a model that never saw the forget set."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from unlearnkit.core.data import Batch
from unlearnkit.core.errors import InputError
from unlearnkit.core.inference import first_rows, inference_batch_size
from unlearnkit.core.method import Info, Need, Problem, Recalibrated, register
from unlearnkit.core.recipe import FineTuneSchedule, Recipe
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.search_space import SearchRange
from unlearnkit.train.activations import attention, capture_activations, stage_ends
from unlearnkit.train.data_free.input_optimization import freeze
from unlearnkit.train.features import lookup_by_row
from unlearnkit.train.loop import fit
from unlearnkit.train.mixed_batches import RowLosses, train_mixed
from unlearnkit.train.teachers import uninitialised_tensor


@dataclass(frozen=True)
class Seen:
    """What the blind model says about a batch."""

    out: Tensor
    """Its answers ``(B, K)``."""

    maps: tuple[Tensor, ...]
    """Where each of the layers looks, ``(B, places)``."""


@register
class BlindspotRegression(Recalibrated):
    """A model trained briefly without the forget rows shows the original how to see them."""

    info = Info(
        title="Blindspot",
        cite="Tarun et al., ICML 2023, arXiv:2210.08196",
        needs=frozenset({Need.FORGET, Need.RETAIN, Need.LABELS, Need.FRESH}),
        tasks=frozenset({"regression"}),
        when=(
            "For real targets, for a range of targets or an owner, where a model trained briefly"
            " on the retain set already predicts the forget set sensibly. Not the method of the"
            " same name for classes, which is Bad Teacher."
        ),
        differs=(
            "by default the blind model takes a tenth of the recipe's epochs, and the student as"
            " many at the recipe's peak rate, falling to zero along a cosine, with forget rows in"
            " the first half of the steps; published code takes two or ten epochs and one or five:"
            " the presets",
            "a step has a batch of retained rows and forget rows in proportion; published code"
            " shuffles the union of both",
            "the blind model's outputs and maps are computed once a row unless inputs are"
            " augmented, and on forget rows only; published code runs it on every row",
            "the blind model is in eval mode; published code leaves that to a call that may be"
            " missing, and then its normalisation learns from the forget rows",
            "maps are over places: tokens are averaged over their width, and squared gaps are"
            " summed over places; published code averages over the second axis whatever it is, so"
            " that for vectors the term is 0, and over places, so that it fades as maps grow:"
            " `maps` at reference",
            "layers are the ends of stages with places; hidden units of vectors have no order"
            " that two networks share, and count only where they are named",
            "the weight of the attention term is a multiple of the loss of a model without"
            " knowledge, except with reference maps",
        ),
        fails=(
            "where the blind model already generalises it gives the answer, and the original only"
            " brings back what it knew: in the authors' notebook for sentence pairs the blind"
            " model has a retained error of 0.94 and a forget error of 6.9 (retrained: 7.2), the"
            " unlearned model 0.98 and 6.4",
            "where the blind model is under-trained the forget rows inherit its errors",
            "one epoch at the published rate moves little where batches are few: on 8x8 digits as"
            " numbers, 0 to 2 to forget, the forget error goes from 0.4 to 1.3 (retrained: 5.2)",
        ),
        presets={
            "paper": {
                "batch_norm": "keep",
                "blind": FineTuneSchedule.exact(
                    optimizer="adam", lr=1e-2, epochs=2, batch_size=256
                ),
                "attention": 50.0,
                "maps": "reference",
                "early": 1.0,
                "run": FineTuneSchedule.exact(optimizer="adam", lr=1e-3, epochs=1, batch_size=256),
            },
            "stsb": {
                "batch_norm": "keep",
                "blind": FineTuneSchedule.exact(
                    optimizer="adam", lr=1e-2, epochs=10, batch_size=256
                ),
                "attention": 50.0,
                "maps": "reference",
                "early": 1.0,
                "run": FineTuneSchedule.exact(optimizer="adam", lr=1e-3, epochs=5, batch_size=256),
            },
        },
        smoke={"blind": {"share": 0.1}, "run": {"lr": 1.0, "share": 0.2}},
    )

    blind: FineTuneSchedule = FineTuneSchedule(share=0.1)
    """How the blind model is trained on retained rows, from nothing: how long it is exposed. A
    share is not rounded up to whole epochs."""

    exposed: Annotated[float, SearchRange(0.3, 1)] = Field(1.0, gt=0, le=1)
    """Share of the retained rows that the blind model ever sees, drawn once; at least one row."""

    attention: Annotated[float, SearchRange(0.01, 10, log=True)] = Field(
        0.1, ge=0, allow_inf_nan=False
    )
    """Weight of the gap between where the two look (paper: lambda), as a multiple of the loss of a
    model without knowledge; as it is with reference maps. At 0 no layer is read."""

    layers: tuple[str, ...] | None = None
    """Which layers must look alike, as ``named_modules`` calls them; the ends of stages of images
    or tokens when None."""

    maps: Literal["places", "reference"] = "places"
    """Over which axes a layer's squares are averaged, see the deviations."""

    early: Annotated[float, SearchRange(0.05, 1)] = Field(0.5, ge=0, le=1)
    """Share of the steps, from the first, that have forget rows; at 1 all, as published."""

    run: FineTuneSchedule = FineTuneSchedule(lr=1.0, share=0.1)
    """How to train, forget rows mixed into the retained batches in proportion."""

    def apply(self, p: Problem, rt: Runtime) -> nn.Module:
        """Train the blind model, then minimise ``(1 - l) L_r + l (L_out + w L_att)``."""
        own = self.run.resolve(p.recipe)
        if own is None:
            return p.model
        work = rt.cost.work
        blind = self.blind_model(p, rt)
        names = self.compared_layers(p, rt) if self.attention and self.early else ()
        ask = _asking(p, blind, self, names, own, rt)
        with capture_activations(p.model, names) as found:

            def looks(rows: int) -> tuple[Tensor, ...]:
                return tuple(self.looks(found[name][-rows:]) for name in names)

            train_mixed(
                p,
                p.retain,
                self.run,
                p.task.losses,
                self.far(p, ask, looks),
                rt,
                early=self.early,
                before=rt.cost.work - work,
                stream="blindspot_regression/forget",
            )
        return p.model

    def far(
        self, p: Problem, ask: Callable[[Batch], Seen], looks: Callable[[int], tuple[Tensor, ...]]
    ) -> RowLosses:
        """Return the loss of forget rows: the distance to the blind model, and between the maps."""
        weight = self.attention * (1.0 if self.maps == "reference" else p.task.never_seen)

        def losses(out: Tensor, batch: Batch) -> Tensor:
            goal = ask(batch)
            total = p.task.divergence(out, goal.out)
            for ours, theirs in zip(looks(len(batch)), goal.maps, strict=True):
                total = total + weight * self.map_gap(ours, theirs)
            return total

        return losses

    def looks(self, out: Tensor) -> Tensor:
        """Return where a layer looks ``(B, places)``, as ``maps`` says."""
        if self.maps == "places":
            return attention(out)
        return functional.normalize(out.square().mean(1).reshape(len(out), -1), dim=1)

    def map_gap(self, ours: Tensor, theirs: Tensor) -> Tensor:
        """Return the squared gap between maps ``(B, places)`` a row: their sum, or mean, (B,)."""
        gap = (ours - theirs).square()
        return gap.mean(1) if self.maps == "reference" else gap.sum(1)

    def blind_model(self, p: Problem, rt: Runtime) -> nn.Module:
        """Return a fresh model trained on retained rows alone, in eval mode, frozen.

        Raises:
            InputError: If the fresh model holds weights of the trained one.
        """
        blind = p.fresh()
        kept = uninitialised_tensor(blind, p.original)
        if any(kept == name for name, w in blind.named_parameters() if w.requires_grad):
            raise InputError(
                f"fresh: builds a model whose {kept} is as in the trained model, got a model that"
                " knows the forget rows; build an untrained one"
            )
        some = p.retain.sample(
            max(1, int(self.exposed * len(p.retain))), rt, "blindspot_regression/exposed"
        )
        recipe = self.blind.resolve(p.recipe)
        if recipe is not None:
            exact = self.blind.share * p.recipe.epochs * some.steps(recipe.batch_size)
            steps = None if self.blind.recipe is not None else max(1, round(exact))
            fit(blind, some, p.task, recipe, rt, stream="blindspot_regression/blind", steps=steps)
        return blind.eval().requires_grad_(False)

    def compared_layers(self, p: Problem, rt: Runtime) -> tuple[str, ...]:
        """Return the layers whose maps are compared: those with more than one place.

        Raises:
            InputError: If a named layer gives no tensor with one entry a row.
        """
        few = first_rows(p.forget, rt)
        wanted = self.layers
        names = stage_ends(p.original, p.task, few) if wanted is None else wanted
        with freeze(p.original), torch.no_grad(), capture_activations(p.original, names) as found:
            p.task.outputs(p.original, few)
        chosen = []
        for name in names:
            out = found.get(name)
            if out is None or out.ndim < 2 or len(out) != len(few):
                shape = "nothing" if out is None else f"shape {tuple(out.shape)}"
                raise InputError(
                    f"blindspot_regression: layer {name} must give one entry a row, got {shape};"
                    " name another"
                )
            if wanted is None and out.ndim == 2:
                continue
            if self.looks(out).shape[1] > 1:
                chosen.append(name)
            elif wanted is not None:
                rt.note(f"blindspot_regression: layer {name} has one place; it is left out")
        if not chosen:
            rt.note(
                "blindspot_regression: no layer has places to compare, so outputs alone are; name"
                " layers to have others compared"
            )
        return tuple(chosen)


def _asking(
    p: Problem,
    blind: nn.Module,
    how: BlindspotRegression,
    names: tuple[str, ...],
    own: Recipe,
    rt: Runtime,
) -> Callable[[Batch], Seen]:
    """Return what answers for the blind model: from memory, unless inputs change at each step."""

    def look(batch: Batch) -> Seen:
        with torch.no_grad(), capture_activations(blind, names) as found:
            out = p.task.outputs(blind, batch)
            return Seen(out, tuple(how.looks(found[name]) for name in names))

    if own.augment != "none" or not how.early:
        return look
    parts = [look(batch) for batch in p.forget.batches(inference_batch_size(p.forget, rt), rt)]
    out = lookup_by_row(p.forget, torch.cat([s.out for s in parts]), rt)
    kept = zip(*(s.maps for s in parts), strict=True)
    maps = [lookup_by_row(p.forget, torch.cat(m), rt) for m in kept]
    return lambda batch: Seen(out(batch), tuple(recall(batch) for recall in maps))
