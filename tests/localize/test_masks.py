"""What a mask selects: budgets, closed forms, units, ties, files, refusals."""

import pytest
import torch
from torch import nn

import unlearnkit as uk
from unlearnkit.core.case import Case
from unlearnkit.core.data import View
from unlearnkit.core.errors import (
    DivergedError,
    InputError,
    UnknownNameError,
    UnsupportedError,
)
from unlearnkit.localize.criteria import gradients
from unlearnkit.localize.localizer import Localizer
from unlearnkit.localize.mask import Mask
from unlearnkit.localize.top_k import top_k
from unlearnkit.localize.units import blocks
from unlearnkit.tasks.classification import Classification

CRITERIA = [
    "weighted_grad",
    "grad",
    "weight",
    "weighted_grad_all",
    "deepest",
    "shallowest",
    "random",
]


class Vision(nn.Module):
    """Position embedding, temperature, depthwise and transposed convolutions, norms, attention."""

    def __init__(self, classes=2):
        super().__init__()
        self.stem = nn.Conv2d(1, 12, 3, padding=1)
        self.norm = nn.BatchNorm2d(12)
        self.deep = nn.Conv2d(12, 12, 3, padding=1, groups=12)
        self.up = nn.ConvTranspose2d(12, 8, 2, groups=2)
        self.place = nn.Parameter(torch.randn(1, 25, 8))
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.attend = nn.MultiheadAttention(8, 4, batch_first=True)
        self.still = nn.LayerNorm(8)
        self.rnn = nn.LSTM(8, 5, batch_first=True)
        self.head = nn.Linear(5, classes)

    def forward(self, x):
        z = self.up(self.deep(torch.relu(self.norm(self.stem(x.view(-1, 1, 4, 4))))))
        z = z.flatten(2).movedim(1, 2) + self.place
        z = self.still(z + self.scale * self.attend(z, z, z, need_weights=False)[0])
        return self.head(self.rnn(z)[0][:, -1])


def problem(classes=2, rows=24):
    g = torch.Generator().manual_seed(3)
    x, y = torch.randn(rows, 16, generator=g), torch.arange(rows) % classes
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Vision(classes)
    return model, Case(train=(x, y), task=Classification(classes))


def split(case, *rows):
    parts = case.partition(uk.Rows(*rows))
    return parts.forget, parts.retain


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("granularity", ["parameter", "channel", "head"])
def test_the_budget_is_kept_and_nearly_used(criterion, granularity):
    model, case = problem()
    how = Localizer(budget=0.3, criterion=criterion, granularity=granularity)
    mask = how.find(model, case, uk.Rows(0, 1, 2, 3, 4, 5))
    total = sum(p.numel() for p in model.parameters())
    most = max(
        (sum(p.width for p in b.parts) for b in blocks(model, heads=granularity == "head")),
    )
    budget = int(0.3 * total)
    assert mask.size <= budget
    assert mask.size > budget - (1 if granularity == "parameter" else most)
    assert mask.share == pytest.approx(mask.size / total)


@pytest.mark.parametrize("granularity", ["parameter", "channel", "head"])
def test_a_budget_of_one_takes_everything(granularity):
    model, case = problem()
    mask = Localizer(budget=1, granularity=granularity).find(model, case, uk.Rows(0))
    assert all(bool(m.all()) for m in mask.chosen.values())
    assert set(mask.shares().values()) == {1.0}


def test_scores_of_a_linear_model_are_the_formula(clouds):
    net, case = clouds()
    forget, _ = split(case, 7)
    x, y = case.train.x[7], case.train.y[7]
    w = net.weight.detach()
    e = net(x).softmax(0).detach() - torch.eye(4, dtype=torch.float64)[y]
    got = Localizer()._scalars(net, forget, None, case.task, uk.Runtime())
    want = (w * e[:, None] * x).abs()
    torch.testing.assert_close(got["weight"].double(), want, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(
        got["bias"].double(), (net.bias.detach() * e).abs(), rtol=1e-6, atol=1e-9
    )


def test_opposite_batches_cancel_only_with_their_signs():
    net = nn.Linear(2, 2, bias=False, dtype=torch.float64)
    nn.init.zeros_(net.weight)
    x = torch.tensor([[1.0, 2.0], [1.0, 2.0], [3.0, 1.0]], dtype=torch.float64)
    case = Case(train=(x, torch.tensor([0, 1, 0])), task=Classification(2))
    forget, _ = split(case, 0, 1)

    def of(accumulate):
        rt = uk.Runtime()
        return gradients(net, [forget], case.task, rt, batch_size=1, accumulate=accumulate)

    assert float(of("sum")["weight"].max()) == 0
    want = torch.tensor([[1.0, 2.0], [1.0, 2.0]], dtype=torch.float64)
    torch.testing.assert_close(of("absolute")["weight"], want)


@pytest.mark.parametrize("granularity", ["parameter", "channel"])
def test_the_order_of_the_forget_rows_does_not_matter(granularity):
    model, case = problem()
    model = model.double()
    forget, retain = split(case, *range(8))
    how = Localizer(granularity=granularity, batch_size=2)
    one = how.choose(model, forget, retain, case.task, uk.Runtime())
    turned = forget.pick(torch.tensor([6, 7, 2, 3, 0, 1, 4, 5]))
    other = how.choose(model, turned, retain, case.task, uk.Runtime())
    assert all(torch.equal(one[n], other[n]) for n in one)


def test_the_model_comes_back_as_it_was():
    model, case = problem()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    for criterion in ("weighted_grad", "critical_memory"):
        Localizer(criterion=criterion).find(model, case, uk.Rows(0, 1, 2))
    assert model.training
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("count", [0, 1, 7, 40, 99, 100])
@pytest.mark.parametrize("coarse", [False, True])
def test_the_threshold_search_is_a_stable_sort(count, coarse):
    g = torch.Generator().manual_seed(count)
    scores = {"a": torch.rand(6, 10, generator=g), "b": torch.rand(40, generator=g)}
    if coarse:
        scores = {n: (4 * s).floor() for n, s in scores.items()}
    got = top_k(scores, count)
    whole = torch.cat([s.view(-1) for s in scores.values()])
    want = torch.zeros(100, dtype=torch.bool)
    want[whole.argsort(descending=True, stable=True)[:count]] = True
    assert torch.equal(torch.cat([m.view(-1) for m in got.values()]), want)


def test_scores_that_are_no_numbers_are_told():
    with pytest.raises(DivergedError, match="the score of a is not a number"):
        top_k({"a": torch.tensor([1.0, float("nan")])}, 1)


def covered(model, heads=False):
    """Return for each parameter which unit each scalar is in, found by writing unit numbers."""
    where = {n: torch.full(p.shape, -1) for n, p in model.named_parameters()}
    for k, block in enumerate(blocks(model, heads=heads)):
        for part in block.parts:
            view = part.view(where[part.name])
            lead = view.shape[: part.lead]
            assert lead.numel() == block.count
            assert bool((view == -1).all())
            ones = [1] * (view.ndim - part.lead)
            view.copy_((1000 * k + torch.arange(block.count)).view(*lead, *ones))
            assert part.width * block.count == view.numel()
    return where


@pytest.mark.parametrize("heads", [False, True])
def test_every_scalar_is_in_one_unit(heads):
    assert all(bool((w >= 0).all()) for w in covered(problem()[0], heads).values())


def test_a_channel_is_what_its_output_depends_on():
    model = problem()[0]
    unit = covered(model)
    assert torch.equal(unit["stem.bias"], unit["norm.weight"])
    assert torch.equal(unit["stem.weight"][:, 0, 0, 0], unit["norm.bias"])
    for layer, size in ((model.stem, 1), (model.deep, 12), (model.up, 12)):
        name = next(n for n, m in model.named_modules() if m is layer)
        for channel in (0, 3, layer.out_channels - 1):
            out = layer(torch.ones(1, size, 5, 5))[0, channel].sum()
            g = torch.autograd.grad(out, layer.weight)[0] != 0
            assert set(unit[f"{name}.weight"][g].tolist()) == {int(unit[f"{name}.bias"][channel])}


def test_an_attention_head_is_rows_of_the_way_in_and_columns_of_the_way_out():
    model = problem()[0]
    unit = covered(model, heads=True)
    base = int(unit["attend.out_proj.weight"].min())
    heads = base + torch.arange(8) // 2
    assert torch.equal(unit["attend.out_proj.weight"], heads.expand(8, 8))
    assert torch.equal(unit["attend.in_proj_bias"], heads.repeat(3))
    assert torch.equal(unit["attend.in_proj_weight"], heads.repeat(3)[:, None].expand(24, 8))


def test_an_lstm_unit_has_its_rows_of_all_gates():
    unit = covered(problem()[0])
    assert torch.equal(unit["rnn.bias_hh_l0"] % 1000, torch.arange(5).repeat(4))
    assert torch.equal(unit["rnn.weight_ih_l0"][:, 0], unit["rnn.bias_ih_l0"])


def test_rows_of_an_embedding_that_forget_rows_do_not_use_stay_out():
    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(10, 4)
            self.head = nn.Linear(4, 2)

        def forward(self, x):
            return self.head(self.embed(x).mean(1))

    x = torch.tensor([[1, 2], [3, 4], [5, 6], [7, 8]])
    case = Case(train=(x, torch.tensor([0, 1, 0, 1])), task=Classification(2))
    mask = Localizer(budget=0.17, criterion="grad").find(Words(), case, uk.Rows(2))
    rows = mask.chosen["embed.weight"]
    assert torch.equal(rows.any(1), rows.all(1))
    assert not bool(rows[[0, 1, 2, 3, 4, 7, 8, 9]].any())


def test_depth_fills_from_either_end():
    model, case = problem()
    for criterion, name in (("deepest", "head"), ("shallowest", "stem")):
        shares = Localizer(budget=0.3, criterion=criterion).find(model, case, uk.Rows(0)).shares()
        assert shares[name] == 1
        assert shares["head" if name == "stem" else "stem"] == 0


def test_critical_memory_silences_what_a_row_hangs_on():
    net = nn.Linear(4, 2, bias=False)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[3.0, 3, 0, 0], [0, 0, 3, 3]]))
    x = torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0.2], [0, 0, 0.2, 1]])
    x[0] += torch.tensor([0, 0, 0.1, 0])
    case = Case(train=(x, torch.tensor([0, 0, 1, 1])), task=Classification(2))
    mask = Localizer(criterion="critical_memory", budget=0.5).find(net, case, uk.Rows(0))
    assert mask.chosen["weight"].tolist() == [[True] * 4, [False] * 4]


def test_a_mask_survives_its_file(tmp_path):
    model, case = problem()
    mask = Localizer().find(model, case, uk.Rows(0, 1), uk.Runtime(seed=4))
    back = Mask.load(mask.save(tmp_path / "mask.safetensors"))
    assert back.seed == 4
    assert {**vars(back), "chosen": 0} == {**vars(mask), "chosen": 0}
    assert all(torch.equal(back.chosen[n], m) for n, m in mask.chosen.items())


def test_a_file_that_holds_no_mask_is_told(tmp_path):
    path = tmp_path / "x.safetensors"
    with pytest.raises(InputError, match="cannot read"):
        Mask.load(path)
    path.write_bytes(b"none")
    with pytest.raises(InputError, match="holds no mask"):
        Mask.load(path)


def test_a_mask_of_another_model_or_request_is_refused():
    model, case = problem()
    mask = Localizer().find(model, case, uk.Rows(0, 1))
    key = View.key(split(case, 0, 1)[0])
    mask.check(model, key)
    with pytest.raises(InputError, match="other forget rows"):
        mask.check(model, View.key(split(case, 0, 2)[0]))
    frozen = problem()[0]
    frozen.head.bias.requires_grad_(False)
    with pytest.raises(InputError, match=r"got head\.bias, which the model has frozen"):
        mask.check(frozen, key)
    with pytest.raises(InputError, match=r"head\.weight must be truth values of shape \(3, 5\)"):
        mask.check(problem(3)[0], key)
    with pytest.raises(InputError, match="which the model does not have"):
        mask.check(nn.Linear(2, 2), key)
    with torch.no_grad():
        model.scale += 1
    with pytest.raises(InputError, match="other weights"):
        mask.check(model, key)


@pytest.mark.parametrize("budget", [0, 1.01, -1, float("nan")])
def test_a_budget_is_a_share(budget):
    with pytest.raises(InputError, match="budget"):
        Localizer(budget=budget)


@pytest.mark.parametrize(
    ("given", "want", "words"),
    [
        ("grad", {"criterion": "grad"}, "grad 0.3"),
        ("weight:0.05", {"criterion": "weight", "budget": 0.05}, "weight 0.05"),
        (
            "random:1:parameter",
            {"criterion": "random", "budget": 1, "granularity": "parameter"},
            "random 1 parameter",
        ),
        ({"top": 1, "batch_size": 7}, {"top": 1, "batch_size": 7}, None),
    ],
)
def test_a_mask_in_words_is_the_fields(given, want, words):
    read = Localizer.read(given)
    assert read == Localizer(**want)
    assert read.words == (words or "weighted_grad 0.3 top=1.0 batch_size=7")


@pytest.mark.parametrize(
    ("given", "kind", "told"),
    [
        ("weighted_gard:0.3", UnknownNameError, "no criterion of a mask 'weighted_gard'. Did you"),
        ("grad:0.3:chanel", UnknownNameError, "no granularity of a mask 'chanel'. Did you mean"),
        ("grad:0", InputError, "mask: budget: input should be greater than 0, got '0'"),
        ("grad:1.5", InputError, "mask: budget: input should be less than or equal to 1"),
        ("grad:half", InputError, "mask: budget: input should be a valid number"),
        ("grad:0.1:channel:5", InputError, "expected criterion:budget:granularity"),
        ({"bugdet": 1}, UnknownNameError, "no field of a mask 'bugdet'. Did you mean 'budget'"),
    ],
)
def test_a_mask_in_wrong_words_is_told(given, kind, told):
    with pytest.raises(kind, match=told):
        Localizer.read(given)


def test_modules_without_weights_have_no_units_and_no_share():
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 4), nn.ReLU(), nn.Dropout(), nn.Linear(4, 2))
    mask = Localizer().find(net, problem()[1], uk.Rows(0, 1))
    assert list(mask.shares()) == ["1", "4"]
    assert len(blocks(net, heads=False)) == 2
    layers = {x.name: (x.scalars, x.chosen) for x in mask.layers()}
    assert {n: s for n, (s, _) in layers.items()} == {"1": 68, "4": 10}
    assert sum(c for _, c in layers.values()) == mask.size


def test_what_cannot_be_chosen_is_told():
    model, case = problem()
    ask = uk.Rows(0)
    with pytest.raises(InputError, match=r"holds no channel that the criterion chooses"):
        Localizer(budget=1e-4).find(model, case, ask)
    with pytest.raises(UnsupportedError, match="no heads"):
        Localizer(granularity="head").find(nn.Linear(16, 2), case, ask)
    with pytest.raises(InputError, match="use 'channel'"):
        Localizer(criterion="critical_memory", granularity="parameter").find(model, case, ask)
    parts = Case.from_parts(forget=(case.train.x, case.train.y), task=case.task)
    with pytest.raises(UnsupportedError, match="reads retained rows"):
        Localizer(criterion="weighted_grad_all").find(model, parts, None)
    with pytest.raises(InputError, match="no parameter requires gradients"):
        Localizer().find(model.requires_grad_(False), case, ask)
