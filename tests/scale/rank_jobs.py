"""What the two processes of a test compute, and one process for comparison."""

import os
import signal
import socket
import sys
import tempfile
import warnings
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import unlearnkit as uk
from unlearnkit import catalog
from unlearnkit.core.data import TensorData, View
from unlearnkit.core.errors import UnlearnkitError
from unlearnkit.core.inference import predict
from unlearnkit.core.module_state import tensors
from unlearnkit.core.recipe import Recipe
from unlearnkit.core.runtime import Runtime
from unlearnkit.linalg.curvature_products import curvature_product
from unlearnkit.linalg.ekfac import EkFac
from unlearnkit.linalg.fisher import squared_gradients
from unlearnkit.linalg.input_moments import InputMoments
from unlearnkit.linalg.loss_gradient import summed_gradient
from unlearnkit.localize.criteria import gradients
from unlearnkit.report.store_rows import report_measurements
from unlearnkit.testing.subject import ToyProblem
from unlearnkit.testing.toy_cases import toy_case
from unlearnkit.train.loop import descend, fit
from unlearnkit.train.rng_guard import seeded_global_rngs
from unlearnkit.train.shared_run import join_ranks

SAMPLE = (
    ("finetune", "causal_lm"),
    ("neggrad_plus", "classification"),
    ("scrub", "classification"),
    ("l1_sparse", "regression"),
    ("ssd", "classification"),
    ("jit", "classification"),
    ("fed_eraser", "classification"),
    ("datamodel_matching", "classification"),
    ("retrain", "multilabel"),
)
"""One method of each way to compute; all of them are in the exhaustive test."""

DIVIDED = {"rows": 0}
"""How many rows the model of ``seen_rows`` was run on in this process."""


class Images(nn.Module):
    """A convolution with batch normalisation, dropout of values and of channels."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.channels = nn.Dropout2d(0.2)
        self.drop = nn.Dropout(0.3)
        self.last = nn.Linear(4 * 16, 3)

    def forward(self, x):
        DIVIDED["rows"] += len(x)
        return self.last(self.drop(self.channels(self.norm(self.conv(x))).relu().flatten(1)))


def images(rows=37):
    g = torch.Generator().manual_seed(5)
    x = torch.randn(rows, 1, 6, 6, generator=g, dtype=torch.float64)
    return View.all(TensorData(x, torch.randint(0, 3, (rows,), generator=g)))


def seeded(build, seed=3):
    with seeded_global_rngs(Runtime(seed=seed)):
        return build().double()


def state(model):
    return {n: t.detach().clone() for n, t in tensors(model).items()}


def layers():
    """Train with batch normalisation and dropout; 37 rows in batches of 8 leave 5."""
    model, rt, task = seeded(Images), Runtime(), uk.Classification(3)
    recipe = Recipe(lr=0.1, momentum=0.9, epochs=2, batch_size=8, clip_norm=1.0)
    with join_ranks("test"), seeded_global_rngs(rt):
        DIVIDED["rows"] = 0
        curve = fit(model, images(), task, recipe, rt, stream="test")
        rows = DIVIDED["rows"]
        out = predict(model, images(), task, rt)
    told = {"curve": torch.tensor(curve), "out": out, "cost": torch.tensor(rt.cost.forward)}
    return state(model) | told, rows


def coupled_loss():
    """Minimise what no mean over rows is: distances of all pairs, a scalar, and a penalty."""
    model, rt, task = seeded(Images).eval(), Runtime(), uk.Classification(3)
    recipe = Recipe(lr=1e-3, epochs=2, batch_size=7)

    def loss(batch):
        out = task.outputs(model, batch)
        penalty = sum(p.abs().sum() for p in model.parameters())
        return torch.cdist(out + 1, out).square().sum() / 99 + out.logsumexp(0).sum() + penalty / 9

    with join_ranks("test"), seeded_global_rngs(rt):
        descend(model, images(), loss, recipe, rt, stream="test", norm="frozen")
    return state(model)


def statistics():
    """Sum over rows: Fisher diagonals, gradients, products, moments, EK-FAC."""
    net = seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(36, 5), nn.Tanh(), nn.Linear(5, 3)))
    view, task, rt = images(), uk.Classification(3), Runtime()
    step = {n: torch.ones_like(p) for n, p in net.named_parameters()}
    found = {}
    with join_ranks("test"):
        for unit in ("row", "batch"):
            found |= named(unit, squared_gradients(net, view, task, rt, unit=unit, batch_size=10))
        found |= named("gradient", summed_gradient(net, view, task, rt, batch_size=10))
        found |= named("product", curvature_product(net, view, task, rt, step, batch_size=10))
        found |= named("moments", InputMoments.measure(net, view, task, rt, batch_size=10).products)
        for how in ("absolute", "signed"):
            found |= named(how, gradients(net, [view], task, rt, batch_size=10, accumulate=how))
        curvature = EkFac.measure(net, view, task, rt, probes=None)
        found |= named("ekfac", {n: b.values.abs() for n, b in curvature.blocks.items()})
    found["cost"] = torch.tensor([rt.cost.forward, rt.cost.backward])
    return found


def named(prefix, parts):
    return {f"{prefix}/{n}": t.detach().clone() for n, t in parts.items()}


def methods(which):
    """Unlearn the toy problem of each method; the text of the error where there is one."""
    found = {}
    for name, task in which:
        s = ToyProblem(catalog.methods()[name], task)
        try:
            done = uk.unlearn(s.model(), s.case, s.asking(s.request), s.smoke())
            found[name, task] = state(done.model)
        except UnlearnkitError as e:
            found[name, task] = str(e)
    return found


def sharded_weights():
    """Train a model whose weights torch spreads over the ranks (FSDP2)."""
    net = seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(36, 5), nn.Tanh(), nn.Linear(5, 3)))
    if dist.is_initialized():
        fully_shard(net, mesh=init_device_mesh("cpu", (2,)))
    task = uk.Classification(3)
    recipe = Recipe(lr=0.1, momentum=0.9, epochs=2, batch_size=8, clip_norm=0.5)

    def loss(batch):
        return task.losses(task.outputs(net, batch), batch)

    with join_ranks("test"):
        descend(net, images(), loss, recipe, Runtime(), stream="test")
    whole = {n: p.detach() for n, p in net.named_parameters()}
    return {n: p.full_tensor() if hasattr(p, "full_tensor") else p for n, p in whole.items()}


def audited():
    """Unlearn, retrain and audit; return all numbers of the report."""
    case = toy_case(uk.Classification(3))
    model = uk.train_original(case).model
    done = uk.unlearn(model, case, uk.Rows(*range(11)), "finetune")
    truth = uk.oracle(case, uk.Rows(*range(11)), seeds=3)
    report = uk.audit(done, oracle=truth, recipe_check=False, placebo=False)
    rows = [m for m in report_measurements(report) if m.value is not None]
    return {f"{m.metric} {m.who}": m.value for m in rows}, report.verdict


def told(call):
    try:
        call()
    except UnlearnkitError as e:
        return f"{type(e).__name__}: {e}"
    return "nothing"


def unlearn_toy(case, request=None):
    return uk.unlearn(seeded(case.fresh).float(), case, request or uk.Rows(*range(11)), "finetune")


def mistakes(rank):
    """Make each mistake on rank 1, or on both; return what each process is told."""
    case = toy_case(uk.Classification(3))
    other = case.replace(train=replace(case.train, x=case.train.x + rank))
    seen = {"other data": told(lambda: unlearn_toy(other))}
    seen["other request"] = told(lambda: unlearn_toy(case, uk.Rows(*range(11 + rank))))
    broken = case.replace(recipe=case.recipe.model_copy(update={"augment": Fails()}))
    seen["error on one"] = told(lambda: unlearn_toy(broken))
    tiny = case.replace(recipe=case.recipe.model_copy(update={"batch_size": 1}))
    seen["tiny batches"] = told(lambda: unlearn_toy(tiny))
    seen["drawing layer"] = told(draws)
    seen["then"] = told(lambda: unlearn_toy(case))
    return seen


class Fails:
    """An augmentation that raises on rank 1, as a file that only rank 0 can read would."""

    def __call__(self, x, rng):
        if dist.get_rank() == 1:
            raise FileNotFoundError(2, "No such file or directory", "/only/on/rank0")
        return x


class Noisy(nn.Module):
    def __init__(self):
        super().__init__()
        self.last = nn.Linear(36, 3)

    def forward(self, x):
        return self.last(x.flatten(1) + torch.rand_like(x.flatten(1)))


def draws():
    with join_ranks("test"):
        recipe = Recipe(lr=0.1, epochs=1, batch_size=8)
        fit(seeded(Noisy), images(), uk.Classification(3), recipe, Runtime(), stream="t")


def killed(rank):
    """End rank 1 at its first step; return what rank 0 is told, and after how long."""
    model = seeded(Images)

    def loss(batch):
        if rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return model(batch.x).square().sum()

    def run():
        with join_ranks("unlearn"):
            descend(
                model, images(), loss, Recipe(lr=0.1, epochs=1, batch_size=8), Runtime(), stream="t"
            )

    return told(run)


def work(rank, port, folder, which):
    """Carry out all jobs as one of two ranks; write what was found."""
    warnings.simplefilter("default")  # not those of the test that forked this process
    torch.set_num_threads(1)
    os.environ["UNLEARNKIT_CACHE"] = str(Path(folder) / f"cache{rank}")
    os.environ["UNLEARNKIT_RANK_TIMEOUT"] = "60"
    dist.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2,
        timeout=timedelta(seconds=60),
    )  # fmt: skip
    found = {"methods": methods(which)}
    if which == SAMPLE:
        for job in (layers, coupled_loss, statistics, sharded_weights, audited):
            found[job.__name__] = job()
        found["mistakes"] = mistakes(rank)
    torch.save(found, Path(folder) / f"{rank}.pt")
    if which == SAMPLE:
        torch.save(killed(rank), Path(folder) / "killed.pt")


def table(folder):
    """Yield a line for each method and task: how far two processes are from one, and their rows."""
    every = tuple((i, t) for i, c in catalog.methods().items() for t in sorted(c.info.tasks))
    first, second = (found["methods"] for found in run_on_two(folder, every))
    alone = methods(every)
    for which in every:
        got, want = first[which], alone[which]
        if isinstance(got, str):
            yield f"| `{which[0]}` | {which[1]} | refused: {got} | |"
            continue
        far = max(_far(got[n], t) for n, t in want.items() if t.numel())
        same = all(torch.equal(t, second[which][n]) for n, t in got.items())
        told = "equal on both" if same else "**not equal**"
        yield f"| `{which[0]}` | {which[1]} | {far:.0e} | {told} |"


def _far(got, want):
    return float((got - want).abs().max() / want.abs().max().clamp(min=1e-12))


def run_on_two(folder, which):
    """Return what each of two processes found, by job."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = torch.multiprocessing.get_context("fork")  # all is imported already
    both = [context.Process(target=work, args=(r, port, str(folder), which)) for r in range(2)]
    for p in both:
        p.start()
    for p in both:
        p.join()
    return [torch.load(Path(folder) / f"{r}.pt", weights_only=False) for r in range(2)]


if __name__ == "__main__":
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        sys.stdout.write("\n".join(table(place)) + "\n")
