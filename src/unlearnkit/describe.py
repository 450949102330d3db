"""Descriptions of methods, metrics and cases, as facts and Markdown."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from unlearnkit import catalog
from unlearnkit.auditing import verdict_rules
from unlearnkit.auto.decision_table import Condition
from unlearnkit.auto.decision_table import load_decision_table as decision_table
from unlearnkit.cases.registry import CaseEntry
from unlearnkit.core.audit_terms import AuditTier
from unlearnkit.core.auto_method import AUTO, Auto
from unlearnkit.core.errors import UnknownNameError
from unlearnkit.core.method import Method, Need
from unlearnkit.core.metric import Metric, MetricRole
from unlearnkit.core.search_space import search_space
from unlearnkit.core.token_rows import TOKEN_TASKS
from unlearnkit.report.schema import ReportData

Facts = dict[str, Any]

_NEEDS = {
    Need.FORGET: "the rows to forget",
    Need.RETAIN: "the rows that stay",
    Need.VALIDATION: "rows never trained on",
    Need.LABELS: "the targets of these rows",
    Need.FRESH: "a function that builds an untrained model",
    Need.CLASSES: "a request for whole classes",
    Need.MOMENTS: "input moments kept after training",
    Need.CORRECTED: "the corrected rows of a request for features or labels",
    Need.CLIENTS: "the owner (client) of each row",
    Need.HISTORY: "the updates that clients sent in each round of training",
    Need.CHECKPOINTS: "the states that the training went through",
    Need.SHAPE: "inputs that are one tensor of a known shape",
}
_GOALS = {
    "high": "high values are good",
    "low": "low values are good",
    "match retraining": "good when it equals the retrained models' value",
    "descriptive": "no value is good by itself",
}


def find(name: str) -> tuple[Facts, str]:
    """Return the facts, JSON-able, and the Markdown page of a method, a metric or a case."""
    methods, metrics, cases = catalog.methods(), catalog.metrics(), catalog.cases()
    if name in methods:
        return method_facts(methods[name]), method_page(methods[name])
    if name == AUTO:
        return auto_facts(), auto_page()
    if name in metrics:
        return metric_facts(metrics[name]), f"# {name}\n\n" + metric_section(metrics[name])
    if name in cases:
        return case_facts(cases[name]), f"# {name}\n\n" + case_section(cases[name])
    raise UnknownNameError(
        "method, metric or case",
        name,
        [AUTO, *methods, *metrics, *cases],
        see="unlearnkit methods, unlearnkit metrics, unlearnkit cases",
    )


def method_facts(cls: type[Method]) -> Facts:
    """Return what is known of a method without running it."""
    info = cls.info
    return {
        "kind": "method",
        "id": cls.id,
        "title": info.title,
        "does": _first(cls.__doc__),
        "cite": info.cite,
        "needs": sorted(info.needs),
        "needs_one_of": sorted(info.needs_one_of),
        "uses": sorted(info.uses),
        "tasks": sorted(info.tasks),
        "when": info.when,
        "settings": settings(cls),
        "presets": {k: dict(v) for k, v in info.presets.items()},
        "differs": list(info.differs),
        "fails": list(info.fails),
    }


def auto_facts() -> Facts:
    """Return the decision table."""
    return {
        "kind": AUTO,
        "id": AUTO,
        "does": _first(Auto.__doc__),
        "settings": settings(Auto),
        "lines": [line.model_dump(mode="json") for line in decision_table()],
    }


def auto_page() -> str:
    """Return the page of the decision table, in Markdown."""
    said = [
        "# auto",
        "",
        _text(inspect.getdoc(Auto) or ""),
        "",
        "It looks at what the case gives, at the request, and at how well the original fits the"
        " forget and retain rows. The first line that holds gives the candidates,"
        " tried in order: each that runs goes through the fast audit, and the next one follows"
        " where that says LEAKS or DAMAGED, where more than a point of accuracy (and more than one"
        " standard error) went on validation rows of what stays, where no weight has changed, or"
        " where the run diverged; then the best of them for twice as long, then retraining."
        " What is not installed, does not serve the case or does not fit the budget is passed over."
        " Where retraining does not fit, a training from scratch follows for as long as the budget"
        " allows. The result says which candidate made it, why, and what became of the others; its"
        " cost counts the look, every try and every audit, in row passes and in processor time.",
        "",
        "What comes back is a model that passed; else one that passed and lost accuracy, with a"
        " note; else one that the audit calls DAMAGED but not LEAKS, with a note and"
        " `choice.passed` False (the command line exits with 0, says so, and refuses to go on from"
        " it). A model that leaks is never returned: an error is raised that carries it"
        " (`AutoFailedError.best`); the command line leaves it in the run's folder, marked as"
        " failed, and exits with 1. What retraining makes is accepted whatever the fast audit says,"
        " and the note says what that was. Where rows that go fit the model badly, as wrong labels"
        " do, a lower fit of retained rows is no damage as long as validation rows lost nothing."
        " Without forget rows nothing can be audited, and the result says so.",
        "",
        f"`budget` (default {Auto().budget:g}): "
        + _text(Auto.model_fields["budget"].description or ""),
        "",
        "What it chooses, at what cost, and what an audit says of it: [results](results/auto.md).",
    ]
    for line in decision_table():
        said += [
            "",
            f"## {line.id}",
            "",
            f"Holds where {_holds(line.when)}; because {line.because}.",
        ]
        said += ["", *(f"{i}. {c.words()}" for i, c in enumerate(line.candidates, 1))]
        said += ["", f"Evidence: {line.evidence}."]
    return "\n".join(said) + "\n"


_BATCH_NORM = {
    None: [],
    True: ["the model has batch normalisation"],
    False: ["the model has no batch normalisation"],
}


def _holds(when: Condition) -> str:
    parts = [
        *(f"{n} rows are given" for n in sorted(when.has)),
        *(f"{n} rows are not given" for n in sorted(when.lacks)),
        *([f"the task is {' or '.join(sorted(when.tasks))}"] if when.tasks else []),
        *([f"the request is {' or '.join(sorted(when.kinds))}"] if when.kinds else []),
        *([f"at least {when.least:g} of the rows must go"] if when.least > 0 else []),
        *([f"at most {when.most:g} of the rows must go"] if when.most < 1 else []),
        *([f"the model has at most {when.layers} weight matrices"] if when.layers else []),
        *(_BATCH_NORM[when.batch_norm]),
    ]
    return ", ".join(parts) or "no other line does"


def metric_facts(m: Metric) -> Facts:
    """Return what is known of a metric."""
    return {
        "kind": "metric",
        "id": m.id,
        "does": _first(m.doc),
        "family": m.family,
        "goal": str(m.goal),
        "low": _bound(m.low),
        "high": _bound(m.high),
        "ideal": m.ideal,
        "unit": m.unit,
        "tier": m.tier,
        "section": m.section.name.lower(),
        "role": m.role,
        "margin": m.margin,
        "higher_is_better": m.higher_is_better,
        "path": m.path,
        "reads": sorted(m.reads),
        "splits": sorted(m.splits),
        "tasks": None if m.tasks is None else sorted(m.tasks),
    }


def case_facts(c: CaseEntry) -> Facts:
    """Return what is known of a built-in case without reading its data."""
    return {
        "kind": "case",
        "id": c.id,
        "does": c.doc,
        "requests": {name: _first(make.__doc__) for name, make in sorted(c.requests.items())},
    }


def settings(cls: type[Method]) -> list[Facts]:
    """Return key, values, default, doc and search range of each hyper-parameter."""
    schema = cls.model_json_schema()
    searched = {key: str(d.search) for key, d in search_space(cls).items()}
    # Alternatives share names; the default's come first, and theirs are searched.
    return [
        {**s, "search": searched.pop(s["key"], None)}
        for s in _settings(schema, schema.get("$defs", {}), "", {})
    ]


def method_page(cls: type[Method]) -> str:
    """Return a method's page, in Markdown."""
    info = cls.info
    lead = _text(inspect.getdoc(inspect.getmodule(cls)) or "")
    rows = [
        (f"`{s['key']}`", s["values"], f"`{s['default']}`", s["search"] or "", _line(s["doc"]))
        for s in settings(cls)
    ]
    parts = [
        f"# {info.title} (`{cls.id}`)",
        lead,
        _text(cls.__doc__ or ""),
        f"Source: {info.cite}.",
    ]
    if info.when:
        parts += ["## When to use it, and when not", _text(info.when)]
    parts += ["## Hyper-parameters"]
    parts += [
        table(("name", "values", "default", "tuned in", "meaning"), rows) if rows else "None."
    ]
    parts += [
        "On the command line: "
        + f"`unlearnkit unlearn CASE --forget class=3 --method {cls.id}"
        + (f" -p {settings(cls)[0]['key']}={settings(cls)[0]['default']}`." if rows else "`.")
    ]
    if info.presets:
        parts += ["Presets, for `--preset`:", _list(_preset(k, v) for k, v in info.presets.items())]
    parts += ["## Needs and cost"]
    needs = ", ".join(_NEEDS[n] for n in sorted(info.needs)) or "the model alone"
    one_of = " or ".join(_NEEDS[n] for n in sorted(info.needs_one_of))
    uses = ", ".join(_NEEDS[n] for n in sorted(info.uses))
    parts += [
        _list(
            [
                f"Needs: {needs}.",
                *([f"Needs one of: {one_of}."] if one_of else []),
                *([f"Reads where they are there: {uses}."] if uses else []),
                f"Tasks: {', '.join(sorted(info.tasks))}.",
                "Cost: each run meters its rows forward and backward; the report puts them next to"
                " retraining.",
            ]
        )
    ]
    parts += [
        "## How it differs from the paper",
        _list(map(_line, info.differs)) or "In nothing known.",
    ]
    parts += ["## Known failures", _list(map(_line, info.fails)) or "None is recorded yet."]
    if info.exact:
        parts += [
            "## What makes it exact",
            "No part of the model was trained on the forget set. That holds if:",
            _list(map(_line, info.exact)),
        ]
    parts += ["Unlearning is measured, not proven: audit every result."]
    return "\n\n".join(p for p in parts if p) + "\n"


def metric_section(m: Metric) -> str:
    """Return what a metric is, in Markdown, without a heading."""
    facts = [
        f"Goal: {m.goal} ({_GOALS[m.goal]})",
        f"Range: {_bound(m.low)} to {_bound(m.high)}{f' {m.unit}' if m.unit else ''}",
        *([f"Ideal: {m.ideal:g}"] if m.ideal is not None else []),
        f"Reads: {_reads(m)}",
        f"Tasks: {'all' if m.tasks is None else ', '.join(sorted(m.tasks))}",
        f"Audit: {m.tier}",
        f"Section of the report: {m.section.name.lower().replace('_', ' ')}",
        *([f"Role: {m.role}"] if m.role is not MetricRole.OTHER else []),
        *([f"Margin of equivalence: {m.margin:g}"] if m.margin is not None else []),
        *(
            ["Compatibility: replays published code with its errors, for old tables only"]
            if m.path == "compat"
            else []
        ),
    ]
    return f"{_text(m.doc)}\n\n{_list(facts)}\n"


def _reads(m: Metric) -> str:
    if m.tier == AuditTier.STRONG:
        return "margins of many unlearned models, and of as many retrained ones"
    if not m.of_evidence:
        return "the meter of the run"
    on = f" on {', '.join(sorted(m.splits))}" if m.splits else ""
    return ", ".join(sorted(m.reads)) + on


def case_section(c: CaseEntry) -> str:
    """Return what a case is, in Markdown, without a heading."""
    asked = _list(f"`{n}`: {_first(make.__doc__)}" for n, make in sorted(c.requests.items()))
    lead = f"{c.doc[0].upper()}{c.doc[1:]}."
    return f"{lead}\n\nRequests, for `--forget`:\n\n{asked}\n" if asked else f"{lead}\n"


def short_methods(link: str) -> str:
    """Return the Markdown table of methods, those of language models alone in a sentence."""
    lines = tables(link)["methods"].split("\n")
    language = {i for i, m in catalog.methods().items() if m.info.tasks <= TOKEN_TASKS}
    names = ", ".join(f"[`{i}`]({link}{i}.md)" for i in sorted(language))
    rows = [line for line in lines if line[4:].partition("`")[0] not in language]
    return "\n".join([*rows, "", f"For language models alone: {names}."])


def tables(link: str) -> dict[str, str]:
    """Return Markdown tables of methods, metrics and cases; ``link`` leads to method pages."""
    methods = [
        (f"[`{i}`]({link}{i}.md)", m.info.title, _comma(m.info.needs), _first(m.__doc__))
        for i, m in catalog.methods().items()
    ]
    metrics = [
        (_names(group), str(group[0].goal), group[0].unit, group[0].tier, _first(group[0].doc))
        for group in _alike(catalog.metrics().values())
    ]
    cases = [
        (f"`{i}`", _comma(f"`{r}`" for r in c.requests), c.doc) for i, c in catalog.cases().items()
    ]
    return {
        "methods": table(("id", "name in the literature", "needs", "what it does"), methods),
        "metrics": table(("id", "goal", "unit", "audit", "what it is"), metrics),
        "cases": table(("id", "requests", "what it is"), cases),
    }


def _alike(metrics: Iterable[Metric]) -> Iterable[list[Metric]]:
    """Return metrics in groups that differ in their split alone."""
    groups: dict[tuple[str, str], list[Metric]] = {}
    for m in metrics:
        groups.setdefault((m.family, m.doc), []).append(m)
    return groups.values()


def _names(group: list[Metric]) -> str:
    first = group[0].id
    if len(group) == 1:
        return f"`{first}`"
    splits = [next(iter(m.splits)) for m in group]
    return f"`{first.removesuffix(splits[0])}` " + ", ".join(f"`{s}`" for s in splits)


def verdict_page() -> str:
    """Return the rules of the verdicts, in Markdown."""
    meaning = table(
        ("verdict", "meaning", "what to do next"),
        ((v, said, verdict_rules.NEXT[v]) for v, said in verdict_rules.MEANING.items()),
    )
    parts = [
        "# Verdicts",
        "An audit ends in one verdict, followed by its reason. Several can hold; the headline is"
        " the first in this list. Verdict, reason and remarks are joined into one text by"
        f" {_file(ReportData.row)}.",
        meaning,
        "## Terms of the rules",
        _list(verdict_rules.TERMS),
    ]
    for tier, about in verdict_rules.TIERS.items():
        rows = [
            (r.verdict.value, r.rule, _comma(f"`{m}`" for m in r.rests_on), r.level, r.source)
            for r in verdict_rules.RULES
            if r.tier == tier
        ]
        code = sorted({_file(r.holds) for r in verdict_rules.RULES if r.tier == tier})
        parts += [f"## {tier.capitalize()} tier", about]
        parts += [f"Conditions and sentences of these rules: {_comma(code)}."]
        parts += [table(("verdict", "rule", "rests on", "level or margin", "source"), rows)]
    parts += [
        "## What no verdict says",
        "An audit can refute that data are gone. It cannot prove it. Each report lists what its"
        " tier could not see.",
    ]
    return "\n\n".join(parts) + "\n"


def _file(function: Callable[..., object]) -> str:
    """Return where a function is written: the path of its file in the repository."""
    return f"`src/{function.__module__.replace('.', '/')}.py`"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table."""
    names = list(head)
    lines = [names, ["---"] * len(names), *([c.replace("|", "\\|") for c in r] for r in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _settings(
    schema: Mapping[str, Any], known: Mapping[str, Any], prefix: str, over: Mapping[str, Any]
) -> Iterable[Facts]:
    for name, field in schema.get("properties", {}).items():
        if "const" in field:
            continue
        default = over.get(name, field.get("default"))
        doc = field.get("description", "")
        if "discriminator" in field and isinstance(default, Mapping):
            kinds = field["discriminator"]["mapping"]
            ours = default["kind"]
            yield _setting(f"{prefix}{name}.kind", " | ".join(sorted(kinds)), ours, doc)
            for kind in sorted(kinds, key=lambda k: (k != ours, k)):
                inner = known[kinds[kind].rpartition("/")[2]]
                given = default if kind == ours else {}
                for s in _settings(inner, known, f"{prefix}{name}.", given):
                    yield {**s, "doc": f"({kind}) {s['doc']}"}
            continue
        inner = known.get(field.get("$ref", "").rpartition("/")[2], {})
        if "properties" in inner and isinstance(default, Mapping):
            yield from _settings(inner, known, f"{prefix}{name}.", default)
            continue
        yield _setting(prefix + name, _values(field), default, doc)


def _setting(key: str, values: str, default: object, doc: str) -> Facts:
    shown = "none" if default is None else default
    return {"key": key, "values": values, "default": shown, "doc": doc}


def _values(field: Mapping[str, Any]) -> str:
    if "enum" in field:
        return " | ".join(map(str, field["enum"]))
    if "anyOf" in field:
        return " or ".join(_values(f) for f in field["anyOf"])
    if "$ref" in field:
        return str(field["$ref"].rpartition("/")[2])
    words = {"null": "none", "array": "list", "object": "mapping"}
    kind = str(field.get("const", words.get(field.get("type", ""), field.get("type", "any"))))
    signs = {"exclusiveMinimum": ">", "minimum": ">=", "exclusiveMaximum": "<", "maximum": "<="}
    bounds = [f"{sign} {field[key]:g}" for key, sign in signs.items() if key in field]
    return " ".join([kind, ", ".join(bounds)]).strip()


def _preset(name: str, values: Mapping[str, Any]) -> str:
    flat = ", ".join(f"`{k}={v}`" for k, v in _flat("", values))
    return f"`{name}`: {flat}" if flat else f"`{name}`: the defaults"


def _flat(prefix: str, values: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    for k, v in values.items():
        if hasattr(v, "model_dump"):
            v = v.model_dump(exclude_defaults=True)  # noqa: PLW2901  # the same value, unfolded
        if isinstance(v, Mapping):
            yield from _flat(f"{prefix}{k}.", v)
        else:
            yield f"{prefix}{k}", v


def _bound(x: float) -> str:
    return f"{x:g}"


def _comma(words: Iterable[str]) -> str:
    return ", ".join(sorted(words))


def _list(items: Iterable[str]) -> str:
    return "\n".join(f"- {item}" for item in items)


def _text(doc: str) -> str:
    return inspect.cleandoc(doc).replace("``", "`")


def _line(doc: str) -> str:
    return " ".join(_text(doc).split())


def _first(doc: str | None) -> str:
    return _line((doc or "").strip().partition("\n\n")[0])
