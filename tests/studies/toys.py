"""Cases that train in a blink, and a method that fails; named by studies as module:function."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

import torch

from unlearnkit.cache import Cache
from unlearnkit.core.case import Case
from unlearnkit.core.recipe import Recipe
from unlearnkit.store import Store
from unlearnkit.studies.execution.run_study import run
from unlearnkit.studies.spec import make_study
from unlearnkit.studies.tuning.search import tune
from unlearnkit.tasks.classification import Classification
from unlearnkit.tasks.regression import Regression
from unlearnkit.testing import toy_case

HERE = "tests.studies.toys"


def toy() -> Case:
    """Three clouds."""
    case = toy_case(Classification(3))
    return case.replace(recipe=case.recipe.model_copy(update={"epochs": 2}))


def slow_toy() -> Case:
    """Three clouds, and enough steps for shares of them to differ in cost."""
    return toy_case(Classification(3))


def same_toy() -> Case:
    """The same three clouds by another name."""
    return toy()


def other_rows() -> Case:
    """Three clouds elsewhere."""
    return toy_case(Classification(3), 1).replace(recipe=toy().recipe)


def other_recipe() -> Case:
    """Three clouds, trained for longer."""
    return toy().replace(recipe=Recipe(lr=0.05, epochs=3, batch_size=16))


def other_test() -> Case:
    """Three clouds, tested on other rows."""
    return toy().replace(test=other_rows().test)


def other_network() -> Case:
    """Three clouds and a wider network."""
    wide = lambda: torch.nn.Sequential(torch.nn.Linear(6, 20), torch.nn.Linear(20, 3))  # noqa: E731
    return toy().replace(fresh=wide)


def line() -> Case:
    """A regression."""
    return toy_case(Regression())


CALLS = iter(range(1000))


def restless() -> Case:
    """Other rows at each call."""
    return toy_case(Classification(3), next(CALLS)).replace(recipe=toy().recipe)


def deadly() -> Case:
    """Three clouds; on demand, a process that trains on them dies as if memory had run out."""

    def fresh() -> torch.nn.Module:
        if os.environ.get("UNLEARNKIT_TOY_DIES") and multiprocessing.parent_process():
            os.kill(os.getpid(), signal.SIGKILL)
        return torch.nn.Linear(6, 3)

    return toy().replace(fresh=fresh)


def busy() -> Case:
    """Three clouds; on demand, a worker process names itself and is then busy for long."""

    def fresh() -> torch.nn.Module:
        told = os.environ.get("UNLEARNKIT_TOY_BUSY")
        if told and multiprocessing.parent_process():
            with Path(told).open("w") as pipe:
                pipe.write(f"{os.getpid()}\n")
            end = time.monotonic() + 30
            while time.monotonic() < end:
                torch.ones(50, 50) @ torch.ones(50, 50)
        return torch.nn.Linear(6, 3)

    return toy().replace(fresh=fresh)


def homesick() -> Case:
    """Three clouds; any process but the one that the environment names dies of them."""

    def fresh() -> torch.nn.Module:
        if os.getpid() != int(os.environ["UNLEARNKIT_TOY_HOME"]):
            os.kill(os.getpid(), signal.SIGKILL)
        return torch.nn.Linear(6, 3)

    return toy().replace(fresh=fresh)


def work(study: dict[str, object], store: Path, cache: Path) -> None:
    """Carry out a study in this process."""
    torch.set_num_threads(1)
    with Store(store) as kept:
        run(make_study(study), kept, Cache(cache))


def search(study: dict[str, object], store: Path, cache: Path) -> None:
    """Tune a study's methods in this process."""
    torch.set_num_threads(1)
    with Store(store) as kept:
        tune(make_study(study), kept, Cache(cache))
