"""Evidence statement: exact, certified or empirical, with all that it rests on."""

from typing import Literal

from pydantic import Field

from unlearnkit.core.checked import FrozenModel

EvidenceKind = Literal["exact", "certified", "empirical"]


class EvidenceStatement(FrozenModel):
    """One kind of evidence on an unlearned model; kinds are never mixed in one statement."""

    kind: EvidenceKind
    """``exact``: trained without the removed rows, or equal to that up to rounding; ``certified``:
    a proven bound on the difference from retraining; ``empirical``: what an audit measured."""

    statement: str
    """What holds, in one sentence."""

    assumptions: tuple[str, ...] = ()
    """All that it rests on; if one fails, the statement says nothing."""

    source: str
    """What gave it: a method with its settings, or an audit."""

    numbers: dict[str, float | None] = Field(default_factory=dict)
    """Numbers of a certificate by name: epsilon, delta, budget; None where it has none."""

    notes: tuple[str, ...] = ()
    """What a reader should know of this request."""
