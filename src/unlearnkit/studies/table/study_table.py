"""Study table: the table of a study, printed and saved in every format."""

from __future__ import annotations

from pathlib import Path

from unlearnkit.core.errors import InputError
from unlearnkit.core.files import write_rows, write_text
from unlearnkit.studies.table.study_text import render_text
from unlearnkit.studies.table_schema import TableData


class Table(TableData):
    """What a study has found so far, to be printed, or saved as a page, data or text."""

    def __str__(self) -> str:
        return render_text(self)

    def save(self, path: str | Path) -> Path:
        """Write the table as a page, as data or as text.

        Args:
            path: Ends in ``.html``, ``.json``, ``.txt``, ``.csv``, or ``.parquet``, which needs
                pandas and pyarrow. The file appears whole or not at all.

        Returns:
            The path.

        Raises:
            InputError: If the ending is another, or the place cannot be written.
        """
        path = Path(path)
        if path.suffix == ".json":
            return write_text(path, self.model_dump_json(indent=1) + "\n")
        if path.suffix == ".txt":
            return write_text(path, f"{self}\n")
        if path.suffix == ".html":
            from unlearnkit.studies.table.study_html import render  # late: it needs the extra

            return write_text(path, render(self))
        if path.suffix in {".csv", ".parquet"}:
            return write_rows(path, FIELDS, self.rows())
        raise InputError(f"study: ends in .html, .json, .txt, .csv or .parquet, got {path.name!r}")

    def rows(self) -> list[tuple[object, ...]]:
        """Return the table long: one row for each cell, with the names in ``FIELDS``."""
        found: list[tuple[object, ...]] = []
        columns = {c.id: c for c in self.columns}
        for block in self.blocks:
            oracle = next((n for n in block.lines if n.kind == "oracle"), None)
            for line in block.lines:
                for name, cell in line.cells.items():
                    truth = oracle.cells.get(name) if oracle else None
                    found.append(
                        (
                            *(self.study, self.design, block.case, block.request),
                            *(line.kind, line.label, line.method, line.preset),
                            *(name, columns[name].goal, columns[name].best, columns[name].unit),
                            *(cell.mean, cell.low, cell.high, cell.sd, cell.count, line.failed),
                            *((truth.mean, truth.sd, truth.count) if truth else (None, None, 0)),
                            *(cell.gap, cell.gap_low, cell.gap_high, cell.margin, cell.p),
                            cell.judgement,
                        )
                    )
        return found


FIELDS = (
    *("study", "design", "case", "request"),
    *("kind", "label", "method", "preset"),
    *("metric", "goal", "ideal", "unit"),
    *("mean", "low", "high", "sd", "count", "failed"),
    *("oracle_mean", "oracle_sd", "oracles"),
    *("gap", "gap_low", "gap_high", "margin", "p"),
    "judged",
)
"""Names of the columns of a table in CSV and Parquet."""
