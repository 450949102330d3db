"""Federated ascent: clients ascend on what they forget, within a ball around the others' model."""

import math
from collections.abc import Callable
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from unlearnkit.core.data import Batch
from unlearnkit.core.method import Info, Method, Need, Problem, register
from unlearnkit.core.recipe import FineTuneSchedule
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.search_space import SearchRange
from unlearnkit.federated.federated_case import training_of_problem
from unlearnkit.federated.federation import rows_by_client
from unlearnkit.federated.rounds import LocalTraining
from unlearnkit.federated.unlearning_rounds import repair_in_rounds, unlearn_in_rounds
from unlearnkit.train.early_stopping import cap_losses
from unlearnkit.train.loop import descend


@register
class FederatedAscent(Method):
    """Clients of the request ascend on their forget rows by projected steps; rounds then repair."""

    info = Info(
        title="Federated gradient ascent with projection",
        cite="Halimi et al., 2022, arXiv:2207.05521",
        needs=frozenset({Need.FORGET, Need.RETAIN, Need.LABELS, Need.CLIENTS}),
        tasks=frozenset({"classification", "multilabel", "regression"}),
        may_damage=True,
        when=(
            "For a client that still takes part and no stored updates: the cheapest of the"
            " federated methods, in rounds and in uploads."
        ),
        differs=(
            "written from the published idea; its settings were not compared with published code",
            "the centre of the ball is the global model at the request; published, it is the"
            " mean of the other clients' last updates, which needs a server that keeps them",
            "the radius is a share of the weights' norm; published, a third of the mean distance of"
            " random models",
            "the loss of each batch is capped, so that a bounded ascent does not depend on the"
            " radius alone",
        ),
        fails=(
            "a small radius leaves the model as it is, a large one breaks it before repair; the"
            " radius has to be found for each architecture",
        ),
        smoke={"radius": 0.1, "repair": 0.1},
    )

    rounds: int = Field(1, ge=0)
    """Rounds of ascent; the other clients wait. 0 with no repair changes nothing."""

    local_epochs: int = Field(10, ge=1)
    """Epochs over its forget rows that a client makes in a round."""

    lr: Annotated[float, SearchRange(0.1, 5, log=True)] = Field(1.0, gt=0, allow_inf_nan=False)
    """Learning rate of the ascent, as a multiple of the client's recipe's; SGD, no momentum."""

    radius: Annotated[float, SearchRange(0.01, 1, log=True)] = Field(0.3, ge=0, allow_inf_nan=False)
    """Farthest distance from the model at the request (delta), as a share of the norm of its
    weights; 0 holds the model in its place."""

    cap: Annotated[float, SearchRange(0.5, 8, log=True)] = Field(3.0, gt=0)
    """Loss at which a row no longer counts, as a multiple of the loss of a model without
    knowledge; infinity is no cap."""

    clip: float | None = Field(10.0, gt=0)
    """Largest norm of the gradient; no limit when None."""

    repair: Annotated[float, SearchRange(0.05, 0.25)] = Field(0.2, ge=0, le=1)
    """Ordinary rounds on retained rows that follow, as a share of the training's rounds, rounded
    up; 0 is none."""

    def apply(self, p: Problem, rt: Runtime) -> nn.Module:
        """Ascend within the ball, average, repair."""
        federation = training_of_problem(p).federation
        forget, retain = rows_by_client(p.forget), rows_by_client(p.retain)
        centre = {n: w.detach().clone() for n, w in p.model.named_parameters()}

        def of_client(client: int, number: int) -> LocalTraining:
            run = FineTuneSchedule(lr=self.lr, decay=0.0, schedule="constant", share=10)
            own = federation.recipe_of(client, 0).model_copy(update={"optimizer": "sgd"})
            recipe = (run.resolve(own) or own).model_copy(
                update={"momentum": 0.0, "epochs": self.local_epochs}
            )

            def train(model: nn.Module) -> None:
                def height(batch: Batch) -> Tensor:
                    losses = p.task.losses(p.task.outputs(model, batch), batch)
                    return -cap_losses(losses, self.cap, p.task).mean()

                descend(
                    model, forget[client], height, recipe, rt,
                    stream=f"{self.id}/{number}/{client}", norm="frozen", clip=self.clip,
                    after_step=projection(model, centre, self.radius),
                )  # fmt: skip

            return train

        unlearn_in_rounds(
            p.model, forget, retain, of_client, p.task, federation, rt,
            rounds=self.rounds, stream=self.id, others=False,
        )  # fmt: skip
        repair = math.ceil(self.repair * federation.rounds - 1e-9)
        repair_in_rounds(
            p.model, retain, p.task, federation, rt, rounds=repair, stream=f"{self.id}/repair"
        )
        return p.model


def projection(
    model: nn.Module, centre: dict[str, Tensor], radius: float
) -> Callable[[float], None]:
    """Return a function that moves weights to the nearest point of a ball around ``centre``.

    Args:
        model: Changed in place at each call.
        centre: Weights, by name.
        radius: Of the ball, as a share of the centre's norm.

    Returns:
        A function of the learning rate, which it ignores.
    """
    weights = dict(model.named_parameters())
    size = radius * math.sqrt(sum(float(t.double().square().sum()) for t in centre.values()))

    def project(lr: float) -> None:
        del lr
        with torch.no_grad():
            gaps = {n: weights[n] - t for n, t in centre.items()}
            norm = torch.stack([g.double().square().sum() for g in gaps.values()]).sum().sqrt()
            shrink = (size / norm.clamp(min=1e-300)).clamp(max=1.0)
            if float(shrink) < 1:
                for n, gap in gaps.items():
                    weights[n].copy_(centre[n] + shrink.to(gap.dtype) * gap)

    return project
