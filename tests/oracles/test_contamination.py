"""Oracles that share a pretrained start are honest; those that were trained on the rows are not."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from unlearnkit.cache import Cache
from unlearnkit.contamination import check_fresh
from unlearnkit.core.case import Case
from unlearnkit.core.errors import InputError
from unlearnkit.core.recipe import Recipe
from unlearnkit.core.request import Classes, Rows, Targets
from unlearnkit.core.runtime import Runtime
from unlearnkit.oracles import oracle, train_original
from unlearnkit.tasks.classification import Classification
from unlearnkit.tasks.regression import Regression

VOCABULARY, LENGTH, ROWS = 600, 8, 96
GO = Rows(*range(40))
MORE = pytest.mark.exhaustive


def words(count, seed):
    """Rows of 8 token ids, most of the vocabulary in none of them; three classes, a tenth noise."""
    rng = torch.Generator().manual_seed(seed)
    y = torch.randint(0, 3, (count,), generator=rng)
    x = torch.randint(0, 60, (count, LENGTH), generator=rng) + 60 * y[:, None]
    noisy = torch.rand(count, generator=rng) < 0.3
    return x, torch.where(noisy, torch.randint(0, 3, (count,), generator=rng), y)


class Encoder(nn.Module):
    """BERT in small: embeddings, one encoder layer, a pooler that is not used, a head."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(VOCABULARY, 16)
        self.places = nn.Embedding(32, 16)
        self.norm = nn.LayerNorm(16)
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
        self.pooler = nn.Linear(16, 16)
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        at = torch.arange(x.shape[1], device=x.device)
        return self.head(self.layer(self.norm(self.words(x) + self.places(at))).mean(1))


class LowRank(nn.Module):
    """A frozen layer and a trained product of two thin matrices (LoRA)."""

    def __init__(self, base):
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down = nn.Linear(base.in_features, 2, bias=False)
        self.up = nn.Linear(2, base.out_features, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x):
        return self.base(x) + self.up(self.down(x))


def pretrained(seed=7):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Encoder().state_dict()


def started(state, *, head=True, change=lambda model: None):
    """Return a factory that starts from one state, its head new or not."""

    def fresh():
        model = Encoder()
        kept = {n: t for n, t in state.items() if head or not n.startswith("head")}
        model.load_state_dict(kept, strict=False)
        change(model)
        return model

    return fresh


def frozen(model):
    model.requires_grad_(False)
    model.head.requires_grad_(True)


def half_frozen(model):
    model.words.requires_grad_(False)


def adapted(model):
    model.requires_grad_(False)
    model.head = LowRank(model.head)
    model.pooler = LowRank(model.pooler)


ADAMW = Recipe(optimizer="adamw", lr=2e-3, weight_decay=0.01, epochs=2, batch_size=16)
LONG = ADAMW.model_copy(update={"epochs": 40})


def case(fresh, recipe=ADAMW):
    return Case(
        train=words(ROWS, 0),
        test=words(ROWS, 1),
        task=Classification(3),
        fresh=fresh,
        recipe=recipe,
    )


def both(subject, tmp_path, request=GO):
    cache = Cache(tmp_path)
    found = oracle(subject, request, seeds=2, cache=cache)
    return found, train_original(subject, cache=cache).model


START = pretrained()


STARTS = {
    "shared": started(START),
    "new head": started(START, head=False),
    "frozen": started(START, change=frozen),
    "frozen words": started(START, change=half_frozen),
    "low rank": started(START, change=adapted),
    "random": Encoder,
}
RECIPES = {
    "as many steps": ADAMW.model_copy(update={"batch_size": 96}),
    "adam": ADAMW.model_copy(update={"optimizer": "adam"}),
    "sgd": Recipe(lr=0.05, epochs=2, batch_size=16),
    "hardly any step": Recipe(lr=1e-7, epochs=1, batch_size=16),
}


@pytest.mark.parametrize(
    ("fresh", "recipe"),
    [
        *(pytest.param(f, ADAMW, id=name) for name, f in STARTS.items()),
        *(pytest.param(STARTS["shared"], r, id=name) for name, r in RECIPES.items()),
    ],
)
def test_a_shared_pretrained_start_is_no_contamination(tmp_path, fresh, recipe):
    found, original = both(case(fresh, recipe), tmp_path)
    assert check_fresh(found, original, found.case.partition(found.request), Runtime()) == ()


@pytest.mark.parametrize(
    ("fresh", "reset"),
    [
        pytest.param(started(START), "head", id="shared start-head"),
        pytest.param(started(START), "layer", id="shared start-layer", marks=MORE),
        pytest.param(started(START), "words", id="shared start-words", marks=MORE),
        pytest.param(Encoder, "head", id="random start-head", marks=MORE),
        pytest.param(Encoder, "layer", id="random start-layer"),
        pytest.param(Encoder, "words", id="random start-words", marks=MORE),
    ],
)
def test_a_copy_of_the_original_with_one_part_reset_is_no_oracle(tmp_path, fresh, reset):
    found, original = both(case(fresh), tmp_path)
    fake = copy.deepcopy(original)
    for part in getattr(fake, reset).modules():
        if hasattr(part, "reset_parameters"):
            part.reset_parameters()
    fakes = replace(found, runs=(found.runs[0], replace(found.runs[1], model=fake)))
    with pytest.raises(InputError, match=r"oracle 1: contaminated: .* are copies of the original"):
        check_fresh(fakes, original, fakes.case.partition(fakes.request), Runtime())


@pytest.mark.parametrize("head", [True, False], ids=["whole", "new head"])
@pytest.mark.parametrize("recipe", [ADAMW, Recipe(lr=0.05, epochs=2, batch_size=16)])
def test_a_fresh_that_hands_out_the_original_is_caught(tmp_path, head, recipe):
    honest = case(started(START), recipe)
    original = train_original(honest, cache=Cache(tmp_path)).model
    warm = honest.replace(fresh=started(original.state_dict(), head=head))
    found = oracle(warm, GO, seeds=1, cache=Cache(tmp_path))
    with pytest.raises(InputError, match=r"contaminated: .* start from the original's own"):
        check_fresh(found, original, found.case.partition(found.request), Runtime())


@pytest.mark.parametrize("request_", [GO, Classes(1)], ids=["rows", "class"])
def test_a_fresh_that_was_trained_on_these_rows_is_caught_by_what_it_knows(tmp_path, request_):
    long = case(Encoder, LONG)
    trained = train_original(long, seed=5, cache=Cache(tmp_path)).model
    found, original = both(
        case(started(trained.state_dict())).replace(name="warm"), tmp_path, request_
    )
    other = train_original(case(Encoder), cache=Cache(tmp_path)).model
    with pytest.raises(InputError, match="contaminated: a fresh model knows the forget set before"):
        check_fresh(found, other, found.case.partition(found.request), Runtime())
    with pytest.raises(InputError, match="contaminated: a fresh model knows"):
        check_fresh(found, original, found.case.partition(found.request), Runtime())


def test_a_fresh_that_knows_the_task_from_other_rows_is_let_through_with_a_note(tmp_path):
    clean = case(Encoder, LONG)
    x, _ = words(400, 3)
    elsewhere = clean.replace(train=Case(train=(x, x[:, 0] // 60), task="classification").train)
    knows = train_original(
        elsewhere.replace(recipe=ADAMW.model_copy(update={"epochs": 10})), cache=Cache(tmp_path)
    ).model
    y = words(ROWS, 0)[0][:, 0] // 60
    subject = Case(
        train=(words(ROWS, 0)[0], y),
        test=(words(ROWS, 1)[0], words(ROWS, 1)[0][:, 0] // 60),
        task=Classification(3),
        fresh=started(knows.state_dict()),
        recipe=ADAMW,
    )
    found, original = both(subject, tmp_path)
    (note,) = check_fresh(found, original, found.case.partition(found.request), Runtime())
    assert "knows the forget set before any training" in note


def test_another_architecture_is_told(tmp_path):
    found, _ = both(case(Encoder), tmp_path)
    with pytest.raises(InputError, match="does not fit the original; give one architecture"):
        check_fresh(found, nn.Linear(2, 2), found.case.partition(found.request), Runtime())


def numbers(fresh):
    """Rows with real targets from 0 to 3 and noise, and what forgets the lowest of them."""
    rng = torch.Generator().manual_seed(0)
    x = torch.rand(300, 6, generator=rng)
    y = (3 * x[:, 0] + 0.25 * torch.randn(300, generator=rng)).clamp(0, 3)
    recipe = Recipe(optimizer="adam", lr=0.01, epochs=2, batch_size=32)
    case = Case(
        train=(x[:200], y[:200]), test=(x[200:], y[200:]), task=Regression(1), fresh=fresh,
        recipe=recipe,
    )  # fmt: skip
    return case, Targets(below=0.5)


def small_regressor():
    return nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.Linear(64, 1))


def test_targets_near_what_an_untrained_model_answers_are_no_knowledge(tmp_path):
    case, request = numbers(small_regressor)
    truth = oracle(case, request, seeds=2, cache=Cache(tmp_path))
    original = train_original(case, cache=Cache(tmp_path)).model
    assert check_fresh(truth, original, truth.case.partition(truth.request), Runtime()) == ()


def test_a_regressor_that_was_trained_on_these_rows_is_caught(tmp_path):
    case, request = numbers(small_regressor)
    forget = case.partition(request).forget
    known = small_regressor()
    optimizer = torch.optim.Adam(known.parameters(), lr=0.02)
    for _ in range(2000):
        batch = next(forget.batches(len(forget), Runtime()))
        optimizer.zero_grad()
        case.task.losses(case.task.outputs(known, batch), batch).mean().backward()
        optimizer.step()
    handed = case.replace(fresh=lambda: copy.deepcopy(known))
    truth = oracle(handed, request, seeds=1, cache=Cache(tmp_path))
    original = train_original(case, cache=Cache(tmp_path)).model
    with pytest.raises(InputError, match="a fresh model knows the forget set"):
        check_fresh(truth, original, truth.case.partition(truth.request), Runtime())
