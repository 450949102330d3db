"""Choosing a method: a written table, a look at what is there, an audit after each try."""
