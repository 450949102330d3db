import pickle

import pytest
import safetensors.torch
import torch
from torch import nn

from unlearnkit.checkpoint import load_weights, save_weights
from unlearnkit.core.errors import InputError


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 3, bias=False)
        self.last = nn.Linear(3, 3, bias=False)
        self.last.weight = self.first.weight


def net(width=4):
    return nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width), nn.Linear(width, 2))


def state(model):
    return {k: t.clone() for k, t in model.state_dict().items()}


def same(a, b):
    return list(a) == list(b) and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt", "ü and space/w.safetensors"])
def test_weights_come_back_as_they_were(tmp_path, name):
    model, other = net(), net()
    save_weights(model, tmp_path / name)
    assert same(state(load_weights(other, tmp_path / name)), state(model))


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
def test_tied_weights_come_back_and_stay_tied(tmp_path, name):
    model, other = Tied(), Tied()
    load_weights(other, save_weights(model, tmp_path / name))
    assert torch.equal(other.first.weight, model.first.weight)
    assert other.first.weight is other.last.weight


def test_a_file_that_names_a_tied_weight_once_is_enough(tmp_path):
    model, other = Tied(), Tied()
    safetensors.torch.save_file({"last.weight": model.last.weight.detach()}, tmp_path / "w.safetensors")
    load_weights(other, tmp_path / "w.safetensors")
    assert torch.equal(other.first.weight, model.first.weight)


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model"])
def test_a_training_scripts_wrapping_is_taken_off(tmp_path, key):
    model, other = net(), net()
    held = {f"module.{k}": t for k, t in model.state_dict().items()}
    torch.save({key: held, "epoch": 3}, tmp_path / "w.pt")
    assert same(state(load_weights(other, tmp_path / "w.pt")), state(model))


def test_half_precision_weights_fill_a_full_precision_model(tmp_path):
    model, other = net().half(), net()
    load_weights(other, save_weights(model, tmp_path / "w.safetensors"))
    assert torch.equal(other[0].weight, model[0].weight.float())


def test_saving_keeps_no_part_file(tmp_path):
    save_weights(net(), tmp_path / "w.safetensors")
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]


def test_an_unknown_ending_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"'w\.txt' must end in \.safetensors"):
        save_weights(net(), tmp_path / "w.txt")


def _wide(path):
    save_weights(net(5), path)


def _deeper(path):
    save_weights(nn.Sequential(*net(), nn.Linear(2, 2)), path)


def _shallow(path):
    save_weights(nn.Sequential(nn.Linear(3, 4)), path)


def _nan_at_the_end(path):
    model = net()
    model[2].bias.data[1] = float("nan")
    save_weights(model, path)


def _truncated(path):
    save_weights(net(), path)
    path.write_bytes(path.read_bytes()[:-20])


def _empty(path):
    path.write_bytes(b"")


def _absent(path):
    assert not path.exists()


BOTH = [
    (_wide, r"0\.weight has shape \(5, 3\), in the model \(4, 3\); .*another architecture"),
    (_deeper, r"3\.\w+, shape .*, is not in the model"),
    (_shallow, r"has no 1\.weight, which has shape \(4,\)"),
    (_nan_at_the_end, r"2\.bias has 1 of 2 values that are not finite"),
    (_truncated, "is damaged or no checkpoint"),
    (_empty, "is damaged or no checkpoint"),
    (_absent, "cannot read"),
]


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
@pytest.mark.parametrize(("make", "why"), BOTH, ids=[m.__name__ for m, _ in BOTH])
def test_a_bad_file_is_told_in_one_line_and_leaves_the_model_alone(tmp_path, make, why, name):
    make(tmp_path / name)
    model = net()
    before = state(model)
    with pytest.raises(InputError, match=why) as told:
        load_weights(model, tmp_path / name)
    assert "\n" not in str(told.value)
    assert same(state(model), before)


def _whole_model(path):
    torch.save(net(), path)


def _plain_pickle(path):
    path.write_bytes(pickle.dumps({"a": Tied}))


@pytest.mark.parametrize("make", [_whole_model, _plain_pickle])
def test_a_pickle_of_more_than_weights_is_refused_with_the_remedy(tmp_path, make):
    make(tmp_path / "w.pt")
    with pytest.raises(InputError, match=r"pickle .* convert it .*torch\.save"):
        load_weights(net(), tmp_path / "w.pt")


def test_a_torch_file_without_a_state_dict_is_refused(tmp_path):
    torch.save(torch.zeros(3), tmp_path / "w.pt")
    with pytest.raises(InputError, match=r"holds no state dict, got Tensor"):
        load_weights(net(), tmp_path / "w.pt")


def test_tied_weights_that_differ_in_the_file_are_refused(tmp_path):
    held = {"first.weight": torch.zeros(3, 3), "last.weight": torch.ones(3, 3)}
    safetensors.torch.save_file(held, tmp_path / "w.safetensors")
    with pytest.raises(InputError, match="one tensor in the model"):
        load_weights(Tied(), tmp_path / "w.safetensors")
