"""Who's Harry Potter: at each token, what a reinforced model prefers loses."""

from typing import Annotated

from pydantic import Field
from torch import nn

from unlearnkit.core.errors import UnsupportedError
from unlearnkit.core.method import Info, Method, Need, Problem, register
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.search_space import SearchRange
from unlearnkit.language.language_method import ForgetSchedule
from unlearnkit.language.reinforced_difference import ReinforcedDifference
from unlearnkit.train.loop import fit
from unlearnkit.train.relearning import trainable


@register
class WhosHarryPotter(Method):
    """Answer with ``z - alpha relu(z_reinforced - z)``; the reinforced model saw the set again."""

    info = Info(
        title="Who's Harry Potter, at decode time",
        cite="Eldan and Russinovich, 2023, arXiv:2310.02238",
        needs=frozenset({Need.FORGET, Need.LABELS}),
        tasks=frozenset({"causal_lm"}),
        replaces=True,
        wraps=True,
        may_damage=True,
        when="To see what a filter at decode time does. It hides: both models still hold the texts,"
        " and whoever has the weights can leave the correction out. Not for a request to delete.",
        differs=(
            "the corrected logits answer by themselves; the paper fine-tunes the model on labels"
            " made from them, after names are replaced by a table of generic terms, which is a"
            " list by hand for each topic",
            "run and alpha are ours: the paper reinforces for 3 epochs of its corpus at 3e-6 and"
            " takes 5 for alpha, which is the preset's alpha",
        ),
        fails=(
            "a hint or a sampled answer can find what is hidden: read the robustness rows of an"
            " audit",
        ),
        presets={"paper": {"alpha": 5.0}},
        smoke={"run": {"lr": 1.0, "share": 0.2}},
    )

    alpha: Annotated[float, SearchRange(0.5, 20, log=True)] = Field(5.0, ge=0, allow_inf_nan=False)
    """How much of what reinforcement adds to a logit is taken away; 0 changes no answer."""

    run: ForgetSchedule = ForgetSchedule(lr=1.0, share=0.5)
    """The reinforcement: further training on the forget set."""

    def apply(self, p: Problem, rt: Runtime) -> nn.Module:
        """Reinforce a copy; return both models as one."""
        if hasattr(p.model, "peft_config"):
            raise UnsupportedError(
                "whp: the model has an adapter; call model.merge_and_unload() first"
            )
        reinforced = trainable(p.model)
        recipe = self.run.resolve(p.recipe)
        if recipe is not None:
            fit(reinforced, p.forget, p.task, recipe, rt, stream="whp/forget")
        rt.note(
            "whp hides and deletes nothing: the weights of both models still hold the forget set"
        )
        return ReinforcedDifference(p.model, reinforced, self.alpha).train(p.model.training)
