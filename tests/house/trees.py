"""Syntax trees of our own files, each read once for all tests that look at them."""

import ast
from functools import cache


@cache
def tree(path):
    """Return the syntax tree of a file."""
    return ast.parse(path.read_text("utf-8"))


@cache
def nodes(path):
    """Return every node of a file."""
    return tuple(ast.walk(tree(path)))
