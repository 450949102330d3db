"""``python -m unlearnkit`` is the command ``unlearnkit``."""

from unlearnkit.cli import main

if __name__ == "__main__":  # processes of a study import this file too
    main()
