"""Oracle matching: fine-tune to the outputs of models retrained without the forget set."""

from typing import Literal

from pydantic import Field
from torch import nn

from unlearnkit.attribution.attributed_model import AttributedModel
from unlearnkit.attribution.back_ends import predict_shift
from unlearnkit.attribution.leave_out_models import OracleAttribution, mean_outputs
from unlearnkit.cache import Cache
from unlearnkit.core.data import View
from unlearnkit.core.inference import predict
from unlearnkit.core.method import Info, Method, Need, Problem, register
from unlearnkit.core.runtime import Runtime
from unlearnkit.train.output_matching import OutputMatching, match_outputs, matched_rows


@register
class OracleMatching(Method):
    """Retrain several models without the forget set; move the outputs to theirs."""

    info = Info(
        title="OM: oracle matching",
        cite="Georgiev et al., ICLR 2025, arXiv:2410.23232",
        needs=frozenset({Need.FORGET, Need.RETAIN, Need.LABELS, Need.FRESH}),
        tasks=frozenset({"classification", "multilabel", "regression"}),
        when=(
            "Never for a deletion: it retrains models without the forget set, and any of these is"
            " the better answer. It is a diagnostic: it shows how near to retraining the matching"
            " of `datamodel_matching` comes when the targets are right."
        ),
        differs=(
            "the default target is the original's own output plus the mean shift of retraining"
            " (retrained models against as many originals): with the published target, the mean"
            " output of retrained models, all unlearned models answer alike, and audits see that",
            "the models whose outputs are matched are trained for it, from seeds of their own:"
            " published code may match the very models that score it, at any epoch",
            "length, rate and rows of the matching are those of `datamodel_matching`; the preset"
            " reference has the published ones",
        ),
        fails=(
            "it costs as much as the retrainings whose outputs it matches",
            "with targets of 64 retrained models the match is still not perfect: digits, a random"
            " tenth, 64 models: median KLoM 0.18 (retrained models among themselves 0.14), U-LiRA"
            " AUC 0.57",
        ),
        presets={
            "reference": {
                "target": "mean",
                "matching": {
                    "epochs": 5,
                    "lr": 5e-4,
                    "batch_size": 512,
                    "retain_rows": 3.0,
                    "outputs": "as they are",
                    "norm": "train",
                },
            },
        },
        smoke={"models": 2, "matching": {"epochs": 2}},
    )

    models: int = Field(10, ge=1)
    """Retrained models whose outputs are averaged (paper: 10), and as many originals where the
    target is a shift."""

    target: Literal["shift", "mean"] = "shift"
    """The original's own output plus the mean shift, which keeps what differs from run to run; or
    the mean output of the retrained models (published)."""

    matching: OutputMatching = OutputMatching()
    """How outputs are moved."""

    def apply(self, p: Problem, rt: Runtime) -> nn.Module:
        """Retrain, then match on forget rows and a draw of retained rows."""
        subject = AttributedModel.of_problem(p)
        picked = matched_rows(subject.forget, self.matching, rt, "oracle_matching/retain")
        rows = View(subject.train.data, subject.train.rows[picked])
        if self.target == "mean":
            found = mean_outputs(subject, self.models, subject.train, rt, Cache(), forget=True)
            rt.cost.precomputation += found.work
            targets = found.mean[picked]
        else:
            how = OracleAttribution(models=self.models)
            shift = predict_shift(subject, how, rt, who="oracle_matching").shift
            before = predict(p.original, rows, p.task, rt)
            targets = before + shift[picked].to(before)
        match_outputs(
            p.model,
            rows,
            targets,
            self.matching,
            p.recipe,
            p.task,
            rt,
            retained=len(p.retain),
            stream="oracle_matching",
        )
        return p.model
