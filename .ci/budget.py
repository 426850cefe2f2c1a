"""Counts the lines and files of src/mindtrace and fails when they exceed their limits."""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

LIMIT_LINES = 21_812
LIMIT_FILES = 123

SOURCE = Path(__file__).parents[1] / "src" / "mindtrace"
REST = "rest"  # the files that stand in no package
# Lines of each package; REST is errors.py, system.py, progress.py and the like.
TARGETS = {
    "cli": 1800,
    "application": 3200,
    "service": 1400,
    "jobs": 950,
    "registry": 2800,
    "training": 800,
    "data": 1500,
    "models": 350,
    "bundle": 500,
    "preprocess.py": 350,
    "config": 700,
    "utils": 130,
}
PAGE_LINES, PAGE_FILES = 1900, 12  # application/static
LONG, SHORT = 450, 60


def count(path: Path) -> int:
    """Lines of a file, as `wc -l` counts them."""
    return path.read_bytes().count(b"\n")


def package(path: Path) -> str:
    """Which line of the table a file belongs to."""
    first = path.relative_to(SOURCE).parts[0]
    return first if first in TARGETS or not first.endswith(".py") else REST


def table(lines: dict[Path, int]) -> list[str]:
    """Each package, the page, the total and what is unusually long or short."""
    rows = [f"{'package':<16}{'files':>6}{'lines':>8}{'target':>8}"]
    others = {package(path) for path in lines} - set(TARGETS) - {REST}
    for name in [*TARGETS, *sorted(others), REST]:
        counts = [number for path, number in lines.items() if package(path) == name]
        rows.append(f"{name:<16}{len(counts):>6}{sum(counts):>8}{TARGETS.get(name, '-'):>8}")
    page = [count(path) for path in (SOURCE / "application/static").rglob("*") if path.is_file()]
    rows.append(f"{'page':<16}{len(page):>6}{sum(page):>8}{PAGE_LINES:>8} in {PAGE_FILES} files")
    rows.append(f"{'total':<16}{len(lines):>6}{sum(lines.values()):>8}{LIMIT_LINES:>8} at most")
    short = sum(number < SHORT for number in lines.values())
    median = statistics.median(lines.values())
    rows.append(f"a file has {median:.0f} lines in the median; {short} have under {SHORT}")
    for path, number in lines.items():
        if number > LONG:
            rows.append(f"over {LONG} lines: {path.relative_to(SOURCE)} has {number}")
    return rows


def main() -> int:
    """Print the table; exit code 1 if there are more lines or files than the limits."""
    lines = {path: count(path) for path in sorted(SOURCE.rglob("*.py"))}
    sys.stdout.write("\n".join(table(lines)) + "\n")
    if sum(lines.values()) > LIMIT_LINES or len(lines) > LIMIT_FILES:
        sys.stderr.write(f"error: more than {LIMIT_LINES} lines or {LIMIT_FILES} files\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
