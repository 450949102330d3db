"""Report: what an audit found, to be printed, saved and loaded."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from unlearnkit.core.errors import InputError
from unlearnkit.core.files import read_text, write_bytes
from unlearnkit.report.schema import ReportData

_MOST = 256 * 2**20
"""Most bytes of a report that is read."""


class Report(ReportData):
    """What an audit found: verdict, next steps, summary, the full table and all behind it."""

    def __str__(self) -> str:
        from unlearnkit.report.render_text import render_brief  # late: it loads torch

        return render_brief(self)

    def full(self) -> str:
        """Return the whole report as text; ``str`` gives verdict, next steps and summary."""
        from unlearnkit.report.render_text import render_text  # late: it loads torch

        return render_text(self)

    def save(self, path: str | Path) -> Path:
        """Write the report as a page (``.html``), as data (``.json``) or as text (``.txt``).

        Args:
            path: Where; the suffix sets the format. The file appears whole or not at all.

        Returns:
            The path; another suffix, or a place that cannot be written, is an ``InputError``.
        """
        path = Path(path)
        return write_bytes(path, self.content(path))

    def content(self, path: Path) -> bytes:
        """Return what ``save`` writes to a path.

        Args:
            path: Its suffix sets the format.

        Returns:
            The content of the file.

        Raises:
            InputError: If the suffix is not .html, .json or .txt.
        """
        if path.suffix == ".json":
            return self.model_dump_json(indent=1).encode()
        if path.suffix == ".txt":
            return f"{self.full()}\n".encode()
        if path.suffix == ".html":
            from unlearnkit.report.render_html import render_page  # late: it loads torch

            return render_page(self).encode()
        raise InputError(f"report: ends in .html, .json or .txt, got {path.name!r}")

    @classmethod
    def load(cls, path: str | Path) -> Report:
        """Read a report that was saved as JSON.

        Args:
            path: The file.

        Returns:
            The report.

        Raises:
            InputError: If the file is missing or holds no report of this version.
        """
        text = read_text(Path(path), "report", most=_MOST)
        try:
            return cls.model_validate_json(text)
        except ValidationError as e:
            if any(x["loc"] == ("schema_version",) for x in e.errors()):
                raise InputError(
                    f"report: {str(path)!r} was written by another version of unlearnkit; audit the"
                    " run again: unlearnkit audit FOLDER"
                ) from None
            raise InputError(
                f"report: {str(path)!r} is no report: {e.error_count()} fields are wrong"
            ) from None
