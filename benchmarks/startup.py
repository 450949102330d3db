"""How soon the first word of help is there."""

import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec

from benchmarks.measure import Fact, seconds, skipped

HELP_GOAL = 0.5
REPEATS = 5


def run() -> Iterator[Fact]:
    """Yield wall times of fresh processes, an empty one first."""
    yield timed("an empty Python process", ["-c", "pass"])
    yield timed("import unlearnkit", ["-c", "import unlearnkit"])
    if find_spec("unlearnkit.cli") is None:
        yield skipped("unlearnkit --help", "there is no command line")
        return
    yield timed("unlearnkit --help", ["-m", "unlearnkit", "--help"], HELP_GOAL)
    probe = (
        "import sys; from unlearnkit.cli import main\n"
        "sys.argv = ['unlearnkit', '--help']\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print('torch' in sys.modules)"
    )
    last = call(["-c", probe]).splitlines()[-1]
    yield Fact("unlearnkit --help imports torch", float(last == "True"), "count", goal=0.0)


def timed(
    what: str,
    arguments: list[str],
    goal: float | None = None,
    *,
    env: Mapping[str, str] | None = None,
    first: Callable[[], object] = lambda: None,
) -> Fact:
    """Return the median wall time of a process; ``first`` is done before each, and not timed."""
    call(arguments, env)
    times = []
    for _ in range(REPEATS):
        first()
        times.append(seconds(lambda: call(arguments, env)))
    low, middle, high = statistics.quantiles(times, n=4)
    return Fact(what, middle, "s", low, high, goal, f"{REPEATS} processes, files cached")


def call(arguments: list[str], env: Mapping[str, str] | None = None) -> str:
    """Run Python with these arguments, and more in its environment, and return what it prints."""
    words, place = [sys.executable, *arguments], {**os.environ, **(env or {})}
    return subprocess.run(words, check=True, capture_output=True, text=True, env=place).stdout
