"""A table of image files: CSV or Parquet with path, label and optional split, group, weight."""

from __future__ import annotations

import csv
import math
import os
import shutil
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from mindtrace.config.urls import file_path, masked
from mindtrace.data.folder import FolderScan, ImageFolder, split_of
from mindtrace.data.split import STAGES, Stage
from mindtrace.errors import ConfigError, DataFolderError, Fault, UsageError, listed, nearest

_MOST = 100  # faults that are told
_AT_ONCE = 200  # files fetched together; each is open meanwhile


class ImageTable(ImageFolder):
    """The images that the rows of a CSV or Parquet file name, with their labels.

    Columns `path` (relative to the file, absolute, or a URL such as `s3://bucket/a.png` where
    fsspec and its package for it are installed) and `label`; optional `split` (train, val, test;
    what is missing is drawn), `group` (never parted) and `weight` (how often an epoch draws a
    training image, relative to the others). Images behind URLs are kept in `cache_dir`.

    Args:
        file: the table, `.csv` or `.parquet`.
        *arguments: of `ImageDataModule`.
        **options: of `ImageFolder`; `group` may name a column.
    """

    source = "table"

    def __init__(self, file: str | Path, *arguments: Any, **options: Any) -> None:
        super().__init__(file, *arguments, **options)
        self._listed: dict[str, _Row] = {}
        self._by_column = False

    def scan(self) -> FolderScan:
        """Read the table and find its files; ConfigError has every fault with its line."""
        columns, cells = _read(self.dir)
        column = "group" if self.group is None else self.group
        self._by_column = column in columns
        rows, faults = _checked(cells, column)
        paths = self._local([row.path for row in rows])
        lines: dict[str | None, int] = {}
        for row, path in zip(rows, paths, strict=True):
            if path is None or not Path(path).is_file():
                faults.append((row.line, f"no such file: {masked(row.path)}"))
            elif path in lines:
                faults.append((row.line, f"{masked(row.path)} is in line {lines[path]} already"))
            lines.setdefault(path, row.line)
        if faults:
            faults.sort()
            more = len(faults) - _MOST
            raise ConfigError(
                [Fault(str(self.dir), line, None, None, what) for line, what in faults[:_MOST]],
                hint=f"and {more:,} more faults" if more > 0 else "correct or remove these rows",
            )
        self._listed = dict(zip(map(str, paths), rows, strict=True))
        images: dict[Stage, dict[str, list[str]]] = {}
        given = [stage for stage in STAGES if any(row.split == stage for row in rows)]
        if not rows or "train" not in given:
            reason = f"has {listed(given)} but no train" if rows else "no rows"
            raise DataFolderError(self.dir, reason, hint="a row is an image: path, label")
        for stage in given:
            images[stage] = {}
            for path, row in sorted(self._listed.items(), key=lambda item: item[1].line):
                if row.split == stage:
                    images[stage].setdefault(row.label, []).append(path)
        names = tuple(sorted(images["train"]))
        if len(names) < 2:
            raise DataFolderError(self.dir, f"only one class, '{names[0]}'", hint="two are needed")
        return FolderScan(dict.fromkeys(given, self.dir), names, images, {}, ())

    def name_of(self, path: str) -> str:
        """The path as the table has it."""
        return masked(self._listed[path].path)

    def group_of(self, path: str) -> str | None:
        """The group that the table says, else what `[data] group` finds in the path."""
        return self._listed[path].group if self._by_column else super().group_of(path)

    def weight_of(self, path: str) -> float:
        """How often an epoch draws the image, relative to the others."""
        return self._listed[path].weight

    def _local(self, paths: Sequence[str]) -> list[str | None]:
        """Files on this machine; those behind URLs are fetched, None where that fails."""
        places = [file_path(path) if "://" in path else self.dir.parent / path for path in paths]
        remote = [path for path, place in zip(paths, places, strict=True) if place is None]
        fetched: dict[str, str | None] = {}
        if remote:
            self.progress.stage(f"fetching {len(remote):,} images")
            if (home := self.cache_dir) is None:
                home = Path(tempfile.mkdtemp(prefix="mindtrace-"))
                weakref.finalize(self, shutil.rmtree, home, ignore_errors=True)
            fetched = _fetched(remote, home / "remote")
        return [
            fetched[path] if place is None else os.path.normpath(place)
            for path, place in zip(paths, places, strict=True)
        ]


@dataclass(frozen=True)
class _Row:
    line: int
    path: str
    label: str
    split: str
    group: str | None
    weight: float


def _fetched(urls: Sequence[str], home: Path) -> dict[str, str | None]:
    """Copies of remote files, made anew where they changed; None for what cannot be had."""
    try:
        import fsspec

        def copies(some: Sequence[str]) -> list[str | None]:
            try:
                names = [f"filecache::{url}" for url in some]
                return list(fsspec.open_local(names, filecache=options))
            except OSError:  # at least one of them is not there
                return [None] if len(some) == 1 else [copies([url])[0] for url in some]

        options = {"cache_storage": str(home), "check_files": True, "expiry_time": False}
        paths: dict[str, str | None] = {}
        for _, group in groupby(urls, key=lambda url: url.partition("://")[0]):
            of_kind = list(group)
            for first in range(0, len(of_kind), _AT_ONCE):
                some = of_kind[first : first + _AT_ONCE]
                paths |= zip(some, copies(some), strict=True)
        return paths
    except (ImportError, ValueError) as error:
        raise UsageError(
            f"{masked(urls[0])}: {' '.join(str(error).split())}",
            hint="pip install fsspec, and its package for this kind of address (s3fs, gcsfs, ...)",
        ) from error


def _read(file: Path) -> tuple[Sequence[str], Sequence[tuple[int, Mapping[Any, Any]]]]:
    """The columns, and the rows by line; DataFolderError where there is no such table."""
    try:
        if file.suffix.lower() == ".parquet":
            from pyarrow import parquet

            table = parquet.read_table(file)
            columns, rows = table.column_names, list(enumerate(table.to_pylist(), 1))
        else:
            text = file.read_text(encoding="utf-8-sig").splitlines(keepends=True)
            head = text[0] if text else ""
            reader = csv.DictReader(text, delimiter=max(",;\t", key=head.count), strict=True)
            columns = [name.strip() for name in reader.fieldnames or ()]
            reader.fieldnames = columns
            rows = [(reader.line_num, row) for row in reader]
    except ImportError as error:
        raise DataFolderError(file, "Parquet needs pyarrow", hint="pip install pyarrow") from error
    except FileNotFoundError as error:
        raise DataFolderError(file, "no such file", hint="a .csv or .parquet file") from error
    except (OSError, ValueError, csv.Error) as error:
        reason = " ".join(str(error).split())
        raise DataFolderError(file, f"not a table: {reason}", hint="CSV or Parquet") from error
    for name in ("path", "label"):
        if name not in columns:
            close = nearest(name, columns)
            also = f", did you mean '{close}'?" if close else ""
            raise DataFolderError(
                file, f"no column '{name}'{also}", hint=f"its columns are {listed(columns)}"
            )
    return columns, rows


def _checked(
    rows: Sequence[tuple[int, Mapping[Any, Any]]], group: str
) -> tuple[list[_Row], list[tuple[int, str]]]:
    """The rows, and what is wrong with each by its line."""
    found: list[_Row] = []
    faults: list[tuple[int, str]] = []
    splits = False
    for line, cells in rows:
        row = {name: "" if value is None else str(value).strip() for name, value in cells.items()}
        if not any(row.values()):
            continue
        path, label, split = row["path"], row["label"], row.get("split", "")
        stage, weight = split_of(split) if split else "train", _weight(row.get("weight", ""))
        splits = splits or bool(split)
        wrong = {
            "more cells than columns": None in cells,
            "no path": not path,
            "no label": not label,
            f"split '{split}': must be train, val or test": stage is None,
            f"weight '{row.get('weight')}': must be a number above 0": weight is None,
        }
        faults += [(line, fault) for fault, holds in wrong.items() if holds]
        if not any(wrong.values()):
            own = row.get(group) or None
            found.append(_Row(line, path, label, str(stage) if split else "", own, weight or 1.0))
    if splits:
        faults += [(row.line, "no split, as other rows have") for row in found if not row.split]
        return found, faults
    return [_Row(**{**vars(row), "split": "train"}) for row in found], faults


def _weight(text: str) -> float | None:
    try:
        weight = float(text or 1)
    except ValueError:
        return None
    return weight if 0 < weight < math.inf else None
