"""What surrounds a call changes no number, and a plug-in changes nothing that surrounds it."""

import pytest
import torch

import unlearnkit as uk
from unlearnkit.core.method import Info, Method, Need
from unlearnkit.core.runtime import Runtime
from unlearnkit.testing.subject import toy
from unlearnkit.unlearning.run_method import fresh_model

TOY = toy("classification")
AROUND = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
}


def net():
    return fresh_model(TOY, Runtime(seed=3))


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.values(), b.values(), strict=True))


@pytest.mark.parametrize("around", AROUND)
def test_unlearning_gives_the_same_bits_whatever_is_around_it(around):
    model = net()
    plain = uk.unlearn(model, TOY, "rows=0:8", "finetune").model.state_dict()
    with AROUND[around]():
        inside = uk.unlearn(model, TOY, "rows=0:8", "finetune").model.state_dict()
    assert same(plain, inside)


@pytest.mark.parametrize("around", AROUND)
def test_originals_oracles_and_audits_do_not_depend_on_what_is_around_them(around, tmp_path):
    def numbers(folder):
        cache = uk.Cache(folder)
        truth = uk.oracle(TOY, "rows=0:8", seeds=1, cache=cache)
        model = uk.train_original(TOY, cache=cache).model
        done = uk.unlearn(model, TOY, "rows=0:8", "finetune")
        report = uk.audit(done, oracle=truth)
        return truth.models[0].state_dict(), {r.metric: repr(r.estimate) for r in report.rows}

    weights, rows = numbers(tmp_path / "plain")
    with AROUND[around]():
        inside, found = numbers(tmp_path / "inside")
    assert same(weights, inside)
    assert rows == found


class Rude(Method):
    """Changes torch's settings and the rows that it is given."""

    id = "rude"
    info = Info(
        title="x",
        cite="x",
        needs=frozenset({Need.FORGET, Need.RETAIN, Need.LABELS}),
        tasks=frozenset({"classification"}),
    )

    def apply(self, p, rt):
        torch.set_num_threads(torch.get_num_threads() + 1)
        torch.set_default_dtype(torch.float64)
        torch.set_grad_enabled(False)
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.autograd.set_detect_anomaly(True)
        torch.set_float32_matmul_precision("medium")
        torch.backends.cudnn.benchmark = not torch.backends.cudnn.benchmark
        for view in (p.forget, p.retain):
            view.data.x.zero_()
            view.data.y.zero_()
            for batch in view.batches(4, rt):
                batch.x.fill_(7.0)
        with torch.no_grad():
            next(p.model.parameters()).add_(0.1)
        return p.model


def settings():
    return (
        torch.get_num_threads(),
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.is_anomaly_enabled(),
        torch.get_float32_matmul_precision(),
        torch.backends.cudnn.benchmark,
    )


def test_a_method_that_changes_torchs_settings_leaves_none_of_them_changed():
    before = settings()
    uk.unlearn(net(), TOY, "rows=0:8", Rude())
    assert settings() == before


def test_a_method_that_writes_into_its_rows_does_not_reach_the_users_data():
    x, y = TOY.train.x.clone(), TOY.train.y.clone()
    uk.unlearn(net(), TOY, "rows=0:8", Rude())
    assert torch.equal(TOY.train.x, x)
    assert torch.equal(TOY.train.y, y)
