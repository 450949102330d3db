"""MSA: what training adds to an old checkpoint on the forget set is taken from the model."""

from collections.abc import Mapping
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from unlearnkit.core.data import View
from unlearnkit.core.errors import UnsupportedError
from unlearnkit.core.method import Info, Method, Need, Problem, register
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.search_space import SearchRange
from unlearnkit.core.token_rows import TOKEN_TASKS
from unlearnkit.language.language_method import ForgetSchedule
from unlearnkit.train.checkpoint_history import Checkpoint, load_state
from unlearnkit.train.checkpointed_training import kept_training
from unlearnkit.train.early_stopping import OFF, StopMonitor, StopRule, furthest, snapshot
from unlearnkit.train.loop import fit


@register
class ModelStateArithmetic(Method):
    """Return ``theta - alpha (theta_1 - theta_0) + beta (theta_2 - theta_0)``.

    theta_0 is a state from before the forget set was read, theta_1 is that state after training on
    the forget set, theta_2 after training on the retain set.
    """

    info = Info(
        title="Model state arithmetic (MSA)",
        cite="Rezaei et al., 2025, arXiv:2506.20941",
        needs=frozenset({Need.FORGET, Need.LABELS, Need.CHECKPOINTS}),
        uses=frozenset({Need.RETAIN, Need.VALIDATION}),
        tasks=TOKEN_TASKS,
        may_damage=True,
        when="Where a state from before the documents were read was kept: the model before it was"
        " fine-tuned is one (`with_checkpoints(case, MemoryCheckpoints())`).",
        differs=(
            "the checkpoint is the last kept one that had not read any forget row, or the first one"
            " where all had, with a note; the paper takes a given one",
            "by default alpha and beta are the largest multiples, up to the given ones, at which"
            " the retained loss is within its limit and the forget rows look no worse than"
            " validation rows; alpha 1 and beta 0 are our values",
        ),
        presets={"plain": {"guard": OFF}},
        smoke={"run": {"lr": 1.0, "share": 0.2}, "guard": OFF},
    )

    alpha: Annotated[float, SearchRange(0.1, 10, log=True)] = Field(1.0, ge=0, allow_inf_nan=False)
    """How much of the forget vector is taken away; 0 takes nothing."""

    beta: Annotated[float, SearchRange(0, 2)] = Field(0.0, ge=0, allow_inf_nan=False)
    """How much of the retain vector is added; at 0 retained rows are not read in training."""

    run: ForgetSchedule = ForgetSchedule(lr=1.0, share=0.5)
    """The training of the checkpoint, on either set."""

    guard: StopRule = StopRule(sample=128)
    """How far `alpha` and `beta` may go."""

    def apply(self, p: Problem, rt: Runtime) -> nn.Module:
        """Train the checkpoint on each set; move the model by the difference."""
        if hasattr(p.model, "peft_config"):
            raise UnsupportedError(
                "msa: states of adapters are factors, which do not add; call"
                " model.merge_and_unload() first"
            )
        now, start = snapshot(p.model), self._before(p, rt)
        vectors = [(-self.alpha, self._vector(p, p.forget, start, rt, "msa/forget"))]
        if self.beta:
            vectors.append((self.beta, self._vector(p, p.retain, start, rt, "msa/retain")))

        def put(share: float) -> None:
            with torch.no_grad():
                for name, t in p.model.state_dict().items():
                    t.copy_(now[name])
                    if t.is_floating_point():
                        for weight, vector in vectors:
                            t.add_(vector[name], alpha=share * weight)

        put(1.0)
        if self.guard == OFF:
            return p.model
        watch = StopMonitor(self.guard, p, rt, "msa")

        def fine(share: float) -> bool:
            put(share)
            return watch.intact() and not watch.overshot()

        put(furthest(fine, steps=6))
        return p.model

    def _before(self, p: Problem, rt: Runtime) -> Mapping[str, Tensor]:
        """Return the last kept state that had read no forget row; the first where there is none."""
        how, training = kept_training(p, "msa")
        found: Checkpoint | None = None
        for point in how.checkpoints.points(training):
            clean = bool(torch.isin(p.forget.rows.cpu(), point.unread).all())
            if found is None and not clean:
                rt.note("msa: every kept state had read forget rows: the first is taken")
            if found is None or clean:
                found = point
        assert found is not None
        return found.state

    def _vector(
        self, p: Problem, rows: View, start: Mapping[str, Tensor], rt: Runtime, stream: str
    ) -> dict[str, Tensor]:
        """Return what training on some rows adds to the checkpoint."""
        load_state(p.model, start)
        first, recipe = snapshot(p.model), self.run.resolve(p.recipe)
        if recipe is not None:
            fit(p.model, rows, p.task, recipe, rt, stream=stream)
        return {
            n: t - first[n] for n, t in snapshot(p.model).items() if t.is_floating_point()
        }  # fmt: skip
