"""State on disk: survives a restart and a kill, and is refused by any other model."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.linear.problems import KINDS, METHODS, made, model, sparse, weights
from unlearnkit.core.errors import InputError
from unlearnkit.linear import RemovalBudget

BUDGET = RemovalBudget(
    epsilon=1, delta=1e-4, sigma=5, perturbation="objective", noise=3, row_norm=1
)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS)
def test_a_restarted_model_goes_on_as_if_nothing_had_happened(kind, method, tmp_path):
    x, y = made(kind)
    whole = model(kind, method=method).fit(x, y)
    whole.unlearn(rows=[1, 2])
    whole.unlearn(labels={5: y[6] if y[6] != y[5] else y[np.argmax(y != y[5])]})
    whole.unlearn(features=[0])
    whole.save(tmp_path)
    again = model(kind, method=method).load(tmp_path)
    assert np.array_equal(weights(again), weights(whole))
    assert again.certificate() == whole.certificate()
    assert np.array_equal(again.predict(x), whole.predict(x))
    again.attach(x, y)
    assert again.gradient_residual_norm() == pytest.approx(
        whole.gradient_residual_norm(), rel=1e-6, abs=1e-12
    )
    for m in (whole, again):
        m.unlearn(rows=[9])
    np.testing.assert_allclose(weights(again), weights(whole), rtol=1e-12, atol=1e-14)
    with pytest.raises(InputError, match="row 2 is removed already"):
        again.unlearn(rows=[2])


def test_noise_and_account_survive_a_restart(tmp_path):
    x, y = made("logistic")
    done = model("logistic", fit_intercept=False, budget=BUDGET).fit(x, y)
    done.unlearn(rows=[4], save_to=tmp_path)
    again = model("logistic", fit_intercept=False, budget=BUDGET).load(tmp_path).attach(x, y)
    assert again.gradient_residual_norm() == pytest.approx(done.gradient_residual_norm(), abs=1e-12)
    assert again.unlearn(rows=[8]).budget_spent == done.unlearn(rows=[8]).budget_spent


def test_sparse_data_with_names_of_classes_survive(tmp_path):
    x, y = made("multinomial")
    names = np.array(["ash", "birch", "cedar"])[y]
    done = model("multinomial").fit(sparse(x), names)
    done.save(tmp_path)
    again = model("multinomial").load(tmp_path).attach(sparse(x), names)
    assert list(again.predict(x)) == list(done.predict(x))
    assert again.unlearn(rows=[3]).rows == 1


def test_a_state_of_another_model_is_refused(tmp_path):
    x, y = made("logistic")
    model("logistic", 2.0).fit(x, y).save(tmp_path)
    with pytest.raises(InputError, match=r"another model: alpha is 2\.0 there and 1\.0 here"):
        model("logistic", 1.0).load(tmp_path)
    with pytest.raises(InputError, match="another model: class is RemovableLogistic"):
        model("hinge", 2.0).load(tmp_path)


def test_other_data_are_refused(tmp_path):
    x, y = made("logistic")
    model("logistic").fit(x, y).save(tmp_path)
    again = model("logistic").load(tmp_path)
    with pytest.raises(InputError, match="reads the training rows, which the model does not have"):
        again.unlearn(features=[1])
    x[0, 0] += 1e-9
    with pytest.raises(InputError, match="not the data that the model was fitted on"):
        again.attach(x, y)
    with pytest.raises(InputError, match="not the data that the model was fitted on"):
        again.attach(x[:, :3], np.where(y == 1, "yes", "no"))
    assert list(again.classes_) == [0, 1]
    assert again.n_features_in_ == 6


def test_a_damaged_state_is_refused(tmp_path):
    x, y = made("logistic")
    model("logistic").fit(x, y).save(tmp_path)
    (file,) = tmp_path.glob("*.safetensors")
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(InputError, match="is not what was saved"):
        model("logistic").load(tmp_path)
    (tmp_path / "state.json").write_text("{}")
    with pytest.raises(InputError, match="is no state of a linear model"):
        model("logistic").load(tmp_path)


def test_the_state_holds_no_training_row(tmp_path):
    x, y = made("logistic", rows=50)
    model("logistic", method="newton_step").fit(x, y).save(tmp_path)
    content = b"".join(p.read_bytes() for p in tmp_path.iterdir())
    assert all(row.tobytes() not in content for row in x)
    assert len(list(tmp_path.iterdir())) == 2


CHILD = """
import sys
from pathlib import Path
from tests.linear.problems import made, model
x, y = made("logistic")
done = model("logistic", method="newton_step").fit(x, y)
for row in range(len(y)):
    done.unlearn(rows=[row], save_to=sys.argv[1])
"""


@pytest.mark.slow
def test_a_kill_leaves_a_state_between_two_requests(tmp_path):
    root = Path(__file__).parents[2]
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": f"{root / 'src'}{os.pathsep}{root}"},
    )
    try:
        while not (tmp_path / "state.json").exists():
            assert child.poll() is None
            time.sleep(0.002)
        time.sleep(0.02)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    x, y = made("logistic")
    found = model("logistic", method="newton_step").load(tmp_path)
    count = found.certificate().rows
    want = model("logistic", method="newton_step").fit(x, y)
    for row in range(count):
        want.unlearn(rows=[row])
    assert count > 0
    assert np.array_equal(weights(found), weights(want))
    assert found.unlearn(rows=[count], X=x[[count]], y=y[[count]]).rows == count + 1
