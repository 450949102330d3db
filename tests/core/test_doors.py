"""Every form of data goes through ``unlearn`` and means the same rows."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset, TensorDataset

import unlearnkit as uk
from unlearnkit.core.data import View
from unlearnkit.core.errors import InputError, UnsupportedError
from unlearnkit.train.loop import fit

RECIPE = uk.Recipe(lr=0.1, epochs=10, batch_size=8)
N, D, C = 31, 4, 3
FORGET = (0, 7, 30)


def rows(count=N, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(count, D, generator=rng), torch.arange(count) % C


def linear(seed=0):
    net = nn.Linear(D, C)
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, generator=rng))
    return net


class Pairs(Dataset):
    """A map-style set without a word about its targets."""

    def __init__(self, x, y):
        self.x, self.y = x, y
        self.read = []

    def __len__(self):
        return len(self.y)

    def __getitem__(self, i):
        self.read.append(i)
        return self.x[i], int(self.y[i])


class Labelled(Pairs):
    """A map-style set that holds its targets ready, as torchvision's do."""

    @property
    def targets(self):
        return self.y.tolist()


def frame(x, y):
    pd = pytest.importorskip("pandas")
    table = pd.DataFrame(x.numpy(), columns=list("abcd"))
    table["label"] = y.numpy()
    return table


def hub(x, y):
    datasets = pytest.importorskip("datasets")
    return datasets.Dataset.from_dict({"x": x.numpy(), "label": y.numpy()})


def readonly(x):
    array = x.numpy().copy()
    array.flags.writeable = False
    return array


FORMS = {
    "tensors": lambda x, y: {"train": (x, y)},
    "list of two": lambda x, y: {"train": [x, y]},
    "numpy arrays": lambda x, y: {"train": (x.numpy(), y.numpy())},
    "read-only arrays": lambda x, y: {"train": (readonly(x), readonly(y))},
    "reversed arrays": lambda x, y: {"train": (x.flip(0).numpy()[::-1], y.flip(0).numpy()[::-1])},
    "nested lists": lambda x, y: {"train": (x.tolist(), y.tolist())},
    "small integers": lambda x, y: {"train": (x, y.to(torch.uint8))},
    "whole floats": lambda x, y: {"train": (x, y.float())},
    "targets of shape (N, 1)": lambda x, y: {"train": (x, y[:, None])},
    "tensor set": lambda x, y: {"train": TensorDataset(x, y)},
    "map-style set": lambda x, y: {"train": Pairs(x, y)},
    "map-style set with targets": lambda x, y: {"train": Labelled(x, y)},
    "list of pairs": lambda x, y: {"train": list(zip(x, y.tolist(), strict=True))},
    "data frame": lambda x, y: {"train": frame(x, y), "target": "label"},
    "shuffled columns": lambda x, y: {
        "train": frame(x, y)[["label", "d", "c", "b", "a"]],
        "target": "label",
        "inputs": ["a", "b", "c", "d"],
    },
    "hub set": lambda x, y: {"train": hub(x, y), "target": "label", "inputs": ["x"]},
}


def finetuned(case, request=uk.Rows(*FORGET), net=None, seed=0):  # noqa: B008  # immutable
    return uk.unlearn(net or linear(), case, request, "finetune", uk.Runtime(seed=seed))


def weights(done):
    return torch.cat([p.detach().flatten() for p in done.model.parameters()])


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_the_same_rows_gives_the_same_model(form):
    case = uk.Case(task="classification", recipe=RECIPE, **FORMS[form](*rows()))
    want = uk.Case(train=rows(), task="classification", recipe=RECIPE)
    torch.testing.assert_close(weights(finetuned(case)), weights(finetuned(want)), rtol=0, atol=0)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_leaves_the_forgotten_rows_out(form):
    x, y = rows()
    spoiled = x.clone()
    spoiled[list(FORGET)] = 1e3
    clean = uk.Case(task="classification", recipe=RECIPE, **FORMS[form](x, y))
    other = uk.Case(task="classification", recipe=RECIPE, **FORMS[form](spoiled, y))
    assert torch.equal(weights(finetuned(clean)), weights(finetuned(other)))


@pytest.mark.parametrize("form", FORMS)
def test_every_form_can_be_the_case_after_a_deletion(form):
    x, y = rows()
    case = uk.Case(task="classification", recipe=RECIPE, **FORMS[form](x, y))
    left = case.after_deletion(uk.Rows(*FORGET))
    keep = torch.tensor([i for i in range(N) if i not in FORGET])
    read = torch.cat([b.x for b in View.all(left.train).batches(8, uk.Runtime())])
    assert torch.equal(read, x[keep])
    assert torch.equal(left.train.y, y[keep])


def test_owners_of_parts_are_a_pair_or_a_column_that_is_no_input():
    x, y = rows()
    owner = torch.arange(N) // 8
    table = frame(x, y)
    table["client"] = owner.numpy()
    named = uk.Case.from_parts(
        forget=table[:8], retain=table[8:], target="label", group="client", task="classification"
    )
    paired = uk.Case.from_parts(
        forget=(x[:8], y[:8]),
        retain=(x[8:], y[8:]),
        group=(owner[:8], owner[8:]),
        task="classification",
    )
    for case in (named, paired):
        parts = case.partition(None)
        views = (parts.forget, parts.retain)
        assert [view.data.group.tolist() for view in views] == [[0] * 8, owner[8:].tolist()]
        assert next(parts.forget.batches(8, uk.Runtime())).x.shape == (8, D)


def test_owners_of_parts_that_are_no_pair_are_refused():
    with pytest.raises(InputError, match=r"group: give a pair, .* got Tensor"):
        uk.Case.from_parts(forget=rows(), task="classification", group=torch.arange(N))


class Sum(nn.Module):
    """Takes two arguments by name."""

    def __init__(self):
        super().__init__()
        self.left, self.right = linear(1), linear(2)

    def forward(self, left, right):
        return self.left(left) + self.right(right)


class Named(Sum):
    """Takes one dictionary."""

    def forward(self, batch):
        return super().forward(batch["left"], batch["right"])


class TwoPairs(Pairs):
    def __getitem__(self, i):
        x, y = super().__getitem__(i)
        return (x, x.square()), y


class NamedPairs(Pairs):
    def __getitem__(self, i):
        x, y = super().__getitem__(i)
        return {"right": x.square(), "left": x}, y


def table_of_two(x, y):
    datasets = pytest.importorskip("datasets")
    columns = {"right": x.square().numpy(), "left": x.numpy(), "label": y.numpy()}
    return datasets.Dataset.from_dict(columns)


SEVERAL = {
    "dict": lambda x, y: {"train": ({"right": x.square(), "left": x}, y)},
    "dict of arrays": lambda x, y: {"train": ({"left": x.numpy(), "right": x.square().numpy()}, y)},
    "tuple": lambda x, y: {"train": ((x, x.square()), y)},
    "tensor set": lambda x, y: {"train": TensorDataset(x, x.square(), y)},
    "map-style tuples": lambda x, y: {"train": TwoPairs(x, y)},
    "map-style dicts": lambda x, y: {"train": NamedPairs(x, y)},
    "hub columns": lambda x, y: {"train": table_of_two(x, y), "target": "label"},
}


@pytest.mark.parametrize("form", SEVERAL)
def test_a_model_of_several_arguments_gets_each_by_name_or_position(form):
    case = uk.Case(task="classification", recipe=RECIPE, **SEVERAL[form](*rows()))
    want = uk.Case(train=((rows()[0], rows()[0].square()), rows()[1]), task="classification")
    want = want.replace(recipe=RECIPE)
    assert torch.equal(weights(finetuned(case, net=Sum())), weights(finetuned(want, net=Sum())))


def test_a_model_of_one_dictionary_gets_it_whole():
    x, y = rows()
    case = uk.Case(
        train=({"left": x, "right": x.square()}, y), task="classification", recipe=RECIPE
    )
    assert torch.equal(weights(finetuned(case, net=Named())), weights(finetuned(case, net=Sum())))


class Wrapped(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.net, self.how = linear(), how

    def forward(self, x):
        return self.how(self.net(x))


class Output:
    def __init__(self, logits):
        self.logits = logits


@pytest.mark.parametrize(
    "how",
    [lambda z: (z, "attention"), lambda z: [z], Output, lambda z: {"loss": 0, "logits": z}],
    ids=["tuple", "list", "object", "mapping"],
)
def test_a_structured_output_is_read_by_its_logits(how):
    case = uk.Case(train=rows(), task="classification", recipe=RECIPE)
    assert torch.equal(weights(finetuned(case, net=Wrapped(how))), weights(finetuned(case)))


def test_an_output_without_a_tensor_is_refused():
    case = uk.Case(train=rows(), task="classification", recipe=RECIPE)
    with pytest.raises(UnsupportedError, match=r"the model returns str; a tensor"):
        finetuned(case, net=Wrapped(lambda _: "none"))


def test_parts_give_the_model_of_the_retained_part():
    x, y = rows()
    go = torch.isin(torch.arange(N), torch.tensor(FORGET))
    case = uk.Case.from_parts(
        forget=(x[go], y[go]), retain=(x[~go], y[~go]), task="classification", recipe=RECIPE
    )
    whole = uk.Case(train=(x[~go], y[~go]), task="classification", recipe=RECIPE)
    net = linear()
    tuning = {"kind": "tuning", "recipe": RECIPE.model_dump()}
    done = uk.unlearn(net, case, None, uk.method("finetune", run=tuning))
    fit(net, View.all(whole.train), case.task, RECIPE, uk.Runtime(), stream="retain")
    assert torch.equal(weights(done), torch.cat([p.detach().flatten() for p in net.parameters()]))


def test_parts_are_fitted_to_all_classes_that_either_shows():
    x, y = rows()
    case = uk.Case.from_parts(
        forget=(x[y == 2], y[y == 2]), retain=(x[y < 2], y[y < 2]), task="classification"
    )
    assert case.task.classes == 3
    assert case.partition(None).removed_classes == (2,)


def test_parts_may_be_tables():
    x, y = rows()
    case = uk.Case.from_parts(
        forget=frame(x[:5], y[:5]),
        retain=frame(x[5:], y[5:])[["d", "label", "c", "b", "a"]],
        target="label",
        task="classification",
    )
    assert torch.equal(case.parts[1].data.x, x[5:])


def test_a_method_without_its_retained_rows_names_those_that_work():
    x, y = rows()
    case = uk.Case.from_parts(forget=(x, y), task="classification")
    with pytest.raises(UnsupportedError, match=r"finetune needs retain, .* these work: ") as told:
        uk.unlearn(linear(), case, None, "finetune")
    named = str(told.value).rpartition("these work: ")[2]
    fit = {
        i
        for i, m in uk.catalog.methods().items()
        if m.info.needs <= {"forget", "labels"}
        and not m.info.needs_one_of
        and "classification" in m.info.tasks
    }
    assert {w for w in named.split(", ") if w != "none"} == fit


def test_no_data_at_all_is_a_door_too():
    case = uk.Case.without_data(task=uk.Classification(C), input_shape=(D,), test=rows(9, 1))
    split = case.partition(uk.Classes(2))
    assert (split.forget, split.retain, split.removed_classes) == (None, None, (2,))
    with pytest.raises(UnsupportedError, match="finetune needs retain"):
        uk.unlearn(linear(), case, "class=2", "finetune")


@pytest.mark.parametrize(
    ("request_", "told"),
    [
        ("class=3", "class: 3 is not among 0 to 2"),
        ("class=", "names 0 of 3 classes"),
        ("class=0:3", "names 3 of 3 classes"),
        ("rows=1", "rows: the case has no training rows; name classes"),
    ],
)
def test_without_data_only_classes_of_the_task_can_go(request_, told):
    case = uk.Case.without_data(task=uk.Classification(C), input_shape=(D,))
    with pytest.raises((InputError, UnsupportedError), match=told):
        uk.unlearn(linear(), case, request_, "finetune")


def test_deletions_follow_each_other():
    x, y = rows()
    case = uk.Case(train=(x, y), group=torch.arange(N) // 3, task="classification", keys=range(N))
    keep = [i for i in range(3, N) if y[i] != 1][1:]
    left = (
        case.after_deletion("group=0")
        .after_deletion(uk.Classes(1))
        .after_deletion({"rows": [min({3, 4, 5, 6} - {i for i in range(N) if y[i] == 1})]})
    )
    assert torch.equal(left.train.x, x[keep])
    assert torch.equal(left.train.group, torch.arange(N)[keep] // 3)
    assert left.task.classes == C
    assert len(case.train) == N


def test_a_deletion_from_a_map_style_set_reads_no_row():
    source = Labelled(*rows())
    case = uk.Case(train=source, task="classification")
    source.read.clear()
    case.after_deletion(uk.Rows(3)).after_deletion(uk.Classes(1))
    assert source.read == []


def test_the_test_table_is_read_by_the_columns_of_the_training_table():
    x, y = rows()
    more, theirs = rows(9, 1)
    held = frame(more, theirs)
    held["note"] = "unused"
    case = uk.Case(
        train=frame(x, y),
        test=held[["d", "note", "b", "label", "a", "c"]],
        target="label",
        task="classification",
    )
    assert torch.equal(case.test.x, more)


def test_owners_may_be_a_column():
    table = frame(*rows())
    table["person"] = np.arange(N) // 4
    case = uk.Case(train=table, target="label", group="person", task="classification")
    assert case.train.x.shape == (N, D)
    assert case.partition(uk.Groups(2)).forget.rows.tolist() == [8, 9, 10, 11]


def test_frames_with_numbered_columns_are_read():
    pd = pytest.importorskip("pandas")
    table = pd.DataFrame(rows()[0].numpy())
    table["label"] = rows()[1].numpy()
    case = uk.Case(train=table, target="label", task="classification")
    assert torch.equal(case.train.x, rows()[0])


class Noisy(Pairs):
    """Adds noise at each read, as an augmentation does."""

    def __getitem__(self, i):
        return self.x[i] + 0.1 * torch.randn(D), int(self.y[i])


@pytest.mark.parametrize("workers", [0, 2])
def test_random_rows_are_drawn_anew_in_each_pass(workers):
    case = uk.Case(train=Noisy(*rows()), task="classification", workers=workers)
    view = View.all(case.train)
    rt = uk.Runtime()
    passes = [
        torch.cat([b.x[b.row.argsort()] for b in view.batches(N, rt, shuffle=f"pass/{k}")])
        for k in range(2)
    ]
    assert not torch.equal(*passes)


@pytest.mark.parametrize("workers", [0, 2])
def test_random_rows_follow_the_seed_and_not_the_world(workers):
    def run(world, seed):
        torch.manual_seed(world)
        case = uk.Case(
            train=Noisy(*rows()),
            task="classification",
            workers=workers,
            recipe=uk.Recipe(lr=0.1, epochs=1),
        )
        return weights(finetuned(case, seed=seed))

    first = run(1, 0)
    assert torch.equal(first, run(2, 0))
    assert not torch.equal(first, run(1, 1))


def test_reading_random_rows_for_their_address_leaves_the_world_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = uk.Case(train=Noisy(*rows()), task="classification").train.key()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert uk.Case(train=Noisy(*rows()), task="classification").train.key() == first
    assert uk.Case(train=Noisy(*rows(seed=1)), task="classification").train.key() != first


class Renamed(Pairs):
    """Holds raw targets, returns others, as a target transform does."""

    @property
    def targets(self):
        return self.y + 5


def test_targets_come_from_the_rows_where_the_ready_ones_disagree():
    case = uk.Case(train=Renamed(*rows()), task="classification")
    assert torch.equal(case.train.y, rows()[1])


class DisagreesInside(Pairs):
    """Holds targets that agree with its items in the first and the last row alone."""

    @property
    def targets(self):
        held = 2 - self.y
        held[[0, -1]] = self.y[[0, -1]]
        return held


def test_targets_come_from_the_rows_where_the_ready_ones_disagree_in_the_middle():
    case = uk.Case(train=DisagreesInside(*rows()), task="classification")
    assert torch.equal(case.train.y, rows()[1])


def test_a_case_without_data_remembers_its_deleted_classes():
    case = uk.Case.without_data(task=uk.Classification(4), input_shape=(3,))
    left = case.after_deletion("class=1").after_deletion("class=3")
    assert left.partition(uk.Classes(0)).removed_classes == (0, 1, 3)
    with pytest.raises(InputError, match="class: 1 of 2 are already deleted: 3; name only what is"):
        left.partition(uk.Classes(0, 3))
    with pytest.raises(InputError, match="names 2 of 2 classes; name some and keep some"):
        left.partition(uk.Classes(0, 2))
