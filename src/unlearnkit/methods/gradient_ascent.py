"""Climb the loss of the rows that must go, and stop in time."""

from pydantic import Field
from torch import Tensor, nn

from unlearnkit.core.data import Batch
from unlearnkit.core.method import Info, Method, Need, Problem, register
from unlearnkit.core.recipe import Tuning
from unlearnkit.core.runtime import Runtime
from unlearnkit.train.loop import descend
from unlearnkit.train.stopping import OFF, Guard, Watch, between, capped, furthest, snapshot


@register
class GradientAscent(Method):
    """Ascend on the forget loss until the rows look never seen or retained rows suffer."""

    info = Info(
        title="Gradient ascent",
        cite="Graves et al., AAAI 2021, arXiv:2010.10981; Golatkar et al., CVPR 2020",
        needs=frozenset({Need.FORGET}),
        uses=frozenset({Need.RETAIN, Need.VALIDATION}),
        tasks=frozenset({"classification", "multilabel", "regression"}),
        when=(
            "Where the retained rows are not at hand. Otherwise methods that also train on"
            " retained rows do less harm."
        ),
        differs=(
            "published ascent has no bound and diverges: each row's loss is capped, the run ends"
            " once rows look never seen, and weights are taken back to the floor under retained"
            " rows; `cap` of infinity with `guard` off is the published rule",
            "the run's weight decay is off by default: it would shrink all weights while the"
            " gradient of the trained rows is near zero",
        ),
        fails=(
            "random training rows that look like held-out rows have nothing to climb to: their"
            " influence stays (Ascent Fails to Forget, 2025)",
            "at the published rates the model either does not change or breaks",
        ),
        presets={
            "paper": {
                "run": Tuning.exact(
                    lr=1e-4,
                    momentum=0.9,
                    weight_decay=5e-4,
                    epochs=5,
                    batch_size=256,
                    augment="flip_crop",
                ),
                "cap": float("inf"),
                "guard": OFF,
            }
        },
        smoke={"run": {"lr": 0.5, "share": 0.3}, "guard": OFF},
    )

    run: Tuning = Tuning(lr=0.05, share=0.3, decay=0.0, schedule="constant")
    """How fast and how long to climb at most; an epoch is a pass over the forget rows."""

    cap: float = Field(4.0, gt=0)
    """Loss at which a row no longer counts, as a multiple of the loss of a model without
    knowledge; infinity is no cap."""

    guard: Guard = Guard()
    """When it is enough, and when too much; looked at after each epoch."""

    def apply(self, p: Problem, rt: Runtime) -> nn.Module:
        """Ascend epoch by epoch; bisect the last epoch where it went too far."""
        recipe = self.run.resolve(p.recipe)
        if recipe is None:
            return p.model
        watch = Watch(self.guard, p, rt, "gradient_ascent")
        if watch.overshot():
            rt.note(
                "gradient_ascent: the forget rows look never seen as they are: nothing to climb"
            )
            return p.model
        good = snapshot(p.model)

        def loss(drop: Batch) -> Tensor:
            climbed = p.task.losses(p.task.outputs(p.model, drop), drop)
            return -capped(climbed, self.cap, p.task).mean()

        def enough(epoch: int) -> bool:
            del epoch
            nonlocal good
            if watch.intact() and not watch.overshot():
                good = snapshot(p.model)
                return watch.unseen()
            _retreat(p.model, good, watch)
            return True

        descend(p.model, p.forget, loss, recipe, rt, stream="gradient_ascent", after_epoch=enough)
        return p.model


def _retreat(model: nn.Module, good: dict[str, Tensor], watch: Watch) -> None:
    """Go back towards a good state, as little as the watch asks."""
    far = snapshot(model)

    def fine(share: float) -> bool:
        between(model, good, far, share)
        return watch.intact() and not watch.overshot()

    between(model, good, far, furthest(fine, steps=5))
