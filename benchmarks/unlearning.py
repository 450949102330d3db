"""What each method costs, beside retraining from scratch, on digits."""

from collections.abc import Iterator

from benchmarks.measure import Fact, skipped
from unlearnkit.cases.digits import digits
from unlearnkit.catalog import methods
from unlearnkit.core.errors import UnlearnkitError
from unlearnkit.core.request import Classes
from unlearnkit.oracles import train_original
from unlearnkit.unlearning import unlearn


def run() -> Iterator[Fact]:
    """Yield the row passes and the seconds of each method at its defaults, over retraining's."""
    case = digits()
    model = train_original(case).model
    retrain = unlearn(model, case, Classes(3), "retrain")
    for name in methods():
        if name == "retrain":
            continue
        what = f"{name} against retraining: digits, class 3"
        try:
            done = unlearn(model, case, Classes(3), name)
        except UnlearnkitError as e:
            yield skipped(what, str(e))
            continue
        yield Fact(f"row passes of {what}", done.cost.work / retrain.cost.work, how="defaults")
        yield Fact(
            f"seconds of {what}",
            done.seconds / retrain.seconds,
            how=f"defaults, one run, {done.seconds:.2f} s against {retrain.seconds:.2f} s",
        )
