"""Imports make no circle, names mean one thing, and every number has a user."""

import ast
import re
from collections import Counter, defaultdict
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.house.trees import tree

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "unlearnkit"
FILES = sorted(PACKAGE.rglob("*.py"))


def module(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(source, known):
    """Return the modules that a file imports anywhere: in functions and for types as well."""
    found = set()
    for n in ast.walk(source):
        if isinstance(n, ast.Import):
            found |= {a.name for a in n.names}
        elif isinstance(n, ast.ImportFrom) and n.module:
            whole = [f"{n.module}.{a.name}" for a in n.names]
            found |= {w if w in known else n.module for w in whole}
    return found & known


def import_graph(trees):
    return {m: imports(t, set(trees)) - {m} for m, t in trees.items()}


def circle(graph):
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as e:
        return e.args[1]
    return []


def test_imports_make_no_circle():
    assert circle(import_graph({module(p): tree(p) for p in FILES})) == []


@pytest.mark.parametrize(
    "text",
    [
        "from unlearnkit import a",
        "def f():\n    from unlearnkit.a import x",
        "if TYPE_CHECKING:\n    from unlearnkit.a import X",
        "import unlearnkit.a",
    ],
)
def test_a_circle_is_found_wherever_the_import_stands(text):
    trees = {"unlearnkit.a": ast.parse("import unlearnkit.b"), "unlearnkit.b": ast.parse(text)}
    assert set(circle(import_graph(trees))) == {"unlearnkit.a", "unlearnkit.b"}


def twice(names):
    return {name: places for name, places in names.items() if len(places) > 1}


def test_no_file_name_stands_for_two_things():
    stems = defaultdict(list)
    for path in FILES:
        if path.stem not in {"__init__", "__main__"} and path.parent.name != "cli":
            stems[path.stem].append(module(path))
    assert twice(stems) == {}


def test_no_class_name_stands_for_two_things():
    classes = defaultdict(list)
    for path in FILES:
        for n in ast.walk(tree(path)):
            if isinstance(n, ast.ClassDef) and not n.name.startswith("_"):
                classes[n.name].append(module(path))
    assert twice(classes) == {}


IRREGULAR = {
    *("begun", "between", "built", "chosen", "drawn", "found", "frozen", "given", "gone"),
    *("heard", "held", "hidden", "kept", "known", "left", "made", "meant", "redrawn", "said"),
    *("seen", "sent", "shown", "spent", "stood", "taken", "taught", "told", "unseen", "written"),
}
NO_PARTICIPLES = {"seed", "speed", "feed", "embed", "need"}
PARTICIPLES = {
    *("entangled", "labelled", "memorised", "mislabelled"),
    "paired",
}
"""Adjectives that say what they return: at most ten."""


def is_participle(name):
    return name in IRREGULAR or (name.endswith("ed") and name not in NO_PARTICIPLES)


def test_public_functions_are_named_by_nouns_or_verbs():
    found = {
        n.name
        for path in FILES
        for n in tree(path).body
        if isinstance(n, ast.FunctionDef) and "_" not in n.name and is_participle(n.name)
    }
    assert len(PARTICIPLES) <= 10
    assert found - PARTICIPLES == set()


MEMBERS = {
    *("BlindspotRegression.exposed", "Duck.gone", "Pgu.held"),  # settings, in results and studies
    *("TunedSettings.found", "SettingChange.found", "SettingChange.searched", "TrialScore.left"),
    *("TuningProvenance.failed", "TuningProvenance.reached", "TuningProvenance.tuned"),
    *("MethodEntry.tuned", "RunFolderRecord.made", "Run.started"),  # files and tables that are kept
    *("Outcome.failed", "Outcome.skipped", "StudyCost.failed", "StudyCost.unmeasured"),
    *("LeaderboardRow.failed", "TableRow.failed", "Entry.used"),  # counts and times
    *("ClassAccuracy.unlearned", "Provenance.unlearned", "SummaryRow.retrained"),  # models
    *("Data.given", "TensorData.given", "MapData.given", "Keys.named", "Keys.renumbered"),
    *("LayerShare.chosen", "Layer.chosen", "Mask.chosen", "EkFacBlock.left", "Moves.left"),
    *("MemorizationEstimate.memorised", "MemorizationEstimate.trained"),
    *("TrainingDynamics.memorised", "Difficulty.memorised", "Case.manipulated"),
    *("Evidence.cached", "Relearned.censored", "PublishedValue.printed", "TuningEffect.tuned"),
    *("RayExecutor.wanted", "RunFolderRecord.sealed", "Measured.seen"),
}
"""Methods and fields that are participles all the same. No new one: name what it returns."""


def participle_members(source):
    """Yield methods and fields of public classes that are a bare participle, but truth values."""
    for c in ast.walk(source):
        if isinstance(c, ast.ClassDef) and not c.name.startswith("_"):
            for n in c.body:
                if isinstance(n, ast.FunctionDef):
                    name, kind = n.name, n.returns
                elif isinstance(n, ast.AnnAssign):
                    name, kind = getattr(n.target, "id", "_"), n.annotation
                else:
                    continue
                if "_" not in name and is_participle(name) and getattr(kind, "id", "") != "bool":
                    yield f"{c.name}.{name}"


def test_public_methods_and_fields_are_named_by_nouns_or_verbs():
    found = {m for path in FILES for m in participle_members(tree(path))}
    assert found == MEMBERS


def test_a_participle_among_methods_and_fields_is_found():
    text = "class A:\n    told: str\n    done: bool\n    spent: bool\n    def heard(self): ..."
    assert list(participle_members(ast.parse(text))) == ["A.told", "A.heard"]


STATISTICS = [
    p for p in FILES if p.parent.name in {"attacks", "stats"} and p.stem not in {"__init__"}
]


def mentioned(node):
    names = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
    names |= {n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)}
    return names | {
        a.name for n in ast.walk(node) if isinstance(n, ast.ImportFrom) for a in n.names
    }


@cache
def names_in(path):
    return mentioned(tree(path))


def definitions(source):
    """Yield a file's functions, classes and constants, with the names that each mentions."""
    for n in source.body:
        if isinstance(n, ast.FunctionDef | ast.ClassDef):
            yield n.name, mentioned(n)
        elif isinstance(n, ast.Assign | ast.AnnAssign):
            for target in n.targets if isinstance(n, ast.Assign) else [n.target]:
                yield getattr(target, "id", ""), mentioned(n)


def unreached(source, elsewhere):
    """Return the names of a file that no other file reaches, by its own names or through others."""
    below = dict(definitions(source))
    reached, todo = set(), [name for name in below if name in elsewhere]
    while todo:
        name = todo.pop()
        if name not in reached:
            reached.add(name)
            todo += [n for n in below[name] if n in below]
    return [name for name in below if name not in reached]


def test_every_attack_and_statistic_is_used_by_something():
    users = Counter(name for p in FILES for name in names_in(p))
    assert len(STATISTICS) > 20
    lost = {}
    for path in STATISTICS:
        own = names_in(path)
        others = {name for name, files in users.items() if files > (name in own)}
        lost[module(path)] = unreached(tree(path), others)
    assert {m: names for m, names in lost.items() if names} == {}


def test_a_name_without_a_user_is_found():
    source = ast.parse("A = 1\nB = 2\ndef used():\n    return A\ndef lost():\n    return B")
    assert unreached(source, {"used"}) == ["B", "lost"]


LONG = {"metric": 70}
"""Functions over 60 lines, docstring and signature included, and how long they may be at most:
the declaration of a metric has a line for each of its 18 fields, in signature, text and call."""


def test_a_function_has_at_most_60_lines():
    found = {
        f"{module(p)}.{n.name}: {size(n)}"
        for p in FILES
        for n in ast.walk(tree(p))
        if isinstance(n, ast.FunctionDef) and size(n) > LONG.get(n.name, 60)
    }
    assert found == set()


def size(node):
    return node.end_lineno - node.lineno + 1


RETIRED = re.compile(r"\b(asked|told|beside|seats?|heard|lessons?)\b", re.IGNORECASE)
"""Words that only this code base used; ``docs/glossary.md`` has those of the field."""


def texts(source):
    """Yield the docstrings and other texts of a file that hold more than one word."""
    for n in ast.walk(source):
        if isinstance(n, ast.Constant) and isinstance(n.value, str) and " " in n.value.strip():
            yield n.value


def retired(path):
    return [w.lower() for t in texts(tree(path)) for w in RETIRED.findall(t)]


def test_texts_have_the_words_of_the_field():
    assert {module(p): words for p in FILES if (words := retired(p))} == {}


def test_a_private_word_is_found_in_a_text():
    assert RETIRED.findall("What was asked of the seat beside it.") == ["asked", "seat", "beside"]


def test_immutable_values_have_one_base_class():
    found = [module(p) for p in FILES if "frozen=True, extra=" in p.read_text("utf-8")]
    assert found == ["unlearnkit.core.checked"]
