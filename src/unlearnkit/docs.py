"""Generated documents: ``python -m unlearnkit.docs`` writes or checks them."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from unlearnkit import catalog
from unlearnkit import describe as pages
from unlearnkit.cli.commands import app
from unlearnkit.core.errors import InputError, UnlearnkitError
from unlearnkit.core.files import write_text
from unlearnkit.json_schemas import schema_documents
from unlearnkit.reproduction import tables_markdown as reproductions_text

WIDTH = 100
_METHODS = "docs/methods"
COMPARED = "docs/results/over_finetuning.json"
"""What the experiment ``over_finetuning`` measured."""

BASELINE = "finetune"
"""The method that all others of that experiment stand next to."""


def build(readme: str, compared: Sequence[Mapping[str, Any]] = ()) -> dict[str, str]:
    """Return every generated document by path; the README between its markers is replaced.

    Args:
        readme: The README as it is.
        compared: Rows of ``COMPARED``, which go to the pages of their methods.

    Returns:
        The documents.
    """
    methods, metrics, cases = catalog.methods(), catalog.metrics(), catalog.cases()
    here, from_root = pages.tables(""), pages.tables(f"{_METHODS}/")
    found = {
        f"{_METHODS}/{i}.md": pages.method_page(m) + over_finetuning(i, compared)
        for i, m in methods.items()
    }
    found[f"{_METHODS}/index.md"] = f"# Methods\n\n{here['methods']}\n"
    found["docs/metrics.md"] = _list(
        "Metrics", here["metrics"], {i: pages.metric_section(m) for i, m in metrics.items()}
    )
    found["docs/cases.md"] = _list(
        "Cases", here["cases"], {i: pages.case_section(c) for i, c in cases.items()}
    )
    found["docs/auto.md"] = pages.auto_page()
    found["docs/verdicts.md"] = pages.verdict_page()
    found["docs/cli.md"] = _command_line()
    found["docs/results/reproductions.md"] = reproductions_text.page()
    found |= schema_documents()
    found["README.md"] = fill(readme, {"methods": from_root["methods"]})
    return found


def over_finetuning(method: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the section of a method's page with its rows next to those of plain fine-tuning.

    Args:
        method: Its id.
        rows: Of all methods.

    Returns:
        Markdown; empty where the method has no row.
    """
    mine = [r for r in rows if r["method"] == method]
    if not mine:
        return ""
    shown = []
    for one in mine:
        there = [r for r in rows if (r["setting"], r["method"]) == (one["setting"], BASELINE)]
        same = [r for r in there if r["schedule"] == one["schedule"]]
        shown += [one, *(r for r in same or there[:1] if r is not one)]
    next_to = "" if method == BASELINE else ", next to `finetune` on the same schedule"
    if not mine[0]["schedule"]:
        next_to = ", on a schedule of its own, next to `finetune`"
    return (
        f"\n## {'Measured' if method == BASELINE else 'What it adds to fine-tuning'}\n\n"
        f"At its defaults{next_to}. Memory: against the same method on models that never saw the"
        " forget set; likeness: against retrained models; both as U-LiRA AUC (0.5 is alike) and"
        " mean shift of margins in standard deviations. Cost: share of retraining's."
        " [All methods](../results/over_finetuning.md).\n\n"
        f"{compared_table(shown)}\n"
    )


def compared_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows of ``COMPARED`` as a Markdown table."""

    def attack(found: Mapping[str, float]) -> str:
        return f"{found['auc']:.3f} ({found['shift']:+.1f})"

    head = ("request", "method", "schedule", "memory", "likeness", "forget / retain / test", "cost")
    return pages.table(
        head,
        [
            (
                r["setting"],
                f"`{r['method']}`",
                "{lr:g} x, {share:g}".format(**r["schedule"]) if r["schedule"] else "its own",
                attack(r["memory"]),
                attack(r["likeness"]),
                " / ".join(f"{r[k]:.3f}" for k in ("forget", "retain", "test")),
                f"{r['cost']:.3f}",
            )
            for r in rows
        ],
    )


def fill(text: str, tables: Mapping[str, str]) -> str:
    """Return a text with what stands between ``<!-- name:begin -->`` and ``:end`` replaced."""
    for name, content in tables.items():
        begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
        head, opened, rest = text.partition(begin)
        _, closed, tail = rest.partition(end)
        if not (opened and closed):
            raise InputError(f"docs: README.md lacks the markers {begin} and {end}")
        text = f"{head}{begin}\n{content}\n{end}{tail}"
    return text


def differing(root: Path, built: Mapping[str, str]) -> list[str]:
    """Return the paths whose file is missing, different, or no longer generated, sorted."""
    wrong = [
        path
        for path, text in built.items()
        if not (root / path).is_file() or (root / path).read_text(encoding="utf-8") != text
    ]
    return sorted([*wrong, *_stale(root, built)])


def main(arguments: list[str], root: Path) -> int:
    """Write the documents, or with ``--check`` compare them; return the exit code."""
    if arguments not in ([], ["--check"]):
        raise InputError(f"docs: no arguments or --check, got {' '.join(arguments)}")
    readme = root / "README.md"
    if not readme.is_file():
        raise InputError("docs: no README.md here; run from a checkout of the repository")
    kept = root / COMPARED
    compared = json.loads(kept.read_text(encoding="utf-8"))["rows"] if kept.is_file() else []
    built = build(readme.read_text(encoding="utf-8"), compared)
    wrong = differing(root, built)
    if arguments:
        if wrong:
            print(f"out of date: {', '.join(wrong)}; run: make docs", file=sys.stderr)
        return 1 if wrong else 0
    for path in wrong:
        if path in built:
            write_text(root / path, built[path])
        else:
            (root / path).unlink()
        print(path)
    return 0


def _stale(root: Path, built: Mapping[str, str]) -> list[str]:
    there = (p.relative_to(root).as_posix() for p in (root / _METHODS).glob("*.md"))
    return [path for path in there if path not in built]


def _list(title: str, table: str, sections: Mapping[str, str]) -> str:
    parts = [f"# {title}\n\n{table}\n", *(f"## `{i}`\n\n{text}" for i, text in sections.items())]
    return "\n".join(parts)


def _command_line() -> str:
    blocks = [f"## {name}\n\n```text\n{text}\n```\n" for name, text in helps()]
    return "# Command line\n\n" + "\n".join(blocks)


def helps() -> Iterator[tuple[str, str]]:
    """Yield each command's full name and its printed help, at a fixed width."""
    yield from _helps(typer.main.get_command(app), "unlearnkit", None)


def _helps(command: Any, name: str, parent: Any) -> Iterator[tuple[str, str]]:
    with command.make_context(
        name.rpartition(" ")[2],
        [],
        parent=parent,
        resilient_parsing=True,
        terminal_width=WIDTH,
        max_content_width=WIDTH,
    ) as context:
        yield name, command.get_help(context).rstrip()
        for inner in getattr(command, "commands", {}).values():
            yield from _helps(inner, f"{name} {inner.name}", context)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:], Path.cwd()))
    except UnlearnkitError as e:
        sys.exit(f"unlearnkit: {e}")
