"""Random-mask control: methods under a mask against a random mask."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from unlearnkit.studies.planning.run_spec import RunSpec
from unlearnkit.studies.table.captions import with_second
from unlearnkit.studies.table_schema import MethodComparison, RandomMaskComparison


def compare_with_random_mask(
    lines: Iterable[RunSpec], pairs: Sequence[MethodComparison]
) -> Iterator[RandomMaskComparison]:
    """Yield each method under a mask against its random mask, on the same seeds."""
    for run in lines:
        for pair in pairs:
            if run.chance and {pair.first, pair.second} == {run.label, run.chance}:
                yield _said(with_second(pair, run.chance))


def _said(pair: MethodComparison) -> RandomMaskComparison:
    if pair.low is None or pair.high is None:
        return RandomMaskComparison(**dict(pair), word="too few seeds")
    if pair.high < 0:
        return RandomMaskComparison(**dict(pair), word="beats it")
    return RandomMaskComparison(
        **dict(pair), word="loses to it" if pair.low > 0 else "no difference shown"
    )
