"""A store after a deletion is the store that was built without the rows."""

import copy

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors
from torch import nn

import unlearnkit as uk
from unlearnkit.core.errors import InputError, UnsupportedError
from unlearnkit.retrieval import HashedWords, PassageReader, RetrievalModel, RetrievalStore

WORDS = 50


class Network(nn.Module):
    """A retriever of matrix products, which are rounded differently in batches."""

    def __init__(self, seed=0):
        super().__init__()
        rng = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(6, 33, generator=rng))

    def forward(self, x):
        return nn.functional.normalize(torch.tanh(x.float() @ self.weight / 50), dim=1)


def rows(n=40, seed=0):
    rng = torch.Generator().manual_seed(seed)
    x = torch.randint(1, WORDS, (n, 6), generator=rng)
    return x, torch.randint(3, (n,), generator=rng)


def store_of(x, y, retriever=None, capacity=48):
    store = RetrievalStore(capacity, 33, x[0], y[0])
    store.add((retriever or Network()).eval(), x, y)
    return store


@pytest.mark.parametrize("gone", [[0], [39], [3, 8, 21, 22], list(range(39))])
def test_deleting_is_building_without_bit_for_bit(gone):
    x, y = rows()
    stay = [i for i in range(40) if i not in gone]
    store = store_of(x, y)
    done = store.delete(x[gone], y[gone])
    assert done.digest == store_of(x[stay], y[stay]).digest
    assert (done.rows, done.absent, done.copies_left, len(store)) == (len(gone), 0, 0, len(stay))


def test_the_order_in_which_rows_came_leaves_no_trace():
    x, y = rows()
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    assert store_of(x, y).digest == store_of(x[order], y[order]).digest


def test_nothing_of_a_deleted_row_is_left_in_any_tensor():
    x, y = rows()
    x[7] = 49
    x[torch.arange(40) != 7] = x[torch.arange(40) != 7].clamp(max=48)
    store = store_of(x, y)
    store.delete(x[7:8], y[7:8])
    assert not bool((store.x == 49).any())
    assert not bool(store.embeddings[39:].any())


def test_neighbours_are_those_of_scikit_learn():
    x, y = rows()
    retriever = Network().eval()
    query = retriever(rows(9, 5)[0]).detach()
    found = store_of(x, y, retriever).nearest(query, 4)
    search = NearestNeighbors(n_neighbors=4, metric="cosine").fit(retriever(x).detach().numpy())
    far, at = search.kneighbors(query.numpy())
    assert torch.equal(found.x, x[torch.from_numpy(at)])
    np.testing.assert_allclose(1 - found.similarity.numpy(), far, rtol=1e-4, atol=1e-5)


def test_in_training_a_row_does_not_retrieve_itself_nor_its_copies():
    x, y = rows()
    x[1] = x[0]
    retriever = Network().eval()
    store = store_of(x, y, retriever)
    found = store.nearest(retriever(x).detach(), 5, skip=x)
    assert found.x.shape[1] == 5
    assert bool(found.there.all())
    assert not bool((found.x == x[:, None]).all(-1).any())


def test_copies_that_nobody_named_stay_and_are_counted():
    x, y = rows()
    x[1], y[1] = x[0], y[0]
    x[2], y[2] = x[0], (y[0] + 1) % 3
    store = store_of(x, y)
    done = store.delete(x[:1], y[:1])
    assert (done.rows, done.copies_left) == (1, 2)
    assert done.digest == store_of(x[1:], y[1:]).digest


def test_a_row_that_is_not_there_changes_nothing():
    x, y = rows()
    store = store_of(x, y)
    before = store.digest
    named, labels = torch.cat([x[:2], x[:1]]), torch.cat([y[:2], y[:1]])
    with pytest.raises(InputError, match="1 of 3 rows are not in it, such as row 2"):
        store.delete(named, labels)
    assert store.digest == before
    assert store.delete(named, labels, absent="skip").absent == 1


def test_a_row_with_another_target_is_another_row():
    x, y = rows()
    with pytest.raises(InputError, match="with their targets"):
        store_of(x, y).delete(x[:1], (y[:1] + 1) % 3)


def test_a_store_of_another_retriever_is_refused():
    x, y = rows()
    store = store_of(x, y)
    with pytest.raises(InputError, match="made by another retriever"):
        RetrievalModel(Network(seed=1), PassageReader(WORDS, 3), store)
    with pytest.raises(InputError, match="made by another retriever"):
        store.add(Network(seed=1), *rows(2, 7))


@pytest.mark.parametrize("k", [0, 49])
def test_more_neighbours_than_places_are_refused(k):
    with pytest.raises(InputError, match=f"1 to 48, the store's capacity, got {k}"):
        RetrievalModel(Network(), PassageReader(WORDS, 3), store_of(*rows()), neighbours=k)


def test_more_rows_than_places_are_refused():
    with pytest.raises(InputError, match="40 rows, and there are 39 places"):
        store_of(*rows(), capacity=39)


def model_of(x, y, neighbours=5):
    torch.manual_seed(0)
    reader = PassageReader(WORDS, 3, width=8)
    return RetrievalModel(
        Network(), reader, store_of(x, y, Network()), neighbours=neighbours
    ).eval()


def test_deleting_a_row_that_was_not_retrieved_leaves_outputs_in_every_bit():
    x, y = rows()
    model, query = model_of(x, y, 2), rows(12, 5)[0]
    before, used = model(query), model.store.nearest(model.retriever(query).detach(), 2)
    unused = [i for i in range(40) if not bool((used.x == x[i]).all(-1).any())]
    assert unused
    model.store.delete(x[unused], y[unused])
    assert torch.equal(model(query), before)


def test_deleting_the_nearest_passage_is_the_mean_over_the_others():
    x, y = rows(3)
    model, query = model_of(x, y, 3), rows(1, 5)[0]
    nearest = model.store.nearest(model.retriever(query).detach(), 1)
    gone = int((x == nearest.x[0, 0]).all(1).nonzero()[0])
    alone = [model.with_store(store_of(x[i : i + 1], y[i : i + 1], Network())) for i in range(3)]
    own = model.reader.own(model.reader.read(query))
    model.store.delete(x[gone : gone + 1], y[gone : gone + 1])
    parts = [m(query) - own for i, m in enumerate(alone) if i != gone]
    torch.testing.assert_close(model(query), own + sum(parts) / 2, rtol=1e-5, atol=1e-6)


def test_an_empty_store_leaves_the_reader_alone():
    x, y = rows()
    model, query = model_of(x, y), rows(4, 5)[0]
    model.store.delete(x, y)
    own = model.reader.own(model.reader.read(query))
    assert torch.equal(model(query), own)
    assert torch.equal(model.train()(query), own)


def test_a_class_without_passages_leaves_the_scores_of_the_others():
    x, y = rows()
    y[:] = torch.arange(40) % 2
    model, query = model_of(x, y, 40), rows(6, 5)[0]
    before, own = model(query), model.reader.own(model.reader.read(query))
    torch.testing.assert_close(before[:, 2], own[:, 2])
    model.store.delete(x[y == 1], y[y == 1])
    torch.testing.assert_close(model(query)[:, 1], own[:, 1])


def test_a_model_with_its_store_is_saved_without_pickle_and_loaded(tmp_path):
    x, y = rows()
    model = model_of(x, y)
    model.store.delete(x[:3], y[:3])
    uk.save_weights(model, tmp_path / "model.safetensors")
    other = uk.load_weights(model_of(*rows(40, 9)), tmp_path / "model.safetensors")
    assert other.store.digest == model.store.digest
    assert torch.equal(other(x), model(x))


def test_a_retriever_changed_after_the_store_was_built_is_seen():
    x, y = rows()
    model = model_of(x, y)
    with torch.no_grad():
        model.retriever.weight.add_(1)
    view = uk.Case(train=(x, y), task="classification").partition(uk.Rows(0)).forget
    with pytest.raises(InputError, match="made by another retriever"):
        model.forget(view)


def test_rows_that_are_no_single_tensor_are_refused():
    x, y = rows()
    case = uk.Case(train=({"a": x, "b": x}, y), task="classification")
    with pytest.raises(UnsupportedError, match="pairs of tensors"):
        model_of(x, y).forget(case.partition(uk.Rows(0)).forget)


def test_hashed_words_are_near_the_cosine_of_counts():
    x = rows(30)[0]
    counts = torch.zeros(30, WORDS).scatter_add_(1, x, torch.ones(30, 6))
    cosine = nn.functional.normalize(counts, dim=1)
    got = HashedWords(WORDS, 4096)(x)
    # Each entry of a projection on D numbers has a standard error below 1 / sqrt(D) = 0.016.
    torch.testing.assert_close(got @ got.T, cosine @ cosine.T, rtol=0, atol=0.08)


def test_a_copy_of_a_model_has_a_store_of_its_own():
    x, y = rows()
    model = model_of(x, y)
    twin = copy.deepcopy(model)
    twin.store.delete(x[:5], y[:5])
    assert (len(twin.store), len(model.store)) == (35, 40)
