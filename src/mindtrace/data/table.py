"""A table of image files: CSV or Parquet with path, label and optional split, group, weight."""

import csv
import math
import os
import shutil
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from mindtrace.config.urls import file_path, masked
from mindtrace.data import listing
from mindtrace.data.folder import ImageFolder
from mindtrace.data.listing import STAGES, ListedImage, Listing, Stage
from mindtrace.errors import ConfigError, DataFolderError, Fault, UsageError, listed, meant

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
        super().__init__(file, *arguments, **options)  # which calls it `dir`

    def listing(self) -> Listing:
        """Read the table and find its files; ConfigError has every fault with its line."""
        rows, faults = _checked(_read(self.dir), self.group)
        files = self._local([row.file for _, row in rows])
        lines: dict[str | None, int] = {}
        found: dict[Stage, dict[str, list[ListedImage]]] = {}
        for (line, row), file in zip(rows, files, strict=True):
            of_class = found.setdefault(row.stage, {}).setdefault(row.class_name, [])
            of_class.append(row._replace(file=str(file)))
            if file is None or not Path(file).is_file():
                faults.append((line, f"no such file: {row.name}"))
            elif file in lines:
                faults.append((line, f"{row.name} is in line {lines[file]} already"))
            lines.setdefault(file, line)
        if faults:
            faults.sort()
            more = len(faults) - _MOST
            raise ConfigError(
                [Fault(str(self.dir), line, None, None, what) for line, what in faults[:_MOST]],
                hint=f"and {more:,} more faults" if more > 0 else "correct or remove these rows",
            )
        classes = {stage: list(found[stage]) for stage in STAGES if stage in found}
        if "train" not in classes:
            reason = f"has {listed(list(classes))} but no train" if rows else "no rows"
            raise DataFolderError(self.dir, reason, hint="a row is an image: path, label")
        names = tuple(sorted(classes["train"]))
        if len(names) < 2:
            raise DataFolderError(self.dir, f"only one class, '{names[0]}'", hint="two are needed")
        images = [
            one for stage in classes for of_class in found[stage].values() for one in of_class
        ]
        fault = listing.foreign_class(self.dir, names, classes)
        return Listing(self.dir, names, classes, images, fault=fault)

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
        hint = "pip install fsspec, and its package for this kind of address (s3fs, gcsfs, ...)"
        raise UsageError(f"{masked(urls[0])}: {' '.join(str(error).split())}", hint=hint) from error


def _read(file: Path) -> Sequence[tuple[int, Mapping[Any, Any]]]:
    """The rows by line; DataFolderError where there is no such table."""
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
    except FileNotFoundError as error:
        raise DataFolderError(file, "no such file", hint="a .csv or .parquet file") from error
    except (OSError, ValueError, csv.Error) as error:
        reason = " ".join(str(error).split())
        raise DataFolderError(file, f"not a table: {reason}", hint="CSV or Parquet") from error
    for name in ("path", "label"):
        if name not in columns:
            reason = f"no column '{name}'{meant(name, columns)}"
            raise DataFolderError(file, reason, hint=f"its columns are {listed(columns)}")
    return rows


def _checked(
    rows: Sequence[tuple[int, Mapping[Any, Any]]], group: str | None
) -> tuple[list[tuple[int, ListedImage]], list[tuple[int, str]]]:
    """The images, and what is wrong with the rows, by line; files are as the table has them."""
    column = "group" if group is None else group
    texts = [
        (line, {name: "" if value is None else str(value).strip() for name, value in row.items()})
        for line, row in rows
    ]
    splits = any(row.get("split") for _, row in texts)
    found: list[tuple[int, ListedImage]] = []
    faults: list[tuple[int, str]] = []
    for line, row in texts:
        if not any(row.values()):
            continue
        split = row.get("split", "")
        weight = _weight(row.get("weight", ""))
        stage = listing.split_of(split) if splits else "train"
        wrong = {
            "more cells than columns": None in row,
            "no path": not row["path"],
            "no label": not row["label"],
            "no split, as other rows have": splits and not split,
            f"split '{split}': must be train, val or test": bool(split) and stage is None,
            f"weight '{row.get('weight')}': must be a number above 0": weight is None,
        }
        faults += [(line, fault) for fault, holds in wrong.items() if holds]
        if stage and weight and not any(wrong.values()):
            name = masked(row["path"])
            own = row[column] or None if column in row else listing.group_in(group, name)
            image = ListedImage(row["path"], name, stage, row["label"], own, weight)
            found.append((line, image))
    return found, faults


def _weight(text: str) -> float | None:
    try:
        weight = float(text or 1)
    except ValueError:
        return None
    return weight if 0 < weight < math.inf else None
