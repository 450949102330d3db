"""Command line of the experiments: ``python -m experiments NAME [OPTIONS]``.

Options after the name are those of the experiment; ``python -m experiments NAME --help`` lists
them.
"""

import argparse
import pkgutil
import sys
from importlib import import_module

import experiments


def main() -> None:
    """Run one experiment with the options after its name."""
    known = experiment_names()
    parser = argparse.ArgumentParser(prog="python -m experiments", description=__doc__)
    parser.add_argument("name", metavar="NAME", choices=known, help=f"of {', '.join(known)}")
    parser.add_argument("options", nargs=argparse.REMAINDER, help="options of the experiment")
    arguments = parser.parse_args()
    import_module("unlearnkit.catalog").tasks()
    sys.argv = [f"python -m experiments {arguments.name}", *arguments.options]
    import_module(f"experiments.{arguments.name}").main()


def experiment_names() -> list[str]:
    """Return the modules of this folder that have a function ``main``, by name."""
    names = sorted(m.name for m in pkgutil.iter_modules(experiments.__path__))
    modules = {n: import_module(f"experiments.{n}") for n in names if n != "__main__"}
    return [n for n, module in modules.items() if hasattr(module, "main")]


if __name__ == "__main__":
    main()
