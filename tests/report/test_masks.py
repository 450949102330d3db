"""What a report says of a mask, and how it is drawn."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from torch import nn

import unlearnkit as uk
from tests.report.report_samples import masked
from unlearnkit.localize.localizer import Localizer
from unlearnkit.report.mask_section import (
    MOST,
    layer_rows,
    mask_figure,
    mask_file,
    mask_summary,
    merge_layers,
)
from unlearnkit.report.render_text import render_text
from unlearnkit.report.report import Report
from unlearnkit.report.schema import LayerShare


def layers(names):
    return [LayerShare(name=n, scalars=10 + k, chosen=k) for k, n in enumerate(names)]


def test_the_shares_are_counted_by_hand():
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    case = uk.Case(train=(torch.randn(6, 3), torch.arange(6) % 2), task="classification")
    mask = Localizer(budget=0.5, criterion="deepest").find(net, case, uk.Rows(0))
    found = mask_summary(mask)
    assert [(x.name, x.scalars, x.chosen) for x in found.layers] == [("0", 16, 0), ("2", 10, 10)]
    assert layer_rows(found) == [
        ("0", "16", "0", "0.0 %", "0.0 %"),
        ("2", "10", "10", "100.0 %", "100.0 %"),
    ]


def test_a_report_with_a_mask_comes_back_equal_and_says_it_in_text(tmp_path):
    report = masked()
    assert Report.load(report.save(tmp_path / "r.json")) == report
    text = render_text(report)
    assert "MASK: THE PARAMETERS THAT COULD CHANGE" in text
    assert "(the model's own): 9.1 %, 274 of 3,000" in text
    assert "In the mask  822 of 10,000 scalars (8.2 %)" in text


@pytest.mark.parametrize(
    ("names", "bars"),
    [
        ([f"layer{i}" for i in range(MOST)], MOST),
        ([f"block.{i}.{part}" for i in range(12) for part in ("a", "b", "c")], 12),
        ([f"block.{i}.{part}" for i in range(40) for part in ("a", "b")], 1),
        ([str(i) for i in range(100)], 100),
    ],
)
def test_many_layers_are_drawn_by_the_module_around_them(names, bars):
    whole = layers(names)
    found = merge_layers(whole)
    assert len(found) == bars
    assert sum(x.scalars for x in found) == sum(x.scalars for x in whole)
    assert sum(x.chosen for x in found) == sum(x.chosen for x in whole)


@pytest.mark.parametrize("count", [1, 24, 300])
def test_a_picture_is_a_file_of_its_own_and_stays_small(count):
    found = masked(tuple(str(k) for k in range(count))).mask
    text = mask_file(found)
    root = ElementTree.fromstring(text)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert len(text.encode()) < 120_000
    assert text == mask_file(found)
    assert "Share of the layer in the mask" in text


def test_a_bar_is_as_long_as_the_share():
    found = masked(("a", "b", "c", "d")).mask
    svg = mask_figure(found)
    path = r'<path d="M ([\d.]+) [\d.]+ \nL ([\d.]+)[^"]*" clip-path[^>]*fill: var\(--{}'
    (whole,) = {float(b) - float(a) for a, b in re.findall(path.format("line-strong"), svg)}
    drawn = [float(b) - float(a) for a, b in re.findall(path.format("unlearned"), svg)]
    want = [x.chosen / x.scalars for x in found.layers]
    np.testing.assert_allclose(np.array(drawn) / whole, want, atol=1e-4)
