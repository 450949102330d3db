"""How many models strong audits take."""

LEAST = 4
"""Models of each kind: fewer say nothing at all."""

ENOUGH = 64
"""Models of each kind from which on single rows can be judged: half to fit, half to attack."""
