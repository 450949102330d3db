"""Signals drawn from laws that are known, with models that differ as a whole."""

import torch

from unlearnkit.auditing.strong.margin_store import MarginMatrix, Membership, ModelId

SECTIONS = dict.fromkeys(("forget", "retain", "held_out", "population", "test"), 20)


def planted(seed=0, models=64, shift=0.0, memory=2.0, spread=1.0, sections=SECTIONS):
    """Margins of retrained models; forgotten rows of unlearned ones are shifted and spread.

    Shifts are in deviations over retrained models; ``memory`` is that of the originals.
    """
    rng = torch.Generator().manual_seed(seed)
    width = sum(sections.values())
    centre = 3.0 + torch.randn(width, generator=rng, dtype=torch.float64)
    wide = 0.5 + torch.rand(width, generator=rng, dtype=torch.float64)
    forgotten = torch.arange(width) < sections["forget"]

    def draw(by, times=1.0):
        own = torch.randn(models, width, generator=rng, dtype=torch.float64)
        whole = torch.randn(models, 1, generator=rng, dtype=torch.float64)
        noise = (own + 0.5 * whole) / 1.25**0.5
        noise = torch.where(forgotten, by + times * noise, noise)
        return centre + wide * noise

    kinds = {
        "original": draw(memory),
        "unlearned": draw(shift, spread),
        "oracle": draw(0.0),
        "floor": draw(0.0),
    }
    margins = torch.cat(list(kinds.values()))
    members = tuple(ModelId(who, i) for who in kinds for i in range(models))
    columns, start = {}, 0
    for name, count in sections.items():
        columns[name] = torch.arange(start, start + count)
        start += count
    return MarginMatrix(
        margins,
        torch.full(margins.shape, int(Membership.OUT), dtype=torch.uint8),
        (margins < 0).float(),
        members,
        columns,
    )


def seated(signals, margins, errors=None, kind="unlearned"):
    """The same signals with other margins ``(m, E)`` of the models of a kind."""
    keep = [i for i, m in enumerate(signals.members) if m.who != kind]
    wrong = (margins < 0).float() if errors is None else errors
    return MarginMatrix(
        torch.cat([signals.margins[keep], margins]),
        torch.cat([signals.codes[keep], torch.zeros(margins.shape, dtype=torch.uint8)]),
        torch.cat([signals.errors[keep], wrong]),
        (
            *(signals.members[i] for i in keep),
            *(ModelId(kind, i) for i in range(len(margins))),
        ),
        signals.columns,
    )


def everything(signals, who):
    """What models of a kind say about all examples: margins and errors ``(m, E)``."""
    rows = [i for i, m in enumerate(signals.members) if m.who == who]
    return signals.margins[rows].clone(), signals.errors[rows].clone()
