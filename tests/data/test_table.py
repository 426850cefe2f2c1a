"""`source = table` and `data.group`: what is read, what stays together, what is refused."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import fsspec
import pytest
from hypothesis import given, settings, strategies as st
from tests.data.conftest import png, write_images

from mindtrace.config.settings import load_settings
from mindtrace.data import ImageDataModule, ImageFolder, ImageTable
from mindtrace.data.check import check
from mindtrace.data.listing import STAGES
from mindtrace.errors import ConfigError, DataFolderError

Row = Mapping[str, Any]


def write(file: Path, rows: Sequence[Row], *, images: bool = True, delimiter: str = ",") -> Path:
    """The table, and an image of its own for each row."""
    file.parent.mkdir(parents=True, exist_ok=True)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, columns, delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    if images:
        write_images(file.parent, [(row["path"], number) for number, row in enumerate(rows)])
    return file


def pets(count: int = 60, **more: Any) -> list[dict[str, Any]]:
    return [
        {"path": f"photos/{n:04d}.png", "label": ("cat", "dog")[n % 2]}
        | {name: value(n) for name, value in more.items()}
        for n in range(count)
    ]


def placed(data: ImageDataModule) -> dict[str, str]:
    """The split of each path."""
    return {path: stage for stage in STAGES for path in data.split(stage).files or ()}


def test_two_thousand_rows_with_groups_and_splits(tmp_path: Path) -> None:
    def split(n: int) -> str:
        return ("train", "train", "train", "Validation", "TEST")[n // 10 % 5]

    rows = pets(2000, split=split, group=lambda n: f"patient {n // 10}", weight=lambda n: 1)
    data = ImageTable(write(tmp_path / "rows.csv", rows))
    assert data.digests().counts == {"train": 1200, "val": 400, "test": 400}
    assert set(data.made_by.values()) == {"user"} and data.notes == ()
    assert data.class_names == ("cat", "dog")
    found, _ = check(ImageTable(tmp_path / "rows.csv"))
    assert (found.images, found.leakage, found.group_leakage) == (2000, (), ())
    assert found.test_digest == data.digests().test_digest
    drawn = ImageTable(write(tmp_path / "drawn.csv", pets(2000, group=lambda n: f"{n // 10}")))
    assert set(drawn.made_by.values()) == {"mindtrace"}
    stages = placed(drawn)
    groups = {(n // 10, stages[row["path"]]) for n, row in enumerate(pets(2000))}
    assert len(groups) == 200, "no group is parted"
    shares = Counter(stages.values())
    assert shares["test"] / 2000 == pytest.approx(0.2, abs=0.1)


@pytest.mark.parametrize("kind", ["csv", "tsv", "semicolon", "parquet", "BOM", "blank lines"])
def test_kinds_of_tables(tmp_path: Path, kind: str) -> None:
    rows = pets(40, group=lambda n: "" if n % 4 else f"g{n // 8}", other=lambda n: 'a "b", c')
    expected = placed(ImageTable(write(tmp_path / "t.csv", rows)))
    file = tmp_path / "same.csv"
    if kind == "parquet":
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), file := tmp_path / "same.parquet")
    else:
        write(file, rows, delimiter={"tsv": "\t", "semicolon": ";"}.get(kind, ","))
    if kind == "BOM":
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    if kind == "blank lines":
        file.write_text(file.read_text().replace("\n", "\n\n") + ",,,\n\n")
    assert placed(ImageTable(file)) == expected


def test_paths_are_relative_to_the_table_absolute_or_urls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = fsspec.filesystem("memory")
    rows = pets(45)
    write(tmp_path / "a" / "t.csv", rows)
    for number, row in enumerate(rows):
        local = tmp_path / "a" / row["path"]
        if number % 3 == 1:
            row["path"] = (f"file://{local}", str(local))[number % 2]
        elif number % 3 == 2:
            row["path"] = f"memory://bucket{tmp_path}/{number}.png"
            files.pipe(row["path"], local.read_bytes())
            local.unlink()
    table = write(tmp_path / "a" / "t.csv", rows, images=False)
    home = tmp_path / "cache"
    data = ImageTable(table, cache_dir=home)
    assert placed(data).keys() == {row["path"] for row in rows}
    assert ImageTable(table).digests() == data.digests()
    url = next(row["path"] for row in rows if "memory" in row["path"])
    files.pipe(url, png(999))
    changed = ImageTable(table, cache_dir=home).digests()
    assert changed.data_digest != data.digests().data_digest, "a changed object is fetched anew"
    files.rm(url)
    with pytest.raises(ConfigError, match=f"no such file: {url}"):
        ImageTable(table, cache_dir=tmp_path / "other").setup()
    rows[0]["path"] = "nowhere9://bucket/a.png"
    with pytest.raises(Exception, match=r"nowhere9://bucket/a\.png: .*nowhere9"):
        ImageTable(write(table, rows, images=False)).setup()


def faults(file: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        ImageTable(file).setup()
    return [str(fault).removeprefix(f"{file}:") for fault in caught.value.faults]


def test_every_fault_has_its_line(tmp_path: Path) -> None:
    rows = pets(20, split=lambda n: STAGES[n % 3], weight=lambda n: n + 1)
    file = write(tmp_path / "t.csv", rows)
    rows[1]["path"] = "photos/gone.png"
    rows[2]["label"] = "  "
    rows[3]["split"] = "hold out"
    rows[4]["path"] = "./" + rows[0]["path"]
    rows[5]["weight"] = "-1"
    rows[6]["weight"] = "many"
    rows[7]["split"] = ""
    rows[8]["path"] = ""
    write(file, rows, images=False)
    with file.open("a") as out:
        out.write("photos/0009.png,cat,train,1,too,much\n")
    assert faults(file) == [
        "3: no such file: photos/gone.png",
        "4: no label",
        "5: split 'hold out': must be train, val or test",
        f"6: ./{rows[0]['path']} is in line 2 already",
        "7: weight '-1': must be a number above 0",
        "8: weight 'many': must be a number above 0",
        "9: no split, as other rows have",
        "10: no path",
        "22: more cells than columns",
    ]


def test_a_hundred_faults_are_told_at_most(tmp_path: Path) -> None:
    file = write(tmp_path / "t.csv", pets(250), images=False)
    with pytest.raises(ConfigError) as caught:
        ImageTable(file).setup()
    assert (len(caught.value.faults), caught.value.hint) == (100, "and 150 more faults")
    assert (caught.value.faults[99].line, str(caught.value).count("\n")) == (101, 99)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("file,label\na.png,x\n", "no column 'path'"),
        ("path,labels\na.png,x\n", "no column 'label', did you mean 'labels'"),
        ("", "no column 'path'"),
        ("path,label\n", "no rows"),
        ("path,label\n0.png,x\n1.png,x\n", "only one class, 'x'"),
        ("path,label,split\n0.png,x,test\n1.png,y,val\n", "has val, test but no train"),
        ("path,label,split\n0.png,x,train\n1.png,y,test\n2.png,z,train\n", "class y is in test"),
        ('path,label\n0.png,"x\n', "not a table"),
        ("path,label\n0.png,\udcff\n", "not a table"),
        (None, "no such file"),
    ],
    ids=str,
)
def test_what_is_no_table(tmp_path: Path, text: str | None, says: str) -> None:
    write_images(tmp_path, [(f"{number}.png", number) for number in range(3)])
    file = tmp_path / "t.csv"
    if text is not None:
        file.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(DataFolderError, match=re.escape(says)) as caught:
        ImageTable(file).setup()
    assert "\n" not in str(caught.value) and caught.value.hint


def test_weights_say_how_often_an_epoch_draws_an_image(tmp_path: Path) -> None:
    rows = pets(400, weight=lambda n: 9 if n % 2 else 1)
    data = ImageTable(write(tmp_path / "t.csv", rows))
    drawn = [int((y == 1).sum()) for _, y in data.train_dataloader()]
    assert sum(drawn) / len(data.train) == pytest.approx(0.9, abs=0.06)
    plain = ImageTable(write(tmp_path / "plain.csv", pets(400, weight=lambda n: 1)))
    assert plain.train.weights is None


def test_images_in_too_few_groups_are_not_split(tmp_path: Path) -> None:
    file = write(tmp_path / "t.csv", pets(60, group=lambda n: f"class {n % 2}"))
    with pytest.raises(DataFolderError, match="60 images and 2 groups are too few to split"):
        ImageTable(file).setup()


# -- groups


def test_a_pattern_keeps_what_it_finds_together(tmp_path: Path) -> None:
    write_images(tmp_path, [(f"{'ab'[n % 2]}/p{n // 6:02d}_{n}.png", n) for n in range(120)])
    for pattern in (r"p(\d+)_", r"p\d+", r"/(p..)"):
        stages = placed(ImageFolder(tmp_path, group=pattern))
        parts = {(path.split("/p")[1][:2], stage) for path, stage in stages.items()}
        assert len(parts) == 20 and len(stages) == 120, pattern
    some = ImageFolder(tmp_path, group=r"^a/p(\d+)")
    (note,) = [note for note in some.notes if "no group" in note]
    assert note.startswith("60 images have no group and are drawn alone: b/")
    none = ImageFolder(tmp_path, group="nothing")
    assert placed(none) == placed(ImageFolder(tmp_path))


@pytest.mark.parametrize("group", ["patient", None, r"photos/\d\d(\d)"])
def test_a_group_across_splits_that_the_user_made_is_a_leak(
    tmp_path: Path, group: str | None
) -> None:
    column = "patient" if group == "patient" else "group" if group is None else "other"
    more = {column: lambda n: f"p{n // 20}", "split": lambda n: "test" if n >= 75 else "train"}
    data = ImageTable(write(tmp_path / "t.csv", pets(100, **more)), group=group)
    found, _ = check(data)
    expected = {"p3"} if column != "other" else {"7"}
    assert {one.group for one in found.group_leakage} == expected
    assert len(found.group_leakage[0].images) == (20 if column != "other" else 10)
    drawn = pets(100, **{column: more[column]})
    assert check(ImageTable(write(tmp_path / "d.csv", drawn), group=group))[0].group_leakage == ()


@st.composite
def grouped(draw: st.DrawFn) -> list[list[tuple[int, int]]]:
    """Two states of one data set: numbers of images, and the groups, which stay."""
    moves = draw(st.lists(st.integers(0, 3), min_size=80, max_size=80))
    return [
        [(n, (n + moves[n]) % 31) for n in sorted(draw(st.sets(st.integers(0, 79), min_size=50)))]
        for _ in range(2)
    ]


@given(grouped(), st.integers(0, 1000))
@settings(max_examples=15)
def test_no_image_changes_its_split_while_its_group_stays(
    tmp_path_factory: pytest.TempPathFactory, states: list[list[tuple[int, int]]], seed: int
) -> None:
    """Though images of it come and go; but for groups that gave a split a class it lacked."""
    home, found = tmp_path_factory.mktemp("grouped"), []
    for state in states:
        rows = [{"path": f"{n}.png", "label": "ab"[n % 2], "group": f"g{own}"} for n, own in state]
        write_images(home, [(f"{number}.png", number) for number, _ in state])
        data = ImageTable(write(home / "t.csv", rows, images=False), split_seed=seed)
        groups, stages = {row["path"]: row["group"] for row in rows}, placed(data)
        split = {groups[path]: stage for path, stage in stages.items()}
        assert all(split[groups[path]] == stage for path, stage in stages.items())
        (note,) = [note for note in data.notes if note.startswith("moved")] or [""]
        for path in re.findall(r"\d+\.png", note):
            split.pop(groups[path], None)
        found.append(split)
    before, after = found
    assert all(before[group] == after[group] for group in before.keys() & after.keys())


def test_a_pattern_must_be_one() -> None:
    for wrong in ("p(", "*", "[a"):
        with pytest.raises(ConfigError, match="a regular expression"):
            load_settings(sets=[f"data.group={wrong}"])
