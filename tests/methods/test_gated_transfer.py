"""Gated transfer: closed forms, what it may touch, and what it reaches without any data."""

import math

import pytest
import torch
from torch import nn

import unlearnkit as uk
from unlearnkit.cases.digits import digits
from unlearnkit.checkpoint import load_weights, save_weights
from unlearnkit.core.data import View
from unlearnkit.core.errors import InputError, UnsupportedError
from unlearnkit.core.inference import predict
from unlearnkit.core.method import Problem
from unlearnkit.core.recipe import ASSUMED
from unlearnkit.core.runtime import Runtime
from unlearnkit.methods.gated_transfer import _Run, transfer
from unlearnkit.oracles import train_original
from unlearnkit.tasks.classification import Classification
from unlearnkit.tasks.regression import Regression
from unlearnkit.testing import toy_case
from unlearnkit.train.data_free.generator import generator

K = 5
QUICK = {"batches": 3, "batch_size": 8, "student_steps": 2, "look": 1}


def small_conv():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, 2, 1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, K),
    )


def perceptron(width=12):
    return nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, K))


def seeded(build, seed=0):
    net, g = build(), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for w in net.parameters():
            w.copy_(torch.randn(w.shape, generator=g))
    return net


def nothing(build=perceptron, shape=(6,)):
    return uk.Case.without_data(task=Classification(K), input_shape=shape, fresh=build)


def quick(**settings):
    return uk.method("gated_transfer", **{**QUICK, **settings})


def problem(teacher, student, gone=(0,), shape=(6,)):
    none = View.all(uk.Case(train=(torch.zeros(2, 1), [0, 1]), task="classification").train)
    copies = iter([student, perceptron()])
    return Problem(
        model=teacher,
        original=teacher,
        task=Classification(K),
        forget=none.seal("no rows"),
        retain=none.seal("no rows"),
        validation=None,
        recipe=ASSUMED,
        removed_classes=gone,
        input_shape=shape,
        build=lambda: next(copies),
    )


def test_a_student_equal_to_its_teacher_has_nothing_to_learn():
    teacher, twin = seeded(perceptron), seeded(perceptron)
    before = {n: t.clone() for n, t in twin.state_dict().items()}
    made = generator((6,), Runtime(), "g", width=8)
    how = quick(gate="sample", threshold=1.0)
    transfer(how, problem(teacher, twin), made, Runtime())
    # Adam moves by signs: gradients of rounding errors are moved along, those of 0 are not
    moved = max(float((t - before[n]).abs().max()) for n, t in twin.state_dict().items())
    assert moved <= 6 * how.student_lr
    assert float(run_distance(teacher, twin)) < 1e-4


def run_distance(teacher, student):
    x = torch.randn(50, 6, generator=torch.Generator().manual_seed(3))
    return Classification(K).divergence(student(x), teacher(x)).mean().detach()


def test_the_distance_is_the_mean_divergence_over_the_number_of_classes():
    g = torch.Generator().manual_seed(0)
    s, t = (torch.randn(9, K, generator=g, dtype=torch.float64) for _ in range(2))
    p, q = (t / 2).softmax(-1), (s / 2).softmax(-1)
    want = sum(float(a * math.log(a / b)) for a, b in zip(p.flatten(), q.flatten(), strict=True))
    made = generator((6,), Runtime(), "g", width=8)
    run = _Run(quick(temperature=2.0), problem(perceptron(), perceptron()), made, Runtime())
    assert float(run._distance(s, t)) == pytest.approx(want / 9 / K, rel=1e-9)


@pytest.mark.parametrize("gate", ["logit", "sample", "both"])
def test_the_teacher_stays_and_the_students_statistics_move(gate):
    teacher = seeded(small_conv).train()
    before = {n: t.clone() for n, t in teacher.state_dict().items()}
    case = nothing(small_conv, (1, 8, 8))
    done = uk.unlearn(teacher, case, "class=1", quick(gate=gate, threshold=0.9))
    assert all(torch.equal(t, before[n]) for n, t in teacher.state_dict().items())
    assert teacher.training
    assert not torch.equal(done.model[1].running_mean, torch.zeros(4))
    assert int(done.model[1].num_batches_tracked) > 0


def test_as_published_code_has_it_the_students_statistics_stay():
    done = uk.unlearn(
        seeded(small_conv), nothing(small_conv, (1, 8, 8)), "class=1", quick(norm="frozen")
    )
    assert torch.equal(done.model[1].running_mean, torch.zeros(4))


def test_equal_seeds_give_equal_students_and_others_others():
    results = [
        uk.unlearn(seeded(perceptron), nothing(), "class=1", quick(), Runtime(seed=s)).model[0]
        for s in (0, 0, 1)
    ]
    assert torch.equal(results[0].weight, results[1].weight)
    assert not torch.equal(results[0].weight, results[2].weight)


def test_a_student_may_be_of_another_architecture(tmp_path):
    case = nothing(lambda: perceptron(7))
    teacher = seeded(perceptron).half().eval()
    done = uk.unlearn(teacher, case, "class=1", quick(attention=0.0))
    assert done.model[0].weight.shape == (7, 6)
    assert done.original[0].weight.shape == (12, 6)
    assert not done.model.training
    path = save_weights(done.model, tmp_path / "student.safetensors")
    back = load_weights(case.fresh(), path)
    assert torch.equal(back[0].weight, done.model[0].weight)


@pytest.mark.parametrize("taps", [None, ("0",)])
def test_layers_are_found_or_named(taps):
    done = uk.unlearn(seeded(perceptron), nothing(), "class=1", quick(taps=taps))
    other = uk.unlearn(seeded(perceptron), nothing(), "class=1", quick(attention=0.0))
    assert not torch.equal(done.model[0].weight, other.model[0].weight)


def test_an_unknown_layer_is_told():
    with pytest.raises(InputError, match="no layer 'body'"):
        uk.unlearn(seeded(perceptron), nothing(), "class=1", quick(taps=("body",)))


def test_a_gate_that_never_opens_ends_with_the_histogram():
    teacher = seeded(perceptron)
    with torch.no_grad():
        teacher[2].bias[1] = 1e4
    how = quick(gate="sample", patience=2)
    with pytest.raises(InputError, match=r"held back 2 batches .* 0\.9 to 1: 16; raise"):
        uk.unlearn(teacher, nothing(), "class=1", how)


def test_a_generator_that_collapses_is_told_and_the_run_ends():
    made = generator((6,), Runtime(), "g", width=8)
    with torch.no_grad():
        made.body[-1].weight.zero_()
        made.body[-1].bias.fill_(1.0)
    rt = Runtime()
    how = quick(batches=50, generator_steps=0)
    transfer(how, problem(seeded(perceptron), perceptron()), made, rt)
    assert any("collapsed" in note and "1 of 50" in note for note in rt.notes)


@pytest.mark.parametrize(
    ("task", "request_", "told"),
    [
        (Regression(), "class=1", "classes of a classification"),
        (Classification(K), "class=0:5", "names 5 of 5 classes"),
        (Classification(K), "class=5", "class: 5 is not among 0 to 4"),
        (Classification(K + 1), "class=5", r"logits \(B, 6\) are needed"),
    ],
    ids=["regression", "all classes", "no such class", "not in the head"],
)
def test_what_cannot_be_forgotten_is_refused(task, request_, told):
    case = uk.Case.without_data(task=task, input_shape=(6,), fresh=perceptron)
    with pytest.raises((InputError, UnsupportedError), match=told):
        uk.unlearn(seeded(perceptron), case, request_, quick())


def test_an_input_shape_that_the_model_does_not_take_is_told():
    with pytest.raises(InputError, match="input_shape: the model does not take"):
        uk.unlearn(seeded(perceptron), nothing(shape=(7,)), "class=1", quick())


def test_rows_that_are_no_classes_are_refused():
    case = toy_case(Classification(3))
    with pytest.raises(UnsupportedError, match="gated_transfer needs whole classes"):
        uk.unlearn(case.fresh(), case, uk.Rows(0, 1), "gated_transfer")


@pytest.fixture(scope="module")
def trained():
    case = digits()
    return train_original(case).model, case


def accuracies(done, case):
    """Return the accuracy on retained and on forgotten test rows."""
    out, y = predict(done.model, View.all(case.test), case.task, Runtime()), case.test.y
    right, gone = (out.argmax(-1) == y).double(), y == 3
    return float(right[~gone].mean()), float(right[gone].mean())


def without(case):
    return uk.Case.without_data(task=case.task, input_shape=(64,), fresh=case.fresh)


@pytest.mark.slow
@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(s, marks=pytest.mark.exhaustive) for s in (1, 2))]
)
def test_on_digits_the_default_forgets_and_keeps_what_retraining_keeps(trained, seed):
    model, case = trained
    how = uk.method("gated_transfer", batches=80)
    done = uk.unlearn(model, without(case), "class=3", how, Runtime(seed=seed))
    stays, goes = accuracies(done, case)
    assert goes <= 0.05
    assert stays >= 0.92  # retraining: 0.967; at 200 pseudo-batches, the default, 0.967 to 0.971


def test_a_student_that_knows_the_class_from_the_start_is_told(trained):
    model, case = trained
    how = uk.method("gated_transfer", batches=60, look=30, gate="sample", threshold=1.0)
    done = uk.unlearn(model, without(case), "class=3", how)
    assert any("at the first look the student knew a forgotten class" in n for n in done.notes)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "least", "low", "high"),
    [
        ({"gate": "sample"}, 0.65, 0.0, 0.05),
        ({"gate": "both"}, 0.65, 0.0, 0.05),
        ({"gate": "sample", "threshold": 1.0, "leak": math.inf}, 0.65, 0.5, 1.0),
    ],
    ids=["sample gate", "both", "no gate"],
)
def test_on_digits_it_is_the_gate_that_forgets(trained, settings, least, low, high):
    model, case = trained
    how = uk.method("gated_transfer", batches=60, **settings)
    done = uk.unlearn(model, without(case), "class=3", how)
    stays, goes = accuracies(done, case)
    assert stays >= least
    assert low <= goes <= high
    assert any("of pseudo-inputs passed the gate" in note for note in done.notes)
