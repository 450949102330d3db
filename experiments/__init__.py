"""Experiments: scripts that compare methods or audits. Run with ``python -m experiments NAME``."""
