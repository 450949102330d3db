"""Ascend on what must go, descend on what must stay."""

from pydantic import Field
from torch import Tensor, nn

from unlearnkit.core.data import Batch
from unlearnkit.core.method import Info, Method, Need, Problem, register
from unlearnkit.core.recipe import Tuning
from unlearnkit.core.runtime import Runtime
from unlearnkit.train.loop import augmented, descend, fit
from unlearnkit.train.stopping import OFF, Guard, Watch, capped


@register
class NegGradPlus(Method):
    """Descend on ``(1 - balance) * retain loss - balance * forget loss``."""

    info = Info(
        title="NegGrad+",
        cite="Kurmanji et al., NeurIPS 2023, arXiv:2302.09880",
        needs=frozenset({Need.FORGET, Need.RETAIN}),
        uses=frozenset({Need.VALIDATION}),
        tasks=frozenset({"classification", "multilabel", "regression"}),
        when=(
            "A strong and simple choice for classes and for mislabelled rows. For rows drawn at"
            " random it overshoots unless it is stopped."
        ),
        differs=(
            "balance is the weight of the forget term, the paper's 1 - beta: 0 is fine-tuning",
            "each forget row's loss is capped, because its negative has no lower bound; `cap` of"
            " infinity is the published rule",
            "for requests that leave every class some rows, the run ends early once forget rows"
            " look unseen; published code runs for a fixed number of epochs",
            "forget batches come in a new order and with new augmentation each time round;"
            " published code caches the first round",
            "as published, forget and retain batches go through the model one after the other,"
            " so batch normalisation follows both",
        ),
        fails=(
            "without a cap and with a balance of 0.05 or more the forget loss runs away and takes"
            " the retained rows along",
        ),
        presets={
            "paper": {
                "balance": 0.05,
                "run": Tuning.exact(lr=0.01, momentum=0.0, epochs=10, batch_size=64),
                "cap": float("inf"),
                "guard": OFF,
            },
            "reference": {
                "balance": 0.0001,
                "run": Tuning.exact(lr=0.01, momentum=0.0, epochs=5, batch_size=64),
                "cap": float("inf"),
                "guard": OFF,
            },
        },
        smoke={"run": {"lr": 0.5, "share": 0.2}},
    )

    balance: float = Field(0.1, ge=0, le=1)
    """Weight of the forget term (paper: 1 - beta); 0 is fine-tuning, 1 is ascent alone."""

    cap: float = Field(3.0, gt=0)
    """Loss at which a forget row no longer counts, as a multiple of the loss of a model without
    knowledge; infinity is no cap."""

    run: Tuning = Tuning(lr=1.0, share=0.1)
    """How the weighted loss is minimised; an epoch is a pass over the retained rows."""

    guard: Guard = Guard()
    """When it is enough; looked at after each epoch."""

    def apply(self, p: Problem, rt: Runtime) -> nn.Module:
        """Draw a forget batch beside each retain batch."""
        recipe = self.run.resolve(p.recipe)
        if recipe is None:
            return p.model
        stream = "retain"
        if not self.balance:
            fit(p.model, p.retain, p.task, recipe, rt, stream=stream)
            return p.model
        forget = enumerate(p.forget.forever(recipe.batch_size, rt, shuffle="neggrad_plus/forget"))

        def loss(keep: Batch) -> Tensor:
            turn, plain = next(forget)
            drop = augmented(plain, recipe, rt, f"neggrad_plus/forget/augment/{turn}")
            stay = p.task.losses(p.task.outputs(p.model, keep), keep).mean()
            go = p.task.losses(p.task.outputs(p.model, drop), drop)
            return (1 - self.balance) * stay - self.balance * capped(go, self.cap, p.task).mean()

        watch = Watch(self.guard, p, rt, "neggrad_plus")
        descend(p.model, p.retain, loss, recipe, rt, stream=stream, after_epoch=watch.done)
        return p.model
