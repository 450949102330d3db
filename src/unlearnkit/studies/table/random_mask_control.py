"""Whether choosing what may move did better than a random mask of the same budget."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from unlearnkit.studies.planning.run_spec import RunSpec
from unlearnkit.studies.table.captions import turned
from unlearnkit.studies.table_schema import MethodComparison, RandomMaskComparison


def against_chance(
    lines: Iterable[RunSpec], pairs: Sequence[MethodComparison]
) -> Iterator[RandomMaskComparison]:
    """Yield what each mask did beside its random one, on the same seeds.

    Args:
        lines: One run of each method of a forget set.
        pairs: Every two methods, compared by seed.

    Yields:
        The comparison by each metric that methods are paired by.
    """
    for run in lines:
        for pair in pairs:
            if run.chance and {pair.first, pair.second} == {run.label, run.chance}:
                yield _said(turned(pair, run.chance))


def _said(pair: MethodComparison) -> RandomMaskComparison:
    if pair.low is None or pair.high is None:
        return RandomMaskComparison(**dict(pair), word="too few seeds")
    if pair.high < 0:
        return RandomMaskComparison(**dict(pair), word="beats it")
    return RandomMaskComparison(
        **dict(pair), word="loses to it" if pair.low > 0 else "no difference shown"
    )
