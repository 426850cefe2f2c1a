"""From a client's wishes to a job: what may be set, and every fault at once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.jobs.fake import taken

from mindtrace.config.sections import KNOWN, PUBLISHED, SECTIONS
from mindtrace.config.settings import MANY, Settings, load_settings
from mindtrace.errors import ConfigError, NotFoundError, UsageError
from mindtrace.service import jobs
from mindtrace.service.retrain_request import TRAINED_WITH, RetrainRequest


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(
        text="[train]\nlr = 0.5\n[data]\nsource = digits\n[registry]\nmodel_name = mine\n",
        sets=[f"DIR_PATHS.ROOT={tmp_path}"],
        environ={},
    )


def laid_over(settings: Settings, request: RetrainRequest) -> Settings:
    return request.laid_over(settings, jobs.secrets(settings))


def faults(settings: Settings, overlay: RetrainRequest) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        laid_over(settings, overlay)
    return [fault.message for fault in caught.value.faults]


def test_wishes_lie_over_the_servers_own(settings: Settings) -> None:
    overlay = RetrainRequest.from_mapping({"train": {"max_epochs": 2, "patience": None}})
    merged = laid_over(settings, overlay)
    assert (merged.train.max_epochs, merged.train.lr, merged.train.patience) == (2, 0.5, None)
    assert merged.registry.model_name == "mine"
    assert merged.dirs == settings.dirs


def test_ini_text_and_json_are_the_same_wish(settings: Settings) -> None:
    ini = RetrainRequest.from_ini("[TRAIN]\nMax_Epochs = 2\n\n[model]\nfreeze = true\n")
    mapping = RetrainRequest.from_mapping({"model": {"freeze": True}, "train": {"max_epochs": 2}})
    assert ini.digest() == mapping.digest()
    assert laid_over(settings, ini) == laid_over(settings, mapping)
    assert ini.digest() != RetrainRequest.from_ini("[train]\nmax_epochs = 3\n").digest()


def test_null_is_what_a_key_calls_nothing(settings: Settings) -> None:
    sections = {
        "registry": {"model_name": None},
        "data": {"num_val": None, "augment": None},
        "train": {"patience": None},
        "compute": {"threads": None},
    }
    merged = laid_over(settings, RetrainRequest.from_mapping(sections))
    assert (merged.registry.model_name, merged.data.num_val) == (None, None)
    assert (merged.data.augment, merged.train.patience) == ("none", None)
    assert merged.compute.threads is None
    lacking = RetrainRequest.from_mapping({"train": {"lr": None}, "model": {"freeze": None}})
    assert [message.partition(":")[0] for message in faults(settings, lacking)] == [
        "[model] freeze = none",
        "[train] lr = none",
    ]


def test_every_fault_is_told_with_its_line(settings: Settings) -> None:
    text = "[train]\nmax_epoch = 1\nlr = -1\n\n[serve]\nport = 1\n\n[nonsense]\na = 1\nbroken\n"
    with pytest.raises(ConfigError) as caught:
        laid_over(settings, RetrainRequest.from_ini(text))
    rows = {fault.line: fault.message for fault in caught.value.faults}
    assert "did you mean 'max_epochs'" in rows[2]
    assert "lr = -1" in rows[3]
    assert "may not set this" in rows[6]
    assert any("nonsense" in message for message in rows.values())
    assert "broken" in rows[10]


def test_of_many_unknown_sections_the_first_are_told(settings: Settings) -> None:
    names = [f"s{number}" for number in range(20_000)]
    for overlay in (
        RetrainRequest.from_ini("".join(f"[{name}]\n" for name in names)),
        RetrainRequest.from_mapping({name: {} for name in names}),
    ):
        found = faults(settings, overlay)
        assert (len(found), found[0][:21]) == (MANY, "[s0]: unknown section")


def test_only_published_keys_may_be_set(settings: Settings) -> None:
    names = [(section, key) for section, keys in KNOWN.items() for key in keys]
    for section, key in names:
        if (section, key) not in PUBLISHED:
            for sections in ({section: {key: "x"}}, {section.upper(): {key.upper(): "x"}}):
                found = faults(settings, RetrainRequest.from_mapping(sections))
                assert "may not set this" in found[0], key


@pytest.mark.parametrize(
    ("request_", "fault"),
    [
        *(
            (RetrainRequest.from_mapping({"model": {"weights": value}}), "none or default only")
            for value in ("/etc/passwd", "../x", "weights.safetensors", "${ROOT}")
        ),
        *(
            (RetrainRequest.from_mapping({section: {key: 1}}), "not a name")
            for section, key in (
                ("a.b", "c"),
                ("train", "lr=1"),
                ("train\n[serve]", "x"),
                ("", "lr"),
            )
        ),
        *(
            (RetrainRequest.from_mapping({"train": {"lr": value}}), "single value")
            for value in ([1], {"a": 1})
        ),
        (RetrainRequest.from_mapping({"train": 3}), "[train]: must be an object"),
        (RetrainRequest.from_ini("[train]\nlr = 1\nLR = 2\n"), "twice"),
        # Nothing is interpolated.
        (RetrainRequest.from_ini("[train]\nseed = ${data:split_seed}\n"), "${data:split_seed}"),
    ],
)
def test_what_is_refused(settings: Settings, request_: RetrainRequest, fault: str) -> None:
    assert fault in faults(settings, request_)[0]


def test_a_job_holds_its_whole_configuration_but_no_password(tmp_path: Path) -> None:
    uri = "postgresql://user:pa$$word@db/mlflow"
    settings = load_settings(
        sets=[f"DIR_PATHS.ROOT={tmp_path}/ö ü", f"registry.tracking_uri={uri}"], environ={}
    )
    order = RetrainRequest.from_mapping({"train": {"max_epochs": 1}})
    job = jobs.submit(settings, order)
    config = taken(jobs.queue(settings), job).request().config
    assert "word" not in config
    read = load_settings(text=config, environ=jobs.own_places(settings))
    assert (read.registry.tracking_uri, read.dirs.root) == (uri, settings.dirs.root)
    assert (read.train.max_epochs, read.data) == (1, settings.data)
    # What a worker beside a server reads, the file and the variables, is the whole again.
    whole = load_settings(
        text=settings.to_ini([*SECTIONS]),
        environ=jobs.secrets(settings),
    )
    assert whole == settings


def test_a_worker_elsewhere_has_folders_of_its_own(tmp_path: Path) -> None:
    here, there = (
        load_settings(sets=[f"DIR_PATHS.ROOT={tmp_path}/{name}"], environ={})
        for name in ("here", "there")
    )
    config = jobs.job_settings(here, RetrainRequest())[0].to_ini(TRAINED_WITH)
    read = load_settings(text=config, environ=jobs.own_places(there))
    assert (read.dirs.root, read.dirs.data) == (there.dirs.root, there.dirs.data)
    assert read.registry == there.registry


def test_what_a_user_set_on_purpose(tmp_path: Path) -> None:
    settings = load_settings(
        text="[train]\nlr = 0.5\n[serve]\nport = 1\n[registry]\nmodel_name = mine\n",
        sets=[f"DIR_PATHS.ROOT={tmp_path}", "train.patience=none"],
        environ={"DATA__SOURCE": "digits"},
    )
    found = RetrainRequest.from_settings(settings)
    assert found.document() == {
        "data": {"source": "digits"},
        "train": {"lr": "0.5", "patience": "none"},
        "registry": {"model_name": "mine"},
    }
    assert laid_over(load_settings(environ={}), found).train.lr == 0.5


@pytest.mark.slow
def test_a_base_lies_between_the_servers_own_and_the_wishes(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIR_PATHS__ROOT", str(trained))
    settings = load_settings(sets=["train.lr=0.5", "train.patience=3", "data.source=mnist"])
    wishes = RetrainRequest.from_mapping({"train": {"max_epochs": 7}})
    merged, parent = jobs.job_settings(settings, replace(wishes, base="digits"))
    assert (merged.train.max_epochs, merged.train.lr, merged.train.patience) == (7, 0.003, None)
    assert (merged.data.source, merged.registry.model_name) == ("digits", "digits")
    assert (merged.dirs, parent) == (settings.dirs, "digits/1")
    named = RetrainRequest.from_mapping({"registry": {"model_name": "other"}})
    other, _ = jobs.job_settings(settings, replace(named, base="digits/1"))
    assert other.registry.model_name == "other"
    for base in ("digits/99", "nothing", "digits@nobody"):
        with pytest.raises(NotFoundError):
            jobs.job_settings(settings, RetrainRequest(base=base))
    for base in (str(trained), ".", "~"):
        with pytest.raises(UsageError, match="registered version"):
            jobs.job_settings(settings, RetrainRequest(base=base))
    with pytest.raises(UsageError, match="needs a base"):
        jobs.job_settings(settings, RetrainRequest(warm_start=True))
