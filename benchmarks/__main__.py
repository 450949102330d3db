"""Run benchmarks: ``python -m benchmarks [NAME ...] [--write]``.

With ``--write`` the sections of the benchmarks that ran take the place of their old ones on the
page, each as soon as it is measured; the others stay as they are, if they are of this machine.
"""

import argparse
import pkgutil
import re
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType

import benchmarks
from benchmarks.measure import Fact, machine

PAGE = Path(__file__).parent.parent / "docs" / "results" / "benchmarks.md"
TITLE = "Benchmarks"


def main() -> None:
    """Run what was asked for; print a line of JSON for each fact; write the page if asked."""
    import_module("unlearnkit.catalog").tasks()
    known = benchmark_modules()
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(known)}; or all")
    parser.add_argument(
        "--write", action="store_true", help=f"write {PAGE.parent.name}/{PAGE.name}"
    )
    asked = parser.parse_args()
    unknown = sorted(set(asked.names) - set(known))
    if unknown:
        parser.error(f"no benchmark {unknown[0]!r}; there are: {', '.join(known)}")
    titles = {name: first_line(module) for name, module in known.items()}
    held = sections(PAGE.read_text(encoding="utf-8")) if PAGE.exists() else {}
    if held.pop(TITLE, head()) != head():
        if asked.write and asked.names:
            parser.error("the page is of another machine or version; write all of it")
        held = {}
    for name in asked.names or known:
        held[titles[name]] = section(list(told(known[name].run())))
        if asked.write:
            PAGE.write_text(page({t: held[t] for t in titles.values() if t in held}), "utf-8")


def benchmark_modules() -> dict[str, ModuleType]:
    """Return the modules of this folder that have a function ``run`` of their own, by name."""
    names = sorted(m.name for m in pkgutil.iter_modules(benchmarks.__path__))
    modules = {n: import_module(f"benchmarks.{n}") for n in names if n != "__main__"}
    runs = {name: getattr(m, "run", None) for name, m in modules.items()}
    return {n: m for n, m in modules.items() if getattr(runs[n], "__module__", "") == m.__name__}


def told(facts: Iterator[Fact]) -> Iterator[Fact]:
    """Pass facts on and print them."""
    for fact in facts:
        print(fact.line(), flush=True)
        yield fact


def first_line(module: ModuleType) -> str:
    """Return what a benchmark says that it is."""
    return (module.__doc__ or module.__name__).strip().splitlines()[0].rstrip(".")


def sections(text: str) -> dict[str, str]:
    """Return the text under each heading of a page."""
    parts = (part.partition("\n") for part in re.split(r"^##? ", text, flags=re.MULTILINE)[1:])
    return {title: body.strip() for title, _, body in parts}


def head() -> str:
    """Return what stands under the title: how to read it, and the machine."""
    return "\n".join(
        [
            "Written by `python -m benchmarks --write`. Ratios are medians over pairs measured in"
            " turn in one run, with quartiles; the numerator is named first. Nothing here is a"
            " test.",
            "",
            *(f"- {key}: {value}" for key, value in machine().items()),
        ]
    )


def section(facts: list[Fact]) -> str:
    """Return a table of facts."""
    lines = ["| what | value | goal | how |", "|---|---|---|---|"]
    lines += [f"| {f.what} | {value(f)} | {goal(f)} | {f.how or f.skipped} |" for f in facts]
    return "\n".join(lines)


def page(held: Mapping[str, str]) -> str:
    """Return the page: the machine, then the section of each benchmark by its title."""
    parts = [f"# {TITLE}\n\n{head()}"]
    parts += [f"## {title}\n\n{text}" for title, text in held.items()]
    return "\n\n".join(parts) + "\n"


def value(fact: Fact) -> str:
    """Return the number with its unit and quartiles, or a dash."""
    if fact.value is None:
        return "not measured"
    unit = "" if fact.unit in {"ratio", "count"} else f" {fact.unit}"
    spread = "" if fact.low is None else f" ({fact.low:.3g} to {fact.high:.3g})"
    return f"{fact.value:.3g}{unit}{spread}"


def goal(fact: Fact) -> str:
    """Return the goal and whether it is met."""
    if fact.goal is None or fact.value is None:
        return ""
    return f"at most {fact.goal:g}: {'met' if fact.value <= fact.goal else '**missed**'}"


if __name__ == "__main__":
    main()
