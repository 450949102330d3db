"""Attribution on digits: how well each back end predicts retraining, and audits of the methods.

    python -m experiments attribution --quality
    python -m experiments attribution --audit --models 64

Both on the random tenth. The truth of the first is the shift of mean centred logits between models
retrained without the forget set and originals, of seeds that no attribution trains. The second are
strong audits with placebo models. Models of subsets are kept in the cache, and trained first: the
longest part. A line that is written is not made again.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

from experiments.placebo import measured
from unlearnkit.attribution.attributed_model import AttributedModel
from unlearnkit.attribution.back_ends import Attributor, predict_shift
from unlearnkit.attribution.blended import BlendedAttribution
from unlearnkit.attribution.datamodel import DatamodelAttribution
from unlearnkit.attribution.influence import EkFacAttribution
from unlearnkit.attribution.linear_head import LinearHeadAttribution
from unlearnkit.attribution.shift_quality import shift_quality
from unlearnkit.attribution.trak import TrakAttribution
from unlearnkit.cache import Cache
from unlearnkit.catalog import cases, method
from unlearnkit.core.inference import predict
from unlearnkit.core.runtime import Runtime
from unlearnkit.oracles import oracle, train_originals
from unlearnkit.train.output_matching import centre_outputs

OUT = Path("docs/results/attribution.json")
REQUEST = "random_tenth"
TRUTH = 128
"""Retrained models, and originals, behind the true shift."""

MANY = {"models": 2944, "share": 0.75}
"""Models of subsets of the audits."""

BACK_ENDS: dict[str, Attributor] = {
    "datamodel, 1,024 halves, no model of all rows": DatamodelAttribution(whole=0),
    "datamodel, 1,024 halves (default)": DatamodelAttribution(),
    "datamodel, 1,024 halves, difference in means": DatamodelAttribution(estimator="difference"),
    "datamodel, 1,024 on 0.75 of the rows": DatamodelAttribution(share=0.75),
    "datamodel, 2,944 on 0.75 of the rows": DatamodelAttribution(**MANY),
    "ekfac": EkFacAttribution(),
    "trak, projection 512, ridge 0.1": TrakAttribution(ridge=0.1),
    "linear head": LinearHeadAttribution(),
    "blended, 1,024 halves": BlendedAttribution(),
    "blended, 2,944 on 0.75 of the rows": BlendedAttribution(
        datamodel=DatamodelAttribution(**MANY)
    ),
}

AUDITS: dict[str, tuple[str, dict[str, Any]]] = {
    "oracle matching, 64 models": ("oracle_matching", {"models": 64}),
    "oracle matching, 10 models": ("oracle_matching", {}),
    "oracle matching as published, 10 models": (
        "oracle_matching",
        {"target": "mean"},
    ),
    "datamodel matching, 1,024 halves": ("datamodel_matching", {}),
    "datamodel matching, 2,944 on 0.75 of the rows": (
        "datamodel_matching",
        {"attribution": {"kind": "datamodel", **MANY}},
    ),
    "datamodel matching, blended, 2,944": (
        "datamodel_matching",
        {"attribution": {"kind": "blended", "datamodel": MANY}},
    ),
    "datamodel matching, ekfac": ("datamodel_matching", {"attribution": {"kind": "ekfac"}}),
    "influence step": ("influence_step", {}),
}


def qualities(out: Path, only: list[str]) -> None:
    """Compare each back end's prediction with the truth."""
    asked = cases()["digits"].ask(REQUEST)
    case, rt = asked.case, Runtime()
    whole = [o.model for o in train_originals(case, seeds=TRUTH)]
    retrained = oracle(case, asked.request, seeds=TRUTH).models
    subject = AttributedModel.of_case(whole[0], case, asked.request)

    def outputs(models: list[torch.nn.Module]) -> torch.Tensor:
        return torch.stack([predict(m, subject.train, case.task, rt) for m in models])

    shift = centre_outputs(outputs(retrained).mean(0) - outputs(whole).mean(0), case.task)
    for label in only or BACK_ENDS:
        start, run = time.process_time(), Runtime()
        found = predict_shift(subject, BACK_ENDS[label], run, cache=Cache())
        one = {"precomputation": found.work, "own_quality": found.quality.facts()}
        for name, rows in (("forget", subject.forget), ("retain", ~subject.forget)):
            same = shift_quality(found.shift[rows].expand(2, -1, -1), shift[rows].expand(2, -1, -1))
            one[name] = {"correlation": same.correlation, "slope": same.slope}
        print(label, one, f"{time.process_time() - start:.0f} s of processor", flush=True)
        _add(out, {f"quality/{label}": one})


def audits(out: Path, only: list[str], models: int) -> None:
    """Audit each method."""
    for label in only or AUDITS:
        name, settings = AUDITS[label]
        one = measured(REQUEST, method(name, **settings), models)
        _add(out, {f"audit/{models}/{label}": one})
        arms = {k: (a["auc"]["value"], a["klom"], a["p"]) for k, a in one["arms"].items()}
        print(label, arms, one["accuracy"], one["verdicts"], flush=True)


def _add(path: Path, found: dict[str, Any]) -> None:
    kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    kept |= found
    path.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    path.with_suffix(".md").write_text(page(kept), encoding="utf-8")


HEAD = """# Attribution, and matching of predicted outputs

Written by `python -m experiments attribution`; [numbers](attribution.json). Case `digits`, request
`random_tenth` (143 of 1,437 rows), a perceptron.

## How well the shift of logits is predicted

Over row and class: the predicted shift of centred logits against the true one, of 128 retrained
models and 128 originals. Correlation 1 and slope 1 are right. Precomputation in retrainings, for
one request; it serves every request on these rows, so divide by the number of requests.

| attribution | forget rows: correlation / slope | retained rows | precomputation |
|---|---|---|---|
"""

AUDITED = """
## Audits

Strong audits with placebo models. Each cell: U-LiRA AUC (0.5 = alike), median KLoM, mean shift of
margins in standard deviations, exposed records. Likeness: unlearned against retrained models.
Memory: unlearned against placebo models. Floor: median KLoM of a second set of retrained models
against the first. Original: the AUC of the untouched model.

| models | method | likeness | memory | floor | original | retain / test | verdicts |
|---|---|---|---|---|---|---|---|
"""


def page(kept: dict[str, Any]) -> str:
    """Return the results as a page of Markdown."""
    each = 3 * cases()["digits"].make().recipe.epochs * (1437 - 143)
    lines = []
    for key, one in sorted(kept.items()):
        if key.startswith("quality/"):
            cells = [
                f"{one[s]['correlation']:.2f} / {one[s]['slope']:.2f}" for s in ("forget", "retain")
            ]
            spent = f"{one['precomputation'] / each:.3g}"
            lines.append(f"| {key.partition('/')[2]} | {' | '.join(cells)} | {spent} |")
    text = HEAD + "\n".join(lines) + "\n" + AUDITED
    for key, one in sorted(kept.items()):
        if not key.startswith("audit/"):
            continue
        _, models, label = key.split("/", 2)
        arms = one["arms"]
        cells = [models, label, *(_cell(arms[name]) for name in ("likeness", "memory"))]
        known = (arms["likeness"][name] for name in ("klom_floor", "auc_original"))
        cells += ["-" if value is None else f"{value:.3f}" for value in known]
        cells.append(" / ".join(f"{one['accuracy'][s]:.3f}" for s in ("retain", "test")))
        cells.append(", ".join(one["verdicts"]))
        text += f"| {' | '.join(cells)} |\n"
    return text


def _cell(arm: dict[str, Any]) -> str:
    auc, shift = arm["auc"]["value"], arm["shift"]["value"]
    klom = "too few models" if arm["klom"] is None else f"{arm['klom']:.3f}"
    return f"{auc:.3f}, {klom}, {shift:+.2f}, {arm['familiar'] + arm['strange']}"


def main() -> None:
    """Measure what is asked for, and add it to ``docs/results/attribution.json``."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quality", action="store_true")
    parser.add_argument("--audit", action="store_true")
    parser.add_argument("--models", type=int, default=64)
    parser.add_argument("--only", action="append", default=[], help="a label; all by default")
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.quality:
        qualities(args.out, args.only)
    if args.audit:
        audits(args.out, args.only, args.models)


if __name__ == "__main__":
    main()
