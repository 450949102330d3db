"""FedEraser: replay a federated training without the request, by short calibrated rounds."""

import math
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from unlearnkit.core.data import View
from unlearnkit.core.method import Info, Method, Need, Problem, register
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.search_space import SearchRange
from unlearnkit.core.task import Task
from unlearnkit.federated.aggregation import State, weighted_mean
from unlearnkit.federated.federated_case import FederatedTraining, training_of_problem
from unlearnkit.federated.federation import rows_by_client
from unlearnkit.federated.rounds import ClientUpdates, load_state, local_training, state_of


@register
class FedEraser(Method):
    """Rebuild the model from the untrained one: stored lengths of updates, directions made anew."""

    info = Info(
        title="FedEraser",
        cite="Liu et al., IWQoS 2021, doi:10.1109/IWQOS52092.2021.9521274",
        needs=frozenset({Need.RETAIN, Need.FORGET, Need.LABELS, Need.FRESH, Need.CLIENTS}),
        uses=frozenset({Need.HISTORY}),
        tasks=frozenset({"classification", "multilabel", "regression"}),
        may_damage=True,
        replaces=True,
        when=(
            "For a client that has left, where the updates of all clients were kept in rounds of"
            " training (`federated_case(..., history=...)`). Without a history, retrain: what is"
            " left of the method is a shorter retraining."
        ),
        differs=(
            "the published program divides the weighted mean by the number of clients once more,"
            " which shrinks updates: here it is the weighted mean",
            "lengths are matched per client over all weights, or per tensor as in the published"
            " program; a tensor that does not move keeps its length of 0",
            "clients of the request that keep rows take part with these; their stored first update"
            " contains forget rows, so that it is made anew, too",
            "without a history it runs as many calibration rounds as a history of every second"
            " round would have, at the lengths of calibration itself, and says so",
        ),
        fails=(
            "with rounds left out, the rebuilt model has been trained for less, and late stored"
            " updates, which are short, do not let it catch up. A client of digits, one seed,"
            " retained accuracy (0.984 before): 0.932; at the calibrations' own lengths 0.922; at"
            " twice the stored ones 0.879; with calibrations of full length 0.957; with every round"
            " stored 0.948, at half the cost of retraining. `fed_recover` has 0.983",
            "a client that took no part in a stored round has no length there and is left out",
        ),
        presets={"reference": {"calibration": 0.5, "match": "tensor"}},
        smoke={"calibration": 0.5},
    )

    calibration: Annotated[float, SearchRange(0.1, 1)] = Field(0.5, gt=0, le=1)
    """Length of a calibration, as a share of the local epochs (r), rounded up."""

    match: Literal["client", "tensor"] = "client"
    """Whose length an update gets: that of the client's whole stored update, or of each tensor."""

    def apply(self, p: Problem, rt: Runtime) -> nn.Module:
        """Replay the stored rounds, each by a calibration from the rebuilt model."""
        how = training_of_problem(p)
        forget, retain = rows_by_client(p.forget), rows_by_client(p.retain)
        model = p.fresh()
        note = (
            "rounds have the lengths of calibration itself, a shorter retraining; give"
            " federated_case(..., history=MemoryHistory())"
        )
        for sent in how.rounds_to_replay(p.original, self.id, retain, rt, note, every=2):
            if sent.start and sent.round_number == 0:
                load_state(model, sent.start)
            rebuild_round(model, sent, how, retain, set(forget), self, p.task, rt)
        return model


def rebuild_round(
    model: nn.Module,
    sent: ClientUpdates,
    how: FederatedTraining,
    retain: Mapping[int, View],
    tainted: set[int],
    settings: FedEraser,
    task: Task,
    rt: Runtime,
) -> None:
    """Advance the rebuilt model by one stored round: ``w + sum_k share_k |U_k| V_k / |V_k|``.

    ``U_k`` is the stored update of client k, and ``V_k`` that of a calibration from the rebuilt
    model. In round 0 the stored update is taken as it is, but for clients of the request.

    Args:
        model: The rebuilt model; changed in place.
        sent: The stored round.
        how: Recipes.
        retain: The retained rows of each client.
        tainted: Clients of the request.
        settings: Length of a calibration, and what is matched.
        task: Outputs and losses.
        rt: Device, seed, cost.
    """
    present = [k for k in sent.weights if k in retain]
    start = state_of(model)
    names = [n for n, _ in model.named_parameters()]
    new: dict[int, dict[str, Tensor]] = {}
    for k in present:
        if sent.round_number == 0 and k in sent.states and k not in tainted:
            new[k] = {n: t.to(start[n].device) for n, t in sent.states[k].items()}
            continue
        epochs = how.federation.recipe_of(k, sent.round_number).epochs
        train = local_training(
            retain[k], task, how.federation, rt, client=k, number=sent.round_number,
            epochs=max(1, math.ceil(settings.calibration * epochs - 1e-9)),
        )  # fmt: skip
        load_state(model, start)
        train(model)
        made = state_of(model)
        new[k] = calibrated_state(sent, k, start, made, names, settings.match)
    if new:
        weights = {k: how.federation.weight(len(retain[k])) for k in new}
        load_state(model, weighted_mean(new, weights))


def calibrated_state(
    sent: ClientUpdates,
    client: int,
    start: State,
    made: State,
    names: list[str],
    match: Literal["client", "tensor"],
) -> dict[str, Tensor]:
    """Return a calibration at the length of the client's stored update; as it is without one.

    Args:
        sent: The stored round.
        client: The client.
        start: State before the calibration.
        made: State after it.
        names: The parameters.
        match: Which lengths are compared.

    Returns:
        The state that is averaged.
    """
    if client not in sent.states:
        return dict(made)
    scale = update_scales(sent.start, sent.states[client], start, made, names, match)
    return {**made, **{n: start[n] + scale[n] * (made[n] - start[n]) for n in names}}


def update_scales(
    stored_start: State,
    stored: State,
    start: State,
    made: State,
    names: list[str],
    match: Literal["client", "tensor"],
) -> dict[str, float]:
    """Return ``|U| / |V|`` for each parameter: over all of them, or of each; 0 where V is 0.

    Args:
        stored_start: Global state at the start of the stored round.
        stored: The client's state at its end.
        start: State before the calibration.
        made: State after it.
        names: The parameters.
        match: Which lengths are compared.

    Returns:
        One factor a parameter, by name.
    """
    was = {n: _square(stored[n].double() - stored_start[n].double()) for n in names}
    now = {n: _square(made[n].double() - start[n].double()) for n in names}
    if match == "client":
        total = math.sqrt(sum(was.values()) / length) if (length := sum(now.values())) else 0.0
        return dict.fromkeys(names, total)
    return {n: math.sqrt(was[n] / now[n]) if now[n] else 0.0 for n in names}


def _square(t: Tensor) -> float:
    return float(t.square().sum())
