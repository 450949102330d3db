"""Command ``doctor``: what is installed, where things are, and what is missing."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from unlearnkit.cli.options import Json

PACKAGE = "unlearnkit"
OLDEST = (3, 11)
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    part: str
    name: str
    value: str
    state: Literal["ok", "missing", "wrong"]
    """``wrong`` keeps the library from working; ``missing`` is something that you may not need."""

    action: str = ""


def doctor(json: Json = False) -> None:
    """Show versions, folders and extras, and what is missing.

    Exit 1 where something is wrong: Python or a package that every command needs is missing or too
    old, the cache cannot be written, or UNLEARNKIT_DATA names no folder. A missing extra, browser
    or accelerator is not wrong. Nothing heavy is imported.
    """
    from unlearnkit.cli.console import print_json, print_table

    found = list(checks())
    wrong = [c for c in found if c.state == "wrong"]
    if json:
        print_json({"healthy": not wrong, "checks": [asdict(c) for c in found]})
    else:
        head = ("part", "name", "state", "value", "action")
        print_table(head, [(c.part, c.name, c.state, c.value, c.action) for c in found])
    if wrong:
        sys.exit(1)


def checks() -> Iterator[Check]:
    """Yield everything that is looked at, without an import of a heavy package."""
    from unlearnkit.core.version import NUMERICS, __version__

    old = sys.version_info[:2] < OLDEST
    yield Check("versions", PACKAGE, f"{__version__}, numerics {NUMERICS}", "ok")
    yield Check(
        "versions", "python", platform.python_version(), "wrong" if old else "ok",
        "install Python 3.11 or newer" if old else "",
    )  # fmt: skip
    needs = list(_needs())
    yield from (_package(name, bounds) for name, bounds, extra in needs if not extra)
    yield from _devices()
    yield from _threads()
    yield from _cache()
    yield _data()
    browser = next((b for b in BROWSERS if shutil.which(b)), None)
    yield Check(
        "browser", "chromium", shutil.which(browser) or "" if browser else "",
        "ok" if browser else "missing",
        "" if browser else "only the tests of pages need it: install chromium",
    )  # fmt: skip
    for extra in sorted({extra for _, _, extra in needs if extra}):
        yield _extra(extra, [(n, b) for n, b, e in needs if e == extra])


def _needs() -> Iterator[tuple[str, str, str]]:
    """Yield name, bounds and extra of each package that this one asks for."""
    from packaging.requirements import Requirement

    try:
        found = metadata.distribution(PACKAGE)
    except metadata.PackageNotFoundError:  # run from its source, without an installation
        return
    extras = ["", *(found.metadata.get_all("Provides-Extra") or ())]
    for need in map(Requirement, found.requires or ()):
        wanted = [e for e in extras if need.marker is None or need.marker.evaluate({"extra": e})]
        if "" in wanted:
            wanted = [""]
        yield from ((need.name, str(need.specifier), extra) for extra in wanted)


def fits(version: str, bounds: str) -> bool:
    """Return whether a version is within bounds such as ``>=2.6,<3``; pre-releases may be."""
    from packaging.specifiers import SpecifierSet
    from packaging.version import Version

    return SpecifierSet(bounds).contains(Version(version).public, prereleases=True)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _package(name: str, bounds: str) -> Check:
    version = _version(name)
    if version is not None and fits(version, bounds):
        return Check("packages", name, version, "ok")
    value = "not installed" if version is None else f"{version}, needed: {bounds}"
    return Check("packages", name, value, "wrong", f"pip install '{name}{bounds}'")


def _extra(name: str, needs: list[tuple[str, str]]) -> Check:
    lacking = []
    for package, bounds in needs:
        version = _version(package)
        if version is None:
            lacking.append(package)
        elif not fits(version, bounds):
            lacking.append(f"{package} ({version}, needed: {bounds})")
    if not lacking:
        return Check("extras", name, ", ".join(p for p, _ in needs), "ok")
    return Check(
        "extras", name, f"lacks {', '.join(lacking)}", "missing", f"pip install '{PACKAGE}[{name}]'"
    )


def _devices() -> Iterator[Check]:
    """Yield the graphics processors that the system names, and whether torch is built for them."""
    folder = Path("/proc/driver/nvidia/gpus")
    cards = len(list(folder.iterdir())) if folder.is_dir() else 0
    torch = _version("torch") or ""
    build = torch.partition("+")[2]
    if cards and build == "cpu":
        yield Check(
            "devices", "cuda", f"{cards} NVIDIA, but torch {torch} is built without CUDA",
            "missing", "pip install torch from PyTorch's index for your CUDA version",
        )  # fmt: skip
    elif cards:
        yield Check("devices", "cuda", f"{cards} NVIDIA, torch {torch}", "ok")
    elif sys.platform == "darwin" and platform.machine() == "arm64":
        yield Check("devices", "mps", "Apple processor", "ok")
    else:
        yield Check("devices", "cpu", "no accelerator was found; device=cpu works", "ok")


def _threads() -> Iterator[Check]:
    """Yield processors that this process may use, and what limits threads."""
    try:
        usable = len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        usable = os.cpu_count() or 1
    yield Check("threads", "processors", f"{usable} of {os.cpu_count()}", "ok")
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        yield Check("threads", name, os.environ.get(name, "not set: all processors"), "ok")


def _cache() -> Iterator[Check]:
    """Yield where the cache is, whether it can be written, its size and the room that is left."""
    from unlearnkit.core.cache_folder import default_root
    from unlearnkit.core.errors import InputError

    try:
        root = default_root()
    except InputError as e:
        yield Check("cache", "folder", "none", "wrong", str(e))
        return
    there = next(p for p in (root.absolute(), *root.absolute().parents) if p.exists())
    free = shutil.disk_usage(there).free
    writable = there.is_dir() and os.access(there, os.W_OK | os.X_OK)
    yield Check(
        "cache", "folder", str(root), "ok" if writable else "wrong",
        "" if writable else f"{there} cannot be written: set UNLEARNKIT_CACHE to another folder",
    )  # fmt: skip
    sizes = list(_sizes(root))
    yield Check(
        "cache", "size", f"{sum(sizes):,} bytes in {len(sizes):,} files", "ok",
        "unlearnkit cache prune removes what was not used lately" if sizes else "",
    )  # fmt: skip
    yield Check(
        "cache", "room", f"{free:,} bytes", "ok" if free else "wrong", "" if free else "free space"
    )


def _sizes(root: Path) -> Iterator[int]:
    """Yield the bytes of each file below a folder; others may remove files meanwhile."""
    for path in root.rglob("*") if root.is_dir() else ():
        with suppress(OSError):
            if path.is_file():
                yield path.stat().st_size


def _data() -> Check:
    named = os.environ.get("UNLEARNKIT_DATA")
    if not named:
        why = "cases on larger real data need it: a folder with one for each data set"
        return Check("data", "UNLEARNKIT_DATA", "not set", "missing", why)
    if not Path(named).is_dir():
        why = "name a folder, or unset it"
        return Check("data", "UNLEARNKIT_DATA", f"{named}: no folder", "wrong", why)
    sets = sorted(p.name for p in Path(named).iterdir() if p.is_dir())
    return Check("data", "UNLEARNKIT_DATA", f"{named}: {', '.join(sets) or 'empty'}", "ok")
