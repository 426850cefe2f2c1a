"""Every kind of fault: where it stands, what is wrong, what to write instead."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from mindtrace.config.schema import allowed
from mindtrace.config.sections import KEYS, SECTIONS
from mindtrace.config.settings import load_settings
from mindtrace.errors import ConfigError, Fault

HERE = Path("/here")


def faults(text: str = "", environ: Mapping[str, str] | None = None, **given: Any) -> list[Fault]:
    """All that is wrong with a configuration."""
    try:
        load_settings(text=text, environ=environ or {}, cwd=HERE, **given)
    except ConfigError as error:
        return [*error.faults]
    return []


def lines(*args: Any, **given: Any) -> list[str]:
    return [str(fault) for fault in faults(*args, **given)]


def test_all_faults_of_all_layers_come_at_once_by_their_lines() -> None:
    text = "[train]\nmax_epoch = 5\nlr = fast\nnonsense\n[dato]\nx = 1\n[data]\nbatch_size = 0\n"
    found = lines(
        text,
        {"TRAIN__SEED": "-1", "TRAIN__EPOCHS": "1", "ELSEWHERE__BATCH": "1"},
        sets=["train.patience=0", "oops", "trane.lr=1"],
        overrides={"train.max_epochs": "many"},
    )
    assert found == [
        "config:2: [train] max_epoch: unknown key, did you mean 'max_epochs'?",
        "config:3: [train] lr = fast: must be a number, above 0",
        "config:4: nonsense: not a line of an INI, write key = value or # comment",
        "config:5: [dato]: unknown section, did you mean [data]?",
        "config:8: [data] batch_size = 0: must be 1 or more",
        "environment TRAIN__EPOCHS: [train] EPOCHS: unknown key, did you mean 'max_epochs'?",
        "--set oops: write it as section.key=value, such as train.lr=0.01",
        "--set trane.lr: [trane]: unknown section, did you mean [train]?",
        "--max-epochs: [train] max_epochs = many: must be a whole number, 1 or more",
        "--set train.patience: [train] patience = 0: must be 1 or more",
        "environment TRAIN__SEED: [train] seed = -1: must be 0 or more and 4294967295 or less",
    ]


def test_a_fault_holds_its_parts(tmp_path: Path) -> None:
    ini = tmp_path / "cfg.ini"
    ini.write_text("# one\n[train]\nmax_epochs = -3\n")
    with pytest.raises(ConfigError) as caught:
        load_settings(ini, environ={})
    (fault,) = caught.value.faults
    message = "[train] max_epochs = -3: must be 1 or more"
    assert fault == Fault(str(ini), 3, "train", "max_epochs", message)
    assert str(caught.value) == f"{ini}:3: {message}"
    assert caught.value.hint


@pytest.mark.parametrize(
    ("section", "key", "meant"),
    [
        ("train", "epochs", ", did you mean 'max_epochs'?"),
        ("train", "Learning-Rate", ", did you mean 'lr'?"),
        ("train", "MAX_EPOCHS", ", did you mean 'max_epochs'?"),
        ("data", "sorce", ", did you mean 'source'?"),
        ("train", "batch_size", ", did you mean 'batch_size' in [data]?"),
        ("train", "workers", ", did you mean 'num_workers' in [data]?"),
        ("DIR_PATHS", "root", ", did you mean 'ROOT'?"),
        ("jobs", "zzz", "; [jobs] has: database_url, promote, max_queued"),
    ],
)
def test_an_unknown_key_leads_to_the_one_that_was_meant(section: str, key: str, meant: str) -> None:
    assert lines(f"[{section}]\n{key} = 1") == [f"config:2: [{section}] {key}: unknown key{meant}"]


@pytest.mark.parametrize(
    ("section", "meant"),
    [
        *(("training", "train"), ("Train", "train"), ("dataset", "data"), ("servr", "serve")),
        *(("dir_paths", "DIR_PATHS"), ("xyzzy", None)),
    ],
)
def test_an_unknown_section_is_one_fault_whatever_it_holds(section: str, meant: str | None) -> None:
    like = f", did you mean [{meant}]?" if meant else f"; there are: {', '.join(SECTIONS)}"
    assert lines(f"[{section}]\na = 1\nb = 2") == [f"config:1: [{section}]: unknown section{like}"]


def test_of_thousands_of_unknown_names_the_first_are_told() -> None:
    keys = "".join(f"key{i} = 1\n" for i in range(5000))
    found = lines(f"[sectiom]\n[train]\n{keys}[model]\nname = mlq\n")
    assert len(found) == 101
    assert found[0].startswith("config:1: [sectiom]: unknown section")
    assert "[model] name = mlq" in found[-1]


VALUES = [
    ("data", "source", "minst", "must be one of mnist, fashion_mnist, digits, folder, kmnist"),
    ("data", "source", "MNIST", "did you mean 'mnist'?"),
    (
        "data",
        "mirror",
        "mirror.org",
        "must be blank, or a URL that begins with http:// or https://",
    ),
    ("data", "batch_size", "6.4", "must be a whole number, 1 or more"),
    ("data", "batch_size", "1" * 20, "must be a whole number, 1 or more"),
    ("data", "batch_size", "", "must be a whole number, 1 or more"),
    ("data", "num_val", "1.5", "a whole number of images, or a fraction"),
    ("data", "num_val", "0", "a whole number of images, or a fraction"),
    ("data", "test_fraction", "1", "must be above 0 and below 1"),
    ("data", "group", "p(", "must be blank, or a regular expression"),
    ("data", "formats", "png, pdf", "must be some of png, jpeg, webp"),
    ("model", "name", "resnet81", "did you mean 'resnet18'?"),
    ("model", "name", "resnet19.a1_in1k", "did you mean 'resnet18'?"),
    ("model", "name", "hf-hub:timm/resnet18", "must be mlp, cnn or a name in timm.list_models()"),
    ("model", "name", "", "must be mlp, cnn or a name in timm.list_models()"),
    ("model", "name", "mobilenet_v3_small", "timm's 'mobilenetv3_small_100' replaces it"),
    ("model", "dropout", "1", "must be 0 or more and below 1"),
    ("model", "weights", "", "must be auto, none, default or a path"),
    ("model", "weights", "default", "there are none for mlp"),
    ("model", "freeze", "maybe", "must be true or false"),
    ("train", "lr", "0", "must be above 0"),
    ("train", "lr", "inf", "must be a number, above 0"),
    ("train", "lr", "nan", "must be a number, above 0"),
    ("train", "schedule", "one-cycle", "did you mean 'one_cycle'?"),
    ("registry", "model_name", "-x", "1 to 64 letters, digits"),
    ("registry", "experiment_name", "a/b", "one line"),
    ("registry", "tracking_uri", "./mlruns", "must be a URL that begins with sqlite:///FILE"),
    ("registry", "tracking_uri", "sqlite://", "must be a URL"),
    ("registry", "tracking_uri", "sqlite:///:memory:", "must be a URL"),
    ("registry", "tracking_uri", "https://a b", "must be a URL"),
    ("serve", "host", "a b", "must be a host name or an address"),
    ("serve", "allowed_hosts", "*.example.org", "must be names such as example.org"),
    ("serve", "max_body", "16 MX", "must be a size such as 262144"),
    ("serve", "max_body", "10", "must be 1024 or more"),
    ("jobs", "database_url", "mysql://h/d", "a URL that begins with sqlite:///FILE or"),
    ("compute", "device", "gpu0", "must be auto, cpu, mps, cuda or cuda:N"),
    ("DIR_PATHS", "ROOT", "", "must be a path"),
    ("DIR_PATHS", "ROOT", "a\n b", "must be a path"),
    ("DIR_PATHS", "ROOT", "~nobody-of-that-name/x", "that home folder is not known"),
]


@pytest.mark.parametrize(("section", "key", "text", "words"), VALUES)
def test_a_value_that_cannot_be_is_told_with_what_can(
    section: str, key: str, text: str, words: str
) -> None:
    (fault,) = faults(f"[{section}]\n{key} = {text}")
    assert (fault.line, fault.section, fault.key) == (2, section, key)
    assert words in fault.message


LIMITS = [  # what is refused, and what is taken
    ("data.num_workers", "-1 1025", "0 1024"),
    ("data.test_fraction", "0 1", "0.99"),
    ("data.split_seed", "-1", "0"),
    ("data.group", "* [a a{99999999999999}", "a*"),
    ("data.image_size", "0 1025", "1 1024"),
    ("data.resize", "squash", "stretch"),
    ("data.augment", "heavy", "strong"),
    ("model.name", "ResNet-18 local-dir:/tmp/x shufflenet_v2_x1_0", "resnet18 resnet18.a1_in1k"),
    ("model.hidden", "0 65537", "1 65536"),
    ("model.dropout", "-0.1 1", "0 0.99"),
    ("train.monitor", "acc", "val_loss"),
    ("train.balance", "yes", "loss"),
    ("train.label_smoothing", "-0.1 1", "0 0.99"),
    ("train.mixup", "-0.1 11", "0 10"),
    ("train.weight_decay", "-0.1 11", "0 10"),
    ("train.average", "swa", "ema"),
    ("train.patience", "0", "1"),
    ("train.seed", "-1 4294967296", "0 4294967295"),
    ("train.max_minutes", "-1 0", "0.1"),
    ("registry.model_name", f"a/b a,b .a {'x' * 65}", f"0._-A {'x' * 64}"),
    ("registry.metric", "f1", "f1_macro"),
    ("registry.margin", "-0.1 1.1", "0 1"),
    ("registry.class_margin", "-0.1 1.1", "0 1"),
    ("registry.tracking_uri", "file:///mlruns", "sqlite:///a.db mysql+pymysql://h/d http://h"),
    ("serve.port", "-1 65536", "0 65535"),
    ("serve.workers", "0 257", "1 256"),
    ("serve.header_timeout", "0", "0.1"),
    ("serve.token_file", "~nobody-of-that-name/x", "x"),
    ("jobs.promote", "yes", "gate"),
    ("compute.precision", "16", "32"),
    ("compute.threads", "0 1025", "1 1024"),
]


@pytest.mark.parametrize(("name", "refused", "taken"), LIMITS)
def test_the_limits_of_a_value(name: str, refused: str, taken: str) -> None:
    for text in refused.split():
        (line,) = lines(sets=[f"{name}={text}"])
        assert f"[{name.replace('.', '] ')} = " in line
    for text in taken.split():
        assert not faults(sets=[f"{name}={text}"]), text


def test_every_kind_of_key_has_been_refused() -> None:
    tried = {(section, key) for section, key, *_ in VALUES}
    tried |= {(section, key) for section, _, key in (name.partition(".") for name, *_ in LIMITS)}
    kinds = {allowed(KEYS[place]) for place in tried}
    assert kinds == {allowed(declared) for declared in KEYS.values()}


@pytest.mark.parametrize(
    "text",
    ["[train]\nlr = 0.1  # high", "[data]\nsource = 'digits'", "[train]\nlr = 1\n  seed = 1"],
)
def test_habits_of_other_dialects_are_recognised(text: str) -> None:
    (line,) = lines(text)
    assert line.endswith("has no comment or quotes, and takes in the indented lines below it")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("${DIR_PATHS:ROT}", "no [DIR_PATHS] ROT, did you mean ${DIR_PATHS:ROOT}?"),
        ("${DIR_PATH:ROOT}", "no [DIR_PATH] ROOT, did you mean ${DIR_PATHS:ROOT}?"),
        ("${nothing}", "there is no [DIR_PATHS] nothing"),
        ("${ROOT", "a reference is ${SECTION:KEY}, and a plain $ is written $$"),
        ("5$", "a plain $ is written $$"),
        ("$ROOT", "a plain $ is written $$"),
    ],
)
def test_a_reference_that_leads_nowhere(value: str, words: str) -> None:
    (fault,) = faults(f"[DIR_PATHS]\nDATA = {value}")
    assert (fault.line, fault.key) == (2, "DATA")
    assert fault.message.startswith(f"[DIR_PATHS] DATA = {value}: ")
    assert words in fault.message


def test_a_circle_is_one_fault_and_so_is_a_broken_reference() -> None:
    (line,) = lines("[DIR_PATHS]\nROOT = ${DATA}/x\nDATA = ${CHECKPOINTS}\nCHECKPOINTS = ${ROOT}")
    assert line.endswith("refers to [DIR_PATHS] ROOT, which refers to it")
    assert len(faults("[DIR_PATHS]\nROOT = ${nothing}")) == 1


def test_source_and_folder_belong_together() -> None:
    assert lines("[data]\nsource = folder") == [
        "config:2: [data] source = folder: needs the folder too; add dir = PATH to [data]"
    ]
    (line,) = lines("[data]\nsource = digits\ndir = /x")
    assert line.startswith(
        "config:3: [data] dir = /x: is for source = folder or table, and source is dig"
    )
    assert len(faults(sets=["data.dir=/x"])) == 1
    assert not faults("[data]\ndir = /x", sets=["data.source=folder"])


def test_a_file_that_is_missing_is_one_fault_with_those_beside_it(tmp_path: Path) -> None:
    (tmp_path / "mnist.ini").touch()
    (tmp_path / "other.ini").touch()
    with pytest.raises(ConfigError) as caught:
        load_settings("minst.ini", environ={}, cwd=tmp_path)
    assert str(caught.value) == (
        "minst.ini: no such file, did you mean 'mnist.ini'? INIs beside it: mnist.ini, other.ini"
    )
    environ = {"MindtraceConfig": str(tmp_path / "no" / "cfg.ini")}
    with pytest.raises(ConfigError, match=r"no such file; INIs beside it: none .*MindtraceConfig"):
        load_settings(environ=environ)
    with pytest.raises(ConfigError, match=r"^~nobody-of-that-name/a\.ini: no such file"):
        load_settings("~nobody-of-that-name/a.ini", environ={}, cwd=HERE)


def test_faults_show_no_passwords_and_stay_on_one_line() -> None:
    found = lines(
        "[registry]\ntracking_uri = ftp://me:hush@host/x\n[data]\nmirror = x://a:hush@b\n  c\n"
        "[model]\nhttps://me:hush@host/x\n",
        sets=["jobs.database_url=mysql://me:hush@h/d", "https://me:hush@host"],
    )
    assert len(found) == 5
    assert not any("hush" in line or "\n" in line for line in found)


def test_a_long_value_is_cut_and_an_unused_one_does_no_harm() -> None:
    assert len(lines(f"[train]\nlr = {'x' * 5000}")[0]) < 200
    assert not faults("[train]\nlr = wrong", sets=["train.lr=0.1"])


@given(st.text(), st.dictionaries(st.sampled_from(["TRAIN__LR", "DATA__X"]), st.text()))
def test_whatever_is_written_ends_in_settings_or_in_faults(
    text: str, environ: dict[str, str]
) -> None:
    for fault in faults(text, environ, sets=[text]):
        assert "\n" not in str(fault)


TEXTS = st.text(max_size=30) | st.sampled_from(["", "0", "-1", "1e400", "${a}", "~", "sqlite:///"])


@given(st.dictionaries(st.sampled_from([*KEYS]), TEXTS, max_size=6))
def test_any_text_for_any_key_ends_in_settings_or_in_faults(
    values: dict[tuple[str, str], str],
) -> None:
    sets = [f"{section}.{key}={text}" for (section, key), text in values.items()]
    for fault in faults(sets=sets):
        assert fault.section and fault.key and fault.file.startswith("--set")
