"""Retrieval memory: delete rows from a model's store, and unlearn its reader."""

from typing import Annotated, Any

from pydantic import Field
from torch import nn

from unlearnkit.core.errors import InputError, UnknownNameError
from unlearnkit.core.method import METHODS, Info, Method, Need, Problem, Recalibrated, register
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.search_space import Categorical
from unlearnkit.retrieval.retrieval_model import RetrievalModel

DEFAULT, KEEP = "default", "keep"


@register
class RetrievalMemory(Recalibrated):
    """Delete the forget rows from the retrieval store, exactly; unlearn the weights by a method."""

    info = Info(
        title="Retrieval memory",
        cite="this library; deletable knowledge after RAML: Li et al., arXiv:2309.04979",
        needs=frozenset({Need.FORGET, Need.RETAIN, Need.LABELS}),
        uses=frozenset({Need.VALIDATION, Need.FRESH, Need.CORRECTED}),
        tasks=frozenset({"classification"}),
        may_damage=True,
        when=(
            "For a retrieval-augmented model (`unlearnkit.retrieval`), which holds rows twice: in"
            " the store, and in the weights of its reader. Deleting from the store alone leaves"
            " what the weights know; unlearning the weights alone leaves the rows themselves. The"
            " report has a number for each: `memory_in_store` and `memory_in_weights`."
        ),
        differs=(
            "RAML is a few-shot learner and says nothing of unlearning; what is taken from it is a"
            " memory outside of the weights, and the mean of scores over passages",
            "a model without a store is unlearned by the method for the weights alone",
            "methods for the weights that read the original model read it with its whole store",
        ),
        fails=(
            "copies of a forget row that the request does not name stay in the store; a note counts"
            " them",
        ),
        smoke={"settings": {"run": {"lr": 1.0, "share": 0.2}}},
    )

    weights: Annotated[str, Categorical((DEFAULT, "finetune", "warm_restart", "scrub"))] = DEFAULT
    """Id of the method for the reader's weights, or ``keep`` to leave them as they are. By default
    `shrink_perturb` where the case builds untrained models, and `warm_restart` where not."""

    settings: dict[str, Any] = Field(default_factory=dict)
    """Hyper-parameters of that method, by name; its defaults when empty."""

    def apply(self, p: Problem, rt: Runtime) -> nn.Module:
        """Delete first, so that the reader is repaired on what the store then holds."""
        inner = None if self.weights == KEEP else self._inner(p)
        if isinstance(p.model, RetrievalModel):
            self._delete(p.model, p, rt)
        else:
            rt.note(f"{self.id}: the model has no retrieval store: only its weights are unlearned")
        return p.model if inner is None else inner.apply(p, rt)

    def _delete(self, model: RetrievalModel, p: Problem, rt: Runtime) -> None:
        done = model.forget(p.forget, p.corrections)
        rt.note(
            f"{self.id}: {done.rows} rows deleted from the store, {len(model.store)} left"
            + f"; {done.absent} forget rows were not in it" * bool(done.absent)
        )
        if done.copies_left:
            rt.note(
                f"{self.id}: {done.copies_left} rows with the input of a forget row stay in the"
                " store: forgetting one copy leaves the other; name them in the request too"
            )
        if len(model.store) < model.neighbours:
            rt.note(
                f"{self.id}: the store holds fewer rows than the {model.neighbours} that the reader"
                " asks for; it gets what there is, and none of an empty store"
            )

    def _inner(self, p: Problem) -> Method:
        """Return the method for the weights."""
        usual = "warm_restart" if p.build is None else "shrink_perturb"
        chosen = usual if self.weights == DEFAULT else self.weights
        known = {
            name: kind
            for name, kind in METHODS.items()
            if kind.info.needs <= self.info.reads
            and self.info.tasks <= kind.info.tasks
            and not kind.info.rebuilds
            and name != self.id
        }
        if chosen not in known:
            raise UnknownNameError(f"{self.id}: method for the weights", chosen, known)
        if Need.FRESH in known[chosen].info.needs and p.build is None:
            raise InputError(
                f"{self.id}: {chosen} needs an untrained model; give Case(fresh=make_model), or"
                " weights='warm_restart'"
            )
        return known[chosen].build(**self.settings)
