"""From a client's wishes to a job: what may be set, and every fault at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from mindtrace.core.schema import KNOWN
from mindtrace.core.settings import PUBLISHED_KEYS, Settings, load_settings
from mindtrace.errors import ConfigError, UsageError
from mindtrace.service import retrain
from mindtrace.service.retrain import Overlay


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(
        text="[train]\nlr = 0.5\n[data]\nsource = digits\n[registry]\nmodel_name = mine\n",
        sets=[f"DIR_PATHS.ROOT={tmp_path}"],
        environ={},
    )


def faults(settings: Settings, overlay: Overlay) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        retrain.job_settings(settings, overlay)
    return [fault.message for fault in caught.value.faults]


def test_wishes_lie_over_the_servers_own(settings: Settings) -> None:
    overlay = Overlay.from_mapping({"train": {"max_epochs": 2, "patience": None}})
    merged = retrain.job_settings(settings, overlay)
    assert (merged.train.max_epochs, merged.train.lr, merged.train.patience) == (2, 0.5, None)
    assert merged.registry.model_name == "mine"
    assert merged.dirs == settings.dirs


def test_ini_text_and_json_are_the_same_wish(settings: Settings) -> None:
    ini = Overlay.from_ini("[TRAIN]\nMax_Epochs = 2\n\n[model]\nfreeze = true\n")
    mapping = Overlay.from_mapping({"model": {"freeze": True}, "train": {"max_epochs": 2}})
    assert ini.digest() == mapping.digest()
    assert retrain.job_settings(settings, ini) == retrain.job_settings(settings, mapping)
    assert ini.digest() != Overlay.from_ini("[train]\nmax_epochs = 3\n").digest()


def test_every_fault_is_told_with_its_line(settings: Settings) -> None:
    text = "[train]\nmax_epoch = 1\nlr = -1\n\n[serve]\nport = 1\n\n[nonsense]\na = 1\nbroken\n"
    with pytest.raises(ConfigError) as caught:
        retrain.job_settings(settings, Overlay.from_ini(text))
    rows = {fault.line: fault.message for fault in caught.value.faults}
    assert "did you mean 'max_epochs'" in rows[2]
    assert "lr = -1" in rows[3]
    assert "may not set this" in rows[6]
    assert any("nonsense" in message for message in rows.values())
    assert "broken" in rows[10]


def test_only_published_keys_may_be_set(settings: Settings) -> None:
    for section, keys in KNOWN.items():
        for key in keys:
            told = {f"{section}.{key}", f"{section.upper()}.{key.upper()}"}
            for name in told - set(PUBLISHED_KEYS):
                overlay = Overlay.from_mapping(dict([_one(name)]))
                if f"{section}.{key}" in PUBLISHED_KEYS:
                    continue
                assert "may not set this" in faults(settings, overlay)[0], name


def _one(name: str) -> tuple[str, dict[str, str]]:
    section, _, key = name.partition(".")
    return section, {key: "x"}


@pytest.mark.parametrize("value", ["/etc/passwd", "../x", "weights.safetensors", "${ROOT}"])
def test_weights_are_no_path(settings: Settings, value: str) -> None:
    found = faults(settings, Overlay.from_mapping({"model": {"weights": value}}))
    assert found == ["[model] weights: a request may set none or default only"]


def test_nothing_is_interpolated(settings: Settings) -> None:
    found = faults(settings, Overlay.from_ini("[train]\nseed = ${data:split_seed}\n"))
    assert "${data:split_seed}" in found[0]


@pytest.mark.parametrize(
    ("section", "key"), [("a.b", "c"), ("train", "lr=1"), ("train\n[serve]", "x"), ("", "lr")]
)
def test_names_cannot_smuggle(settings: Settings, section: str, key: str) -> None:
    assert "not a name" in faults(settings, Overlay.from_mapping({section: {key: 1}}))[0]


@pytest.mark.parametrize("value", [[1], {"a": 1}, float("inf"), float("nan")])
def test_values_are_single(settings: Settings, value: object) -> None:
    found = faults(settings, Overlay.from_mapping({"train": {"lr": value}}))
    assert "single value" in found[0]
    assert faults(settings, Overlay.from_mapping({"train": 3})) == ["[train]: must be an object"]


def test_the_same_key_twice(settings: Settings) -> None:
    assert "twice" in faults(settings, Overlay.from_ini("[train]\nlr = 1\nLR = 2\n"))[0]


def test_a_job_holds_its_whole_configuration_but_no_password(tmp_path: Path) -> None:
    uri = "postgresql://user:pa$$word@db/mlflow"
    settings = load_settings(
        sets=[f"DIR_PATHS.ROOT={tmp_path}/ö ü", f"registry.tracking_uri={uri}"], environ={}
    )
    job = retrain.submit(settings, Overlay.from_mapping({"train": {"max_epochs": 1}}))
    folder = retrain.queue(settings).folder_of(job.job_id)
    assert "word" not in (folder / "config.ini").read_text(encoding="utf-8")
    environ = retrain.runner(settings).environ
    assert environ["REGISTRY__TRACKING_URI"] == uri
    read = load_settings(folder / "config.ini", environ=environ)
    assert (read.registry.tracking_uri, read.dirs.root) == (uri, settings.dirs.root)
    assert (read.train.max_epochs, read.data) == (1, settings.data)


def test_one_key_is_one_job(settings: Settings) -> None:
    overlay = Overlay.from_mapping({"train": {"max_epochs": 1}})
    first = retrain.submit(settings, overlay, idempotency_key="k")
    assert retrain.submit(settings, overlay, idempotency_key="k") == first
    assert retrain.submit(settings, overlay).job_id != first.job_id
    with pytest.raises(UsageError):
        retrain.submit(settings, Overlay(), idempotency_key="k")
