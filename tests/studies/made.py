"""Studies that were never run: plans, and stores filled with numbers that are known."""

import hashlib

import numpy as np

from unlearnkit.store import Measurement, Run, Store
from unlearnkit.studies import columns as c
from unlearnkit.studies.planning.run_spec import RunSpec
from unlearnkit.studies.spec import make_study
from unlearnkit.studies.table.load_results import Result

SCRIPT = "<script>alert('π & co')</script>"
REQUESTS = ("class=3", "random_tenth")
METHODS = ("finetune", "ssd", "neggrad_plus", "scrub")

TRUTH = {
    "accuracy_forget": 0.02, "accuracy_retain": 0.998, "accuracy_test": 0.972,
    "js_forget": 0.004, "margin_auc": 0.08,
}  # fmt: skip
BEFORE = {
    "accuracy_forget": 1.0, "accuracy_retain": 0.999, "accuracy_test": 0.971,
    "js_forget": 0.52, "margin_auc": 0.61,
}  # fmt: skip
NOISE = {
    "accuracy_forget": 0.004, "accuracy_retain": 0.0006, "accuracy_test": 0.003,
    "js_forget": 0.0006, "margin_auc": 0.006,
}  # fmt: skip
CLOSED = {"finetune": 0.1, "ssd": 0.999, "neggrad_plus": 0.97, "scrub": 1.0}
LOST = {"finetune": 0.0, "ssd": 0.09, "neggrad_plus": 0.012, "scrub": 0.0005}
COST = {"finetune": 0.2, "ssd": 0.013, "neggrad_plus": 0.11, "scrub": 0.46}


def study(**changes):
    fields = {
        "name": "made",
        "about": "What a table looks like.",
        "cases": ["digits"],
        "requests": list(REQUESTS),
        "methods": list(METHODS),
        "seeds": 5,
        "oracles": 5,
    }
    return make_study({**fields, **changes})


def plan(s, labels=None):
    """The runs of a study, in the order case, request, seed, method."""
    return [
        planned(case, request, label, seed, s)
        for case in s.cases
        for request in s.requests[case]
        for seed in s.seeds
        for label in labels or [m.method for m in s.methods]
    ]


def planned(case, request, label, seed, s):
    key = hashlib.sha256(repr((case, request, label, seed)).encode()).hexdigest()
    return RunSpec(
        key=key,
        case=case,
        request=request,
        label=label,
        method=label.split()[0],
        preset=None,
        settings={"epochs": 2},
        seed=seed,
        original_seed=seed if s.design == "FULL" else 0,
        oracles=s.oracles,
        tier=s.tier,
        design=s.design,
        device=s.device,
        precision=s.precision,
    )


def values(p, seed=0, closed=CLOSED, lost=LOST, cost=COST):
    """Numbers of a run: between before and truth as far as the method goes, with noise."""
    hard = 1.0 if p.request.startswith("class") else 0.3
    rng = np.random.default_rng([seed, p.seed, *p.label.encode(), *p.request.encode()])
    shared = np.random.default_rng([seed, *p.request.encode()])
    own = np.random.default_rng([seed, p.original_seed, *p.request.encode()])
    share, found = closed.get(p.method, 0.5), {}
    for metric, right in TRUTH.items():
        if metric in ("accuracy_retain", "accuracy_test"):
            before, mean = BEFORE[metric], right - lost.get(p.method, 0.0)
        else:
            before = right + (BEFORE[metric] - right) * hard
            mean = before + (right - before) * share
        found[metric, "unlearned"] = mean + rng.normal(0, NOISE[metric])
        found[metric, "original"] = before + own.normal(0, NOISE[metric])
        for k in range(p.oracles):
            found[metric, f"oracle {k}"] = right + shared.normal(0, NOISE[metric])
    found["cost_ratio", "unlearned"] = cost.get(p.method, 0.3) * (1 + 0.02 * rng.random())
    found["cost_seconds", "unlearned"] = float(rng.random())
    return found


def results(s, labels=None, **more):
    return [Result(p, "done", values=values(p, **more)) for p in plan(s, labels)]


def filled(path, runs, skip=(), failed=(), verdicts=()):
    """A store of these runs, some not done (by position) and some failed."""
    store = Store(path)
    for i, p in enumerate(runs):
        if i in skip:
            continue
        error = f"DivergedError: {SCRIPT} is nan" if i in failed else ""
        run = Run(
            key=p.key, kind="study", case_name=p.case, request=p.request, method=p.method,
            seed=p.seed, status="failed" if error else "done", started="2030-01-01",
            settings=dict(p.settings), error=error,
        )  # fmt: skip
        numbers = [Measurement(m, who, v) for (m, who), v in values(p).items()]
        told = {"verdict": verdicts[i]} if verdicts else {}
        store.save_run(run, () if error else numbers, facts=told)
    return store


def chosen(names):
    """Columns, and the metrics that there are."""
    known = c.metric_columns()
    return c.select_columns(names, known), known
