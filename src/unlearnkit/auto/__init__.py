"""Automatic choice of a method: table, candidates, fast audits."""
