"""Bad Teacher: distillation from an incompetent teacher on the forget set."""

from collections.abc import Callable
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from unlearnkit.core.data import Batch
from unlearnkit.core.inference import predict as outputs_of
from unlearnkit.core.method import Info, Need, Problem, Recalibrated, register
from unlearnkit.core.recipe import FineTuneSchedule
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.search_space import SearchRange
from unlearnkit.train.features import lookup_by_row, teacher_outputs
from unlearnkit.train.mixed_batches import train_mixed
from unlearnkit.train.teachers import mean_output, untrained_teacher

DRAWS = 8
"""Most random teachers drawn in search of one that does not answer with a forgotten class."""


@register
class BadTeacher(Recalibrated):
    """A student learns forget rows from an incompetent teacher, retained rows from the original."""

    info = Info(
        title="Bad Teacher",
        cite="Chundawat et al., AAAI 2023, arXiv:2205.08096",
        needs=frozenset({Need.FORGET, Need.RETAIN}),
        tasks=frozenset({"classification", "multilabel", "regression"}),
        when=(
            "For a whole class where rows have no targets: it reads inputs alone. For rows drawn at"
            " random there is little to forget; never use the preset `paper` there."
        ),
        differs=(
            "by default at twice the recipe's peak learning rate, falling to zero along a cosine,"
            " for 0.15 of the recipe's epochs, with the recipe's optimiser and forget rows in"
            " the first 0.15 of the steps, so that the last steps train on retained rows alone;"
            " the paper takes one epoch of Adam on 0.3 of the retained rows: the presets",
            "`prior` is ours: the original's mean output on retained rows in place of the untrained"
            " network's, which predicts mostly one class, by chance",
            "a step has a batch of retained rows and forget rows in proportion; published code"
            " shuffles the union of both, so that the mix varies by chance",
            "both teachers' outputs are computed once a row, each on its own rows; published code"
            " runs both on every row at each step. Retained rows are run again where the recipe"
            " augments them",
            "the loss is a mean over rows, as printed; published code also divides by the number"
            " of classes (`reduction` entries), which Adam hardly notices",
            "the untrained teacher is the same architecture with every layer reset, checked"
            " tensor by tensor; published code can load a pretrained network instead. A teacher"
            " that predicts mostly a removed class is drawn again",
            "tasks without classes compare outputs by their own divergence; in regression the"
            " temperature has no effect",
        ),
        fails=(
            "with the preset `paper` small models hardly change: a forgotten class of digits"
            " keeps an accuracy of 1; at ten times its rate for five epochs it is forgotten, but"
            " outputs look untrained rather than unseen",
            "where the one class that an untrained network predicts is near the forgotten one, that"
            " keeps: in a perceptron a class of digits has an accuracy of 0.77 afterwards, with"
            " `prior` 0.07; in a network with batch normalisation 0.04",
            "rows drawn at random: a random teacher drives the model away from retraining, which"
            " predicts such rows as well as unseen ones: margins 6 deviations lower on digits",
            "Adam at a minimum takes full steps on rounding noise: the retained loss starts at 0,"
            " so that with the presets outputs move even where nothing is to be forgotten. The"
            " default uses the recipe's optimiser",
        ),
        presets={
            "paper": {
                "batch_norm": "keep",
                "teacher": "random",
                "retain": 0.3,
                "early": 1.0,
                "run": FineTuneSchedule.exact(optimizer="adam", lr=1e-4, epochs=1, batch_size=256),
            },
            "reference": {
                "batch_norm": "keep",
                "teacher": "random",
                "retain": 0.3,
                "early": 1.0,
                "reduction": "entries",
                "run": FineTuneSchedule.exact(optimizer="adam", lr=1e-4, epochs=1, batch_size=256),
            },
        },
        smoke={"teacher": "random", "run": {"lr": 1.0, "share": 0.2}},
    )

    teacher: Literal["prior", "random", "uniform"] = "random"
    """What forget rows are taught: the original's mean answer on retained rows, the same for every
    row; the answer of untrained networks (paper: the incompetent teacher); or outputs of 0, which
    is all classes alike, each label a coin, and 0 for real targets."""

    teachers: int = Field(1, ge=1)
    """Untrained networks whose mean answer a random teacher gives."""

    retain: Annotated[float, SearchRange(0.3, 1)] = Field(1.0, gt=0, le=1)
    """Share of the retained rows that is used at all, drawn once; at least one row."""

    temperature: Annotated[float, SearchRange(1, 4)] = Field(1.0, gt=0)
    """Softens both outputs before they are compared (paper: tau)."""

    reduction: Literal["rows", "entries"] = "rows"
    """What the loss is a mean over: rows, or rows times outputs as published code has it."""

    early: Annotated[float, SearchRange(0.05, 1)] = Field(0.15, ge=0, le=1)
    """Share of the steps, from the first, that have forget rows; at 1 all, as published."""

    run: FineTuneSchedule = FineTuneSchedule(lr=2.0, share=0.15)
    """How to train, forget rows mixed into the retained batches in proportion."""

    def apply(self, p: Problem, rt: Runtime) -> nn.Module:
        """Minimise ``sum_i (1 - l_i) KL(T_s || S) + l_i KL(T_d || S)`` (paper: equation 3)."""
        own = self.run.resolve(p.recipe)
        if own is None or not len(p.forget):
            return p.model
        start = rt.cost.forward
        retain = p.retain.sample(
            max(1, int(self.retain * len(p.retain))), rt, "bad_teacher/retain rows"
        )
        good = teacher_outputs(p.original, retain, p.task, rt, own)
        bad = lookup_by_row(p.forget, self.incompetent(p, rt), rt) if self.early else None

        def taught(by: Callable[[Batch], Tensor]) -> Callable[[Tensor, Batch], Tensor]:
            def losses(out: Tensor, batch: Batch) -> Tensor:
                d = p.task.divergence(out, by(batch), self.temperature)
                return d / out.shape[1] if self.reduction == "entries" else d

            return losses

        train_mixed(
            p,
            retain,
            self.run,
            taught(good),
            taught(bad or good),
            rt,
            early=self.early,
            before=rt.cost.forward - start,
            stream="bad_teacher/forget",
        )
        return p.model

    def incompetent(self, p: Problem, rt: Runtime) -> Tensor:
        """Return the incompetent teacher's outputs on the forget rows ``(n, K)``, on the CPU."""
        count = len(p.forget)
        if self.teacher == "random":
            return mean_output(torch.stack(self._random(p, rt)), p.task)
        few = p.retain.sample(512, rt, "bad_teacher/prior")
        seen = outputs_of(p.original, few, p.task, rt)
        if self.teacher == "uniform":
            return seen.new_zeros(count, seen.shape[1])
        return mean_output(seen, p.task).expand(count, -1)

    def _random(self, p: Problem, rt: Runtime) -> list[Tensor]:
        """Draw networks; one that predicts mostly a removed class is drawn again."""
        found: list[Tensor] = []
        for k in range(self.teachers):
            for turn in range(DRAWS):
                net = untrained_teacher(p.original, rt, f"bad_teacher/teacher/{k}/{turn}")
                out = outputs_of(net, p.forget, p.task, rt)
                if (
                    not p.removed_classes
                    or int(out.argmax(1).mode().values) not in p.removed_classes
                ):
                    break
            else:
                rt.note(
                    f"bad_teacher: {DRAWS} untrained networks in turn predict a removed class; the"
                    " forget rows may keep it"
                )
            found.append(out)
        return found
