"""How many rows a model is run on at once, and that it makes no difference to what it says."""

import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

import unlearnkit as uk
from unlearnkit.core.data import MapData, TensorData, View
from unlearnkit.core.inference import LEAST, MOST, first_rows, inference_batch_size, predict
from unlearnkit.core.runtime import Cost, Runtime


def view(*shape, rows=70, dtype=torch.float32):
    x = torch.randn(rows, *shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    return View.all(TensorData(x, torch.arange(rows) % 3))


class Images(Dataset):
    """Counts how often it is read."""

    def __init__(self):
        self.reads = 0

    def __len__(self):
        return 70

    def __getitem__(self, i):
        self.reads += 1
        return torch.full((3, 32, 32), float(i)), i % 3


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (view(64), MOST),
        (view(3, 32, 32), 32),
        (view(3, 64, 64), 8),
        (view(3, 128, 128), LEAST),
        (view(4096, dtype=torch.long), MOST),
        (view(3, 32, 32).pick(torch.arange(0)), MOST),
    ],
    ids=["features", "small images", "images", "large images", "tokens", "no rows"],
)
def test_large_rows_are_run_few_at_once(rows, expected):
    assert inference_batch_size(rows, Runtime()) == expected


def test_an_accelerator_gets_as_many_as_ever():
    assert inference_batch_size(view(3, 32, 32), Runtime(torch.device("meta"))) == MOST


def test_to_find_out_reads_one_row_in_this_process_and_counts_nothing():
    source, cost = Images(), Cost()
    data = View.all(MapData(source, torch.arange(70) % 3, workers=2))
    assert inference_batch_size(data, Runtime(cost=cost)) == 32
    assert source.reads == 1
    assert cost == Cost()


def test_outputs_are_the_same_however_many_rows_are_run_at_once():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 30 * 30, 3)).double()
    rows, task = view(3, 32, 32, dtype=torch.float64), uk.Classification(3)
    rt = Runtime()
    found = predict(model, rows, task, rt)
    assert rt.cost.forward == len(rows)
    for size in (1, 7, 512):
        torch.testing.assert_close(
            predict(model, rows, task, rt, size), found, rtol=1e-12, atol=1e-12
        )


def test_the_first_rows_of_a_view_are_what_things_are_tried_on():
    rows = view(3)
    assert torch.equal(first_rows(rows, Runtime()).row, torch.tensor([0, 1]))
    assert torch.equal(first_rows(rows.pick(torch.tensor([7])), Runtime()).row, torch.tensor([7]))
