"""What each method costs, beside retraining from scratch, on digits."""

from collections.abc import Iterator
from functools import partial

from benchmarks.measure import Fact, against, skipped
from unlearnkit.cases.digits import digits
from unlearnkit.catalog import methods
from unlearnkit.core.errors import UnlearnkitError
from unlearnkit.core.request import Classes
from unlearnkit.oracles import train_original
from unlearnkit.unlearning.run_method import Unlearned, run_method


def run() -> Iterator[Fact]:
    """Yield the row passes and the seconds of each method at its defaults, over retraining's."""
    case = digits()
    model = train_original(case).model

    def done(name: str) -> Unlearned:
        return run_method(model, case, Classes(3), name)

    work = done("retrain").cost.work
    for name in sorted(set(methods()) - {"retrain"}):
        what = f"{name} against retraining: digits, class 3"
        try:
            spent = done(name).cost.work
        except UnlearnkitError as e:
            yield skipped(what, str(e))
            continue
        yield Fact(f"row passes of {what}", spent / work, how="defaults")
        yield against(
            f"seconds of {what}",
            partial(done, name),
            partial(done, "retrain"),
            pairs=3,
            how="defaults",
        )
