"""Documents: texts by name, read from files."""

from __future__ import annotations

import glob
from dataclasses import dataclass
from pathlib import Path

from unlearnkit.core.errors import InputError


@dataclass(frozen=True)
class Documents:
    """Texts with a name each. In a case the name is the owner of all rows made from the text."""

    texts: tuple[str, ...]
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.texts) != len(self.names) or not self.texts:
            raise InputError(
                f"documents: got {len(self.texts)} texts and {len(self.names)} names; give one"
                " name a text, and at least one"
            )
        twice = next((n for i, n in enumerate(self.names) if n in self.names[:i]), None)
        if twice is not None:
            raise InputError(f"documents: two are called {twice!r}; give each a name of its own")

    def __len__(self) -> int:
        return len(self.texts)

    @classmethod
    def from_files(cls, *patterns: str | Path, encoding: str = "utf-8") -> Documents:
        """Return the texts of files; a document's name is its path as it was found.

        Args:
            *patterns: Files, or patterns such as ``docs/*.txt``.
            encoding: Of all files.

        Returns:
            The documents, in order of their names.

        Raises:
            InputError: If a pattern matches no file, or a file is no text.
        """
        found: set[str] = set()
        for pattern in map(str, patterns):
            here = [p for p in glob.glob(pattern, recursive=True) if Path(p).is_file()]  # noqa: PTH207  # patterns may be absolute
            if not here:
                raise InputError(f"documents: {pattern!r} matches no file; check the path")
            found.update(here)
        names = tuple(sorted(found))
        return cls(tuple(_read(Path(name), encoding) for name in names), names)


def _read(path: Path, encoding: str) -> str:
    try:
        return path.read_text(encoding)
    except UnicodeDecodeError as e:
        raise InputError(
            f"documents: {str(path)!r} is no {encoding} text (byte {e.start}); give encoding= or"
            " convert the file"
        ) from None
