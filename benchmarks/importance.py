"""The cost of measuring what each parameter matters, beside one training epoch."""

from collections.abc import Iterator

from benchmarks.measure import Fact, against
from benchmarks.problems import RECIPE, images
from unlearnkit.catalog import methods
from unlearnkit.core.data import View
from unlearnkit.core.request import Rows
from unlearnkit.core.runtime import Runtime
from unlearnkit.linalg.fisher import squared_gradients
from unlearnkit.train.loop import fit
from unlearnkit.unlearning.run_method import fresh_model, run_method

ROWS = 4000
GOAL = 1.3


def run() -> Iterator[Fact]:
    """Yield ``ssd`` on all rows, and the two units of importance, over an epoch's time."""
    case, rt = images(ROWS), Runtime()
    model = fresh_model(case, rt)
    view = case.partition(Rows(range(ROWS // 10))).retain
    assert view is not None
    whole = View.all(view.data)
    once = RECIPE.model_copy(update={"epochs": 1})

    def epoch() -> None:
        fit(fresh_model(case, rt), whole, case.task, once, rt, stream="epoch")

    how = f"{ROWS} rows, batch {RECIPE.batch_size}"
    for preset, words in (("reference", "as published (unit batch, all rows)"), (None, "default")):
        ssd = methods()["ssd"].build(preset)
        yield against(
            f"ssd, {words}, against one training epoch: {case.name}",
            lambda ssd=ssd: run_method(model, case, Rows(range(ROWS // 10)), ssd),
            epoch,
            pairs=5,
            goal=GOAL,
            how=how,
        )
    for unit in ("batch", "row"):
        size = RECIPE.batch_size if unit == "batch" else 64

        def importance(unit: str = unit, size: int = size) -> None:
            squared_gradients(model, whole, case.task, rt, unit=unit, batch_size=size)

        yield against(
            f"squared gradients, unit {unit}, against one training epoch: {case.name}",
            importance,
            epoch,
            pairs=5,
            how=f"{ROWS} rows, batch {size}",
        )
