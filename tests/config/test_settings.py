"""Settings: defaults, precedence, substitution, paths, and what can be made of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from mindtrace.config.schema import Section
from mindtrace.config.settings import Settings, load_settings
from mindtrace.errors import ConfigError

HERE = Path("/here")


def load(text: str = "", environ: Mapping[str, str] | None = None, **given: Any) -> Settings:
    """Settings of an INI text, in an environment of nothing else."""
    return load_settings(text=text, environ=environ or {}, cwd=HERE, **given)


def values(section: Section) -> tuple[Any, ...]:
    return tuple(value for _, value in section)


def origin(settings: Settings, section: str, key: str) -> str:
    return next(row.origin for row in settings.rows() if (row.section, row.key) == (section, key))


def test_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    settings = load_settings(environ={})
    root = Path("/home/me/.cache/mindtrace")
    assert values(settings.dirs) == (root, root / "data", root / "checkpoints")
    assert settings.registry.tracking_uri == f"sqlite:///{root}/mlflow.db"
    served = ("png", "jpeg", "webp")
    assert values(settings.data) == (
        *("mnist", None, None, 64, 0, None, 0.2, 0, None, None),
        *((*served, "avif", "tiff", "bmp", "gif", "heic"), 100_000_000, "auto", "none"),
    )
    assert values(settings.model) == ("mlp", 100, 0.2, "auto", False)
    assert values(settings.train) == (
        *(10, 1e-3, "constant", "val_acc", "none", 0.0, 0.0, 0.01, "none", None, 0, None),
    )
    assert values(settings.registry)[:4] == (None, "accuracy", 0.01, 0.05)
    assert values(settings.serve) == (
        *("127.0.0.1", 8000, 1, None, (), 16 * 2**20, 256 * 2**10, 16 * 2**10),
        *(served, 25_000_000, 1024, 64, 10.0, 30.0, 10.0, 30.0, False),
    )
    assert values(settings.jobs) == (None, "never", 8)
    assert values(settings.compute) == ("auto", "auto", None, False)


def test_texts_become_values() -> None:
    settings = load(
        "[data]\nnum_val = 0.25\nimage_size = 32\n"
        "[train]\npatience = 3\nmax_minutes = 1.5\n"
        "[serve]\nallowed_hosts = a.org, b.org:80\n  c.org\nmax_body = 1 MiB\n"
        "[compute]\npin_memory = Yes\n"
    )
    number = load("[data]\nnum_val = 300").data.num_val
    assert (number, type(number)) == (300, int)
    assert (settings.data.num_val, settings.data.image_size) == (0.25, 32)
    assert (settings.train.patience, settings.train.max_minutes) == (3, 1.5)
    assert settings.serve.allowed_hosts == ("a.org", "b.org:80", "c.org")
    assert settings.serve.max_body == 2**20
    assert settings.compute.pin_memory is True


def test_each_layer_comes_before_the_one_below() -> None:
    layers: dict[str, dict[str, Any]] = {
        "default": {},
        "config:2": {"text": "[train]\nmax_epochs = 1"},
        "environment TRAIN__MAX_EPOCHS": {"environ": {"TRAIN__MAX_EPOCHS": "2"}},
        "--set train.max_epochs": {"sets": ["train.max_epochs=3"]},
        "--max-epochs": {"overrides": {"train.max_epochs": "4"}},
    }
    given: dict[str, Any] = {}
    for value, (name, layer) in enumerate(layers.items()):
        given |= layer
        settings = load(**given)
        assert settings.train.max_epochs == (value or 10)
        assert origin(settings, "train", "max_epochs") == name


def test_mlflows_own_variable_comes_before_the_default_only() -> None:
    environ = {"MLFLOW_TRACKING_URI": "http://mlflow:5000"}
    settings = load(environ=environ)
    assert settings.registry.tracking_uri == "http://mlflow:5000"
    assert origin(settings, "registry", "tracking_uri") == "environment MLFLOW_TRACKING_URI"
    ours = load("[registry]\ntracking_uri = https://ours", environ)
    assert ours.registry.tracking_uri == "https://ours"
    assert load(environ={"MLFLOW_TRACKING_URI": ""}) == load()


def test_layers_are_merged_before_substitution() -> None:
    settings = load(environ={"DIR_PATHS__ROOT": "/a$b/${c}"})
    assert settings.dirs.data == Path("/a$b/${c}/data")
    assert settings.dirs.checkpoints == Path("/a$b/${c}/checkpoints")
    assert settings.registry.tracking_uri == "sqlite:////a$b/${c}/mlflow.db"
    uri = "postgresql://me:a$b${c}@host/db"
    assert load(sets=[f"registry.tracking_uri={uri}"]).registry.tracking_uri == uri


def test_any_value_can_be_referred_to() -> None:
    settings = load(
        "[registry]\nmodel_name = ${data:source}-${model:name}\n"
        "experiment_name = ${model_name}, 5 $$\n"
    )
    assert settings.registry.model_name == "mnist-mlp"
    assert settings.registry.experiment_name == "mnist-mlp, 5 $"


def test_relative_paths_of_a_file_start_at_the_file(tmp_path: Path) -> None:
    folder = tmp_path / "a $b ü"
    folder.mkdir()
    (folder / "my.ini").write_text(
        "[DIR_PATHS]\nROOT = root\nCHECKPOINTS = ${data:source}/x\n"
        "[data]\nsource = folder\ndir = ./images\n[model]\nweights = w.safetensors\n"
        "[jobs]\ndatabase_url = sqlite:///jobs.db\n",
        encoding="utf-8",
    )
    settings = load_settings(folder / "my.ini", environ={}, cwd=HERE)
    root = folder / "root"
    assert values(settings.dirs) == (root, root / "data", folder / "folder" / "x")
    assert settings.data.dir == folder / "images"
    assert settings.model.weights == str(folder / "w.safetensors")
    assert settings.jobs.database_url == f"sqlite:///{folder}/jobs.db"
    assert settings.registry.tracking_uri == f"sqlite:///{root}/mlflow.db"
    name = f"{folder.name}/my.ini"
    for path, environ in ((name, {}), (None, {"MindtraceConfig": name})):
        found = load_settings(path, environ=environ, cwd=tmp_path)
        assert found == settings
        assert origin(found, "DIR_PATHS", "ROOT") == f"{name}:2"


def test_paths_elsewhere_start_at_the_working_folder_or_at_home(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    for start, folder in (("", HERE), ("~/", Path("/home/me"))):
        settings = load(
            environ={"DIR_PATHS__ROOT": f"{start}r"},
            sets=[f"serve.token_file={start}t", f"registry.tracking_uri=sqlite:///{start}m.db"],
        )
        assert settings.dirs.data == folder / "r" / "data"
        assert settings.serve.token_file == folder / "t"
        assert settings.registry.tracking_uri == f"sqlite:///{folder}/m.db"


@pytest.mark.parametrize(
    ("uri", "moved"),
    [
        ("sqlite:////abs/m.db", "sqlite:////abs/m.db"),
        ("sqlite:///rel.db?timeout=5", "sqlite:////here/rel.db?timeout=5"),
    ],
)
def test_only_relative_sqlite_urls_move(uri: str, moved: str) -> None:
    assert load(f"[registry]\ntracking_uri = {uri}").registry.tracking_uri == moved


def test_another_source_lets_go_of_the_folder_below() -> None:
    ini = "[data]\nsource = folder\ndir = /images"
    settings = load(ini, sets=["data.source=digits"])
    assert (settings.data.source, settings.data.dir) == ("digits", None)
    assert load(ini, sets=["data.dir=/others"]).data.dir == Path("/others")
    assert load(ini, sets=["data.source=folder"]).data.dir == Path("/images")


@pytest.mark.parametrize("word", ["", "none"])
def test_blank_and_none_take_a_value_back(word: str) -> None:
    ini = "[train]\npatience = 3\n[serve]\ntoken_file = t\n[compute]\nthreads = 2"
    names = ("train.patience", "serve.token_file", "compute.threads")
    assert load(ini, sets=[f"{name}={word}" for name in names]) == load()
    assert load("[registry]\nmodel_name = none").registry.model_name == "none"


def test_rows_show_everything_in_force_as_text() -> None:
    rows = load("[serve]\nmax_body = 2048\nallowed_hosts = a,b").rows()
    values = {(row.section, row.key): row.value for row in rows}
    assert len(values) == len(rows)
    assert values["compute", "threads"] == "auto"
    shown = [values["serve", key] for key in ("max_body", "allowed_hosts", "body_timeout")]
    assert shown == ["2 KiB", "a, b", "30"]


def test_passwords_are_neither_shown_nor_sent_along() -> None:
    settings = load(
        "[data]\nmirror = https://me:hush@mirror/x\n"
        "[registry]\ntracking_uri = postgresql://me:hush@host/db\n"
        "[jobs]\ndatabase_url = postgresql://me:hush@host/db?sslpassword=hush\n"
    )
    assert settings.data.mirror == "https://me:hush@mirror/x"
    shown = [str(settings.rows()), repr(settings), settings.to_ini(("data", "registry", "jobs"))]
    assert "hush" not in "".join(shown)
    travels = settings.to_ini().splitlines()
    assert "mirror = https://me:***@mirror/x" in travels
    headers = ["[data]", "[model]", "[train]", "[compute]"]
    assert [line for line in travels if line.startswith("[")] == headers


PATHS = st.text(
    st.characters(exclude_categories=("C", "Z")) | st.sampled_from(" $"), min_size=1
).map(lambda text: "/" + text.strip())
GIVEN = st.fixed_dictionaries(
    {},
    optional={
        "data.num_val": st.one_of(st.integers(1, 10**6), st.floats(0.001, 0.999)),
        "data.batch_size": st.integers(1, 4096),
        "data.image_size": st.integers(1, 1024),
        "model.dropout": st.floats(0, 0.99),
        "model.weights": PATHS,
        "model.freeze": st.booleans(),
        "train.lr": st.floats(1e-9, 1e3),
        "train.patience": st.integers(1, 50),
        "train.max_minutes": st.floats(1e-3, 1e4),
        "compute.threads": st.integers(1, 64),
        "DIR_PATHS.ROOT": PATHS,
        "serve.max_body": st.integers(1024, 2**40),
        "serve.token_file": PATHS.map(Path),
    },
)
ALL = ("DIR_PATHS", "data", "model", "train", "registry", "serve", "jobs", "compute")


@given(GIVEN)
def test_what_is_written_is_read_back_the_same(values: dict[str, Any]) -> None:
    if "DIR_PATHS.ROOT" in values:
        values["DIR_PATHS.ROOT"] = Path(values["DIR_PATHS.ROOT"])
    settings = load().replace(**values)
    assert load(settings.to_ini(ALL)) == settings
    assert load(settings.to_ini(ALL)).to_ini(ALL) == settings.to_ini(ALL)


@pytest.mark.parametrize("name", ["TRAIN__LR", "Train__Lr", "train__lr"])
def test_the_environment_in_any_case(name: str) -> None:
    others = {"PATH": "x", "OTHER__LR": "1", "TRAIN_LR": "1", "TRAIN__": "1", "__LR": "1"}
    assert load(environ=others) == load()
    settings = load(environ={name: "1", "dir_paths__root": "/r", **others})
    assert (settings.train.lr, settings.dirs.root) == (1, Path("/r"))
    assert origin(settings, "train", "lr") == f"environment {name}"
    assert load(environ={"TRAIN__LR": "1", "train__lr": "1"}).train.lr == 1
    with pytest.raises(ConfigError, match="also given by environment TRAIN__LR"):
        load(environ={"TRAIN__LR": "1", "train__lr": "2"})


def test_sets_in_any_case_and_the_last_one_counts() -> None:
    settings = load(sets=["TRAIN.LR=1", "train.lr = 2 ", "dir_paths.root=/a=b"])
    assert (settings.train.lr, settings.dirs.root) == (2, Path("/a=b"))
    assert origin(settings, "train", "lr") == "--set train.lr"


@pytest.mark.parametrize("argument", ["", "lr", "lr=1", "train.lr", "train.=1", ".lr=1", "=1"])
def test_a_set_that_is_none(argument: str) -> None:
    with pytest.raises(ConfigError, match=r"write it as section\.key=value"):
        load(sets=[argument])


def test_a_replaced_value_obeys_the_schema_and_says_so() -> None:
    settings = load("[model]\nname = resnet18\nweights = default\n")
    changed = settings.replace(
        **{"compute.threads": 2, "compute.device": "cpu", "dirs.root": HERE, "model.name": "mlp"}
    )
    assert (changed.compute.threads, changed.compute.device) == (2, "cpu")
    assert changed.dirs.root == HERE
    assert origin(changed, "compute", "threads") == "resolved"
    assert origin(changed, "compute", "precision") == "default"
    # Each alone: a training of one's own may differ from its configuration key by key.
    assert changed.model.weights == "default"
    assert settings.replace(**{"data.source": "folder"}).data.dir is None
    with pytest.raises(ValueError, match="1 or more and 1024"):
        settings.replace(**{"compute.threads": 0})
    with pytest.raises(KeyError, match="thread"):
        settings.replace(**{"compute.thread": 1})
    with pytest.raises(ValueError, match="frozen"):
        settings.train.lr = 1  # type: ignore[misc]
    with pytest.raises(AttributeError, match="cannot assign"):
        settings.train = changed.train  # type: ignore[misc]
