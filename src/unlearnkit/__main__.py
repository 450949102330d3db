"""``python -m unlearnkit`` is the command ``unlearnkit``."""

from unlearnkit.cli import main

main()
