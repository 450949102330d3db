"""Build hooks of the documentation site: pages made from files that are written elsewhere."""

import re
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]

FROM_ROOT = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
    "CITATION.cff": "citation.md",
    "LICENSE": "license.md",
}
"""Files of the repository's root and the pages that show them."""

TITLES = {"CITATION.cff": "How to cite", "LICENSE": "Licence"}
"""Titles of files that are no Markdown."""

WITHOUT_NAVIGATION = {"index.md", "cli.md"}
"""Pages without the list of their neighbours: one has none, the other needs the width."""

LINK = re.compile(r"\]\(([^)#\s]+)")
LISTED = re.compile(r"\[([^\]]+)\]\((\w+\.txt)\)")
NUMBERS = "---\nhide: [toc]\nsearch: {exclude: true}\n---\n\n"
"""Head of a page that is a table as text: it takes the whole width, and no search finds it."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Replace each folder in the navigation, such as ``methods/``, by its pages."""
    docs = Path(config.docs_dir)
    config.nav = _expanded(config.nav or [], docs)
    return config


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the pages of the root's files, and one for each table that is kept as text."""
    for source, page in FROM_ROOT.items():
        text = (ROOT / source).read_text("utf-8")
        content = _listing(TITLES[source], text) if source in TITLES else text
        files.append(File.generated(config, page, content=content))
    results = Path(config.docs_dir) / "results"
    for title, name in LISTED.findall((results / "index.md").read_text("utf-8")):
        content = NUMBERS + _listing(title, (results / name).read_text("utf-8"))
        page = f"results/{Path(name).stem}.md"
        files.append(File.generated(config, page, content=content))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links at the site's pages instead of the repository's files."""
    del config, files
    if page.file.src_uri in WITHOUT_NAVIGATION:
        page.meta["hide"] = ["navigation"]
    here = PurePosixPath(page.file.src_uri)
    from_root = str(here) in FROM_ROOT.values()
    return LINK.sub(lambda m: f"]({_target(m[1], here, from_root=from_root)}", markdown)


def _expanded(items: list[Any], docs: Path) -> list[Any]:
    """Return a part of the navigation with the pages of its folders, each index first."""
    found: list[Any] = []
    for item in items:
        if isinstance(item, dict):
            ((title, inner),) = item.items()
            found.append({title: _expanded(inner, docs) if isinstance(inner, list) else inner})
        elif item.endswith("/"):
            paths = [p for p in (docs / item).iterdir() if p.suffix in {".md", ".txt"}]
            names = {p.with_suffix(".md").name for p in paths}
            found += [item + n for n in sorted(names, key=lambda n: (n != "index.md", n))]
        else:
            found.append(item)
    return found


def _listing(title: str, text: str) -> str:
    return f"# {title}\n\n```text\n{text.rstrip()}\n```\n"


def _target(link: str, here: PurePosixPath, *, from_root: bool) -> str:
    """Return a link as the site needs it; links to other sites stay."""
    if ":" in link:
        return link
    if from_root:
        if link in FROM_ROOT:
            return FROM_ROOT[link]
        link = link.removeprefix("docs/")
    else:
        depth = len(here.parents)
        outside = link.removeprefix("../" * depth)
        if link.startswith("../" * depth) and outside in FROM_ROOT:
            return "../" * (depth - 1) + FROM_ROOT[outside]
    return re.sub(r"(?<=results/)(\w+)\.txt$|^(\w+)\.txt$", r"\1\2.md", link)
