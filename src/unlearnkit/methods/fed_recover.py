"""FedRecover: replay a federated training without the request, with estimated updates."""

import math
from collections import deque
from collections.abc import Iterable
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from unlearnkit.core.data import View
from unlearnkit.core.errors import InputError
from unlearnkit.core.method import Info, Method, Need, Problem, register
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.search_space import SearchRange
from unlearnkit.core.task import Task
from unlearnkit.federated.aggregation import State, weighted_mean
from unlearnkit.federated.federated_case import training_of_problem
from unlearnkit.federated.federation import Federation, rows_by_client
from unlearnkit.federated.rounds import ClientUpdates, load_state, local_training, state_of
from unlearnkit.linalg.quasi_newton import quasi_newton_product


@register
class FedRecover(Method):
    """Rebuild the model from the untrained one: most updates are estimated from stored ones."""

    info = Info(
        title="FedRecover",
        cite="Cao et al., IEEE S&P 2023, arXiv:2210.10936",
        needs=frozenset({Need.RETAIN, Need.FORGET, Need.LABELS, Need.FRESH, Need.CLIENTS}),
        uses=frozenset({Need.HISTORY}),
        tasks=frozenset({"classification", "multilabel", "regression"}),
        may_damage=True,
        replaces=True,
        when=(
            "For a client that has left, where the updates of all clients were kept in every round"
            " of a training with small steps: one of many rounds with one local step each. Without"
            " a history it is retraining."
        ),
        differs=(
            "written from the algorithm as it is known; text and code were not at hand, and"
            " defaults are chosen for short trainings. The preset `long_training` is for thousands"
            " of rounds: 20 of warm-up, every tenth, and the last 5 of 2,000; it was not checked"
            " against the paper",
            "an update is what a client's local epochs make of the weights, in place of one"
            " gradient times the rate",
            "the threshold for abnormal updates is the largest, over rounds, of the stored"
            " updates' quantile",
            "clients of the request that keep rows, and clients without a stored update in a round,"
            " send exact updates; buffers of an estimated update are the stored ones",
            "where the matrix of the quasi-Newton formula is singular its pseudo-inverse is used",
        ),
        fails=(
            "updates of many local steps are not differences of a gradient, and the estimate is"
            " wrong the more, the more the recovered weights are away from the stored ones",
            "where most clients hold the class to forget, most updates are exact: it is retraining",
        ),
        presets={"long_training": {"warm_up": 0.01, "every": 10, "final": 0.0025}},
        smoke={"warm_up": 0.5, "final": 0.2},
    )

    warm_up: Annotated[float, SearchRange(0.03, 0.3)] = Field(0.1, ge=0, le=1)
    """First rounds, all exact, as a share of the training's, rounded up (paper: T_w rounds); 1 is
    retraining."""

    every: int = Field(10, ge=1)
    """After the warm-up, the last of each so many rounds is exact (paper: T_c); 1 is retraining."""

    final: Annotated[float, SearchRange(0.03, 0.3)] = Field(0.1, ge=0, le=1)
    """Last rounds, all exact, as a share of the training's, rounded up (paper: T_f rounds)."""

    pairs: int = Field(2, ge=1)
    """Latest exact rounds from which a client's curvature is estimated (paper: s)."""

    tolerance: float = Field(1e-6, ge=0, lt=1)
    """Share of the entries of stored updates that are above the threshold (paper: alpha). A client
    of which an estimated entry is above it sends an exact update."""

    def is_exact(self, number: int, rounds: int) -> bool:
        """Return whether clients train in a round, counted from 0."""
        first, last = (math.ceil(share * rounds - 1e-9) for share in (self.warm_up, self.final))
        corrected = (number - first + 1) % self.every == 0
        return number < first or number >= rounds - last or corrected

    def apply(self, p: Problem, rt: Runtime) -> nn.Module:
        """Replay the stored rounds; estimate updates where clients need not train."""
        how = training_of_problem(p)
        federation, whole = how.federation, how.federation.rounds
        forget, retain = rows_by_client(p.forget), rows_by_client(p.retain)
        clean = set(retain) - set(forget)
        model, limit = p.fresh(), 0.0
        if how.history is not None:
            if how.history.every != 1:
                raise InputError(
                    f"fed_recover: the history keeps every {how.history.every} rounds; train with"
                    " federated_case(..., history=MemoryHistory(every=1))"
                )
            rounds = how.stored_rounds(p.original, self.id)
            limit = largest_usual_entry(rounds, clean, self.tolerance)
        clients = {
            k: RecoveredClient(v, federation, p.task, rt, self.pairs) for k, v in retain.items()
        }
        exact = sent_updates = 0
        note = (
            "every update is exact, a retraining; give"
            " federated_case(..., history=MemoryHistory(every=1))"
        )
        for sent in how.rounds_to_replay(p.original, self.id, sorted(retain), rt, note):
            if sent.start and sent.round_number == 0:
                load_state(model, sent.start)
            start, new = state_of(model), dict[int, State]()
            for k in (k for k in sent.weights if k in retain):
                state = None
                if k in clean and not self.is_exact(sent.round_number, whole):
                    state = clients[k].estimate(model, sent, k, limit)
                if state is None:
                    state, exact = clients[k].train(model, sent, k), exact + 1
                    load_state(model, start)
                new[k] = state
            sent_updates += len(new)
            if new:
                weights = {k: federation.weight(len(retain[k])) for k in new}
                load_state(model, weighted_mean(new, weights))
        rt.note(f"fed_recover: {exact} of {sent_updates} updates were exact, the others estimated")
        return model


class RecoveredClient:
    """A client that stays: its exact updates, and what they say of its curvature.

    Args:
        view: Its retained rows.
        federation: Recipes.
        task: Outputs and losses.
        rt: Device, seed, cost.
        pairs: How many exact rounds are remembered.
    """

    def __init__(
        self, view: View, federation: Federation, task: Task, rt: Runtime, pairs: int
    ) -> None:
        self._view, self._federation, self._task, self._rt = view, federation, task, rt
        self._pairs: deque[tuple[Tensor, Tensor]] = deque(maxlen=pairs)

    def train(self, model: nn.Module, sent: ClientUpdates, client: int) -> State:
        """Return the state after the client's own training; keep its gap to the stored one.

        Args:
            model: The recovered model, at its start of the round; changed.
            sent: The stored round.
            client: Its number.
        """
        start, names = state_of(model), [n for n, _ in model.named_parameters()]
        local_training(
            self._view, self._task, self._federation, self._rt,
            client=client, number=sent.round_number,
        )(model)  # fmt: skip
        made = state_of(model)
        if client in sent.states:
            step = flat(start, names) - flat(sent.start, names)
            stored = flat(sent.states[client], names) - flat(sent.start, names)
            if bool(step.any()):
                self._pairs.append((step, flat(made, names) - flat(start, names) - stored))
        return made

    def estimate(
        self, model: nn.Module, sent: ClientUpdates, client: int, limit: float
    ) -> State | None:
        """Return the state after an estimated update, ``U + B (w - w_stored)``.

        Args:
            model: The recovered model, at its start of the round; read only.
            sent: The stored round.
            client: Its number.
            limit: Largest entry of an update that is no error.

        Returns:
            The state; None where nothing is stored, no curvature is known, or the
            estimate is abnormal.
        """
        if client not in sent.states:
            return None
        start, names = state_of(model), [n for n, _ in model.named_parameters()]
        update = flat(sent.states[client], names) - flat(sent.start, names)
        away = flat(start, names) - flat(sent.start, names)
        if bool(away.any()):
            if not self._pairs:
                return None
            steps, changes = (torch.stack(t, 1) for t in zip(*self._pairs, strict=True))
            update = update + quasi_newton_product(steps, changes, away)
        if not bool((update.abs() <= limit).all()):
            return None
        parts = torch.split(update, [start[n].numel() for n in names])
        moved = {
            n: start[n] + u.view_as(start[n]).to(start[n].device)
            for n, u in zip(names, parts, strict=True)
        }
        buffers = {n: t.to(start[n].device) for n, t in sent.states[client].items()}
        return {**buffers, **moved}


def largest_usual_entry(
    stored: Iterable[ClientUpdates], clients: set[int], tolerance: float
) -> float:
    """Return the largest quantile, over rounds, of the absolute entries of stored updates.

    Args:
        stored: The rounds.
        clients: Whose updates are read.
        tolerance: Share of the entries of a round that are above its quantile.

    Returns:
        The threshold; 0 where no client is there.
    """
    largest = 0.0
    for sent in stored:
        moved = [
            (t - sent.start[n]).abs().flatten()
            for k in sorted(clients & set(sent.states))
            for n, t in sent.states[k].items()
            if t.is_floating_point()
        ]
        if moved:
            entries = torch.cat(moved)
            kept = max(1, math.ceil((1 - tolerance) * len(entries)))
            largest = max(largest, float(entries.kthvalue(kept).values))
    return largest


def flat(state: State, names: list[str]) -> Tensor:
    """Return tensors of a state as one vector."""
    return torch.cat([state[n].detach().flatten().cpu() for n in names])
