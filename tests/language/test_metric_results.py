import json
import math

import pytest

from unlearnkit.core.errors import InputError
from unlearnkit.language.metric_results import (
    MetricResult,
    read_metric_results,
    write_metric_results,
)

PUBLIC = {
    "forget_Q_A_Prob": {
        "agg_value": 0.25,
        "value_by_index": {"0": {"prob": 0.5, "avg_loss": 0.69}, "1": {"prob": 0.0}},
    },
    "forget_quality": {"agg_value": 1e-23},
    "privleak": {"agg_value": None},
}


def test_a_public_file_is_read(tmp_path):
    (tmp_path / "TOFU_EVAL.json").write_text(json.dumps(PUBLIC))
    found = read_metric_results(tmp_path / "TOFU_EVAL.json")
    assert found["forget_Q_A_Prob"].value_by_index["0"]["prob"] == 0.5
    assert found["forget_quality"].agg_value == 1e-23
    assert found["privleak"].agg_value is None


def test_what_is_read_is_written_as_it_was(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(PUBLIC))
    write_metric_results(tmp_path / "b.json", read_metric_results(path))
    assert json.loads((tmp_path / "b.json").read_text()) == PUBLIC


def test_the_name_in_the_public_documents_is_read_as_well(tmp_path):
    (tmp_path / "a.json").write_text('{"m": {"agg_value": 1, "values_by_index": {"0": {"x": 2}}}}')
    assert read_metric_results(tmp_path / "a.json")["m"].value_by_index == {"0": {"x": 2}}


def test_other_entries_are_kept(tmp_path):
    (tmp_path / "a.json").write_text('{"m": {"agg_value": 1, "fpr": [0, 1]}}')
    write_metric_results(tmp_path / "b.json", read_metric_results(tmp_path / "a.json"))
    assert json.loads((tmp_path / "b.json").read_text()) == {"m": {"agg_value": 1, "fpr": [0, 1]}}


def test_what_is_not_finite_becomes_null(tmp_path):
    result = MetricResult(agg_value=math.nan, value_by_index={"0": {"x": [math.inf, 1.0]}})
    write_metric_results(tmp_path / "a.json", {"m": result})
    content = json.loads((tmp_path / "a.json").read_text())
    assert content == {"m": {"agg_value": None, "value_by_index": {"0": {"x": [None, 1.0]}}}}


@pytest.mark.parametrize("text", ["nonsense", "[1]", '{"m": 3}', '{"m": {"agg_value": "much"}}'])
def test_another_file_is_refused_in_one_line(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match="metric results") as e:
        read_metric_results(tmp_path / "a.json")
    assert "\n" not in str(e.value)
