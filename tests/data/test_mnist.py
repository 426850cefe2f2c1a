from __future__ import annotations

import gzip
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mindtrace.data import MNIST, FashionMNIST, InputRequirements
from mindtrace.data.download import Patience, RemoteFile
from mindtrace.errors import DataError, DownloadError, UsageError
from mindtrace.preprocess import ImageSpec, image_digest, normalise

SMALL: dict[str, Any] = {"num_train": None, "num_val": 20}


@pytest.fixture(params=[False, True], ids=["plain", "gzipped"])
def put(request: pytest.FixtureRequest, tiny: Any, tmp_path: Path) -> Path:
    """A data folder whose files were put there by hand."""
    tiny.put(tmp_path / "MNIST" / "raw", gzipped=request.param)
    return tmp_path


@pytest.fixture
def data(tiny: Any, tmp_path: Path) -> MNIST:
    tiny.put(tmp_path / "MNIST" / "raw", gzipped=False)
    module: MNIST = tiny.kind(data_dir=tmp_path, batch_size=16, **SMALL)
    return module


def test_the_first_use_downloads_and_the_next_one_does_not(
    tiny: Any, mirror: Any, tmp_path: Path
) -> None:
    mirror.files = tiny.gzipped()
    for asked in (4, 4):
        data = tiny.kind(data_dir=tmp_path, mirror=mirror.url, **SMALL)
        assert sum(len(y) for _, y in data.train) == 100
        assert len(mirror.asked) == asked
    assert sorted(path.name for path in (tmp_path / "MNIST" / "raw").iterdir()) == sorted(
        tiny.contents
    )


def test_prepare_data_fetches_only_what_is_missing(tiny: Any, mirror: Any, tmp_path: Path) -> None:
    mirror.files = tiny.gzipped()
    raw = tmp_path / "MNIST" / "raw"
    tiny.put(raw, gzipped=True)
    (raw / "t10k-labels-idx1-ubyte.gz").unlink()
    tiny.kind(data_dir=tmp_path, mirror=mirror.url, **SMALL).prepare_data()
    assert mirror.asked == ["t10k-labels-idx1-ubyte.gz"]


def test_a_damaged_file_is_fetched_again(tiny: Any, mirror: Any, tmp_path: Path) -> None:
    mirror.files = tiny.gzipped()
    raw = tmp_path / "MNIST" / "raw"
    tiny.put(raw, gzipped=False)
    images = raw / "train-images-idx3-ubyte"
    images.write_bytes(images.read_bytes()[:500])
    tiny.kind(data_dir=tmp_path, mirror=mirror.url, **SMALL).prepare_data()
    assert images.read_bytes() == tiny.contents[images.name]


def test_without_a_mirror_a_damaged_file_is_named_with_what_to_do(
    tiny: Any, tmp_path: Path
) -> None:
    raw = tmp_path / "MNIST" / "raw"
    tiny.put(raw, gzipped=False)
    (raw / "t10k-images-idx3-ubyte").write_bytes(b"half")
    data = tiny.kind(
        data_dir=tmp_path, mirror="http://127.0.0.1:1", patience=Patience(attempts=1), **SMALL
    )
    with pytest.raises(DownloadError) as caught:
        data.prepare_data()
    assert str(raw / "t10k-images-idx3-ubyte") in caught.value.message
    for word in ("[data] mirror", str(raw), "source = digits"):
        assert word in str(caught.value.hint)


def test_files_put_by_hand_need_no_network(tiny: Any, put: Path) -> None:
    data = tiny.kind(data_dir=put, mirror="http://127.0.0.1:1", **SMALL)
    data.setup()
    assert {stage: len(data.split(stage)) for stage in ("train", "val", "test")} == {
        "train": 100,
        "val": 20,
        "test": 40,
    }
    assert data.split("train").images.shape == (100, 1, 12, 10)
    assert data.split("train").images.dtype == torch.uint8
    assert data.split("train").labels.dtype == torch.int64


def test_every_image_of_the_training_file_is_in_one_split(tiny: Any, data: MNIST) -> None:
    raw = np.frombuffer(tiny.contents["train-images-idx3-ubyte"], np.uint8, offset=16)
    expected = sorted(image_digest(image) for image in raw.reshape(120, 12, 10))
    found = [*data.split("train").digests(), *data.split("val").digests()]
    assert sorted(found) == expected


def test_the_split_depends_on_split_seed_alone(tiny: Any, data: MNIST) -> None:
    def val(split_seed: int, seed: int) -> list[bytes]:
        module = tiny.kind(data_dir=data.data_dir, split_seed=split_seed, **SMALL)
        module.seed = seed
        torch.manual_seed(seed)
        digests: list[bytes] = module.split("val").digests()
        return digests

    assert val(3, 0) == val(3, 1)
    assert val(3, 0) != val(4, 0)


def test_num_train_and_num_val_are_counts(tiny: Any, data: MNIST) -> None:
    module = tiny.kind(data_dir=data.data_dir, num_train=37, num_val=0.25)
    assert module.digests().counts == {"train": 37, "val": 30, "test": 40}
    assert (
        module.split("val").digests()
        == tiny.kind(data_dir=data.data_dir, num_train=None, num_val=30).split("val").digests()
    )


def test_more_images_than_there_are_cannot_be_had(tiny: Any, data: MNIST) -> None:
    with pytest.raises(UsageError, match="num_train = 101 and num_val = 20: mnist has 120"):
        tiny.kind(data_dir=data.data_dir, num_train=101, num_val=20).setup()
    with pytest.raises(UsageError, match="num_val = 120"):
        tiny.kind(data_dir=data.data_dir, num_val=120).setup()


def test_spec_and_class_names(data: MNIST) -> None:
    assert data.spec == ImageSpec("L", 12, 10, (0.1307,), (0.3081,))
    assert data.class_names == tuple("0123456789")


def test_the_input_is_what_predict_computes(data: MNIST) -> None:
    split = data.split("test")
    expected = normalise(split.images[:, 0].numpy(), data.spec)
    assert np.abs(data.normalise(split.images).numpy() - expected).max() < 1e-6


def test_a_network_of_colour_and_size_shares_the_test_set(tiny: Any, data: MNIST) -> None:
    demand = InputRequirements(mode="RGB", min_side=32, mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.2))
    large = tiny.kind(data_dir=data.data_dir, demand=demand, **SMALL)
    assert large.split("test").images.shape == (40, 3, 38, 32)
    assert large.spec.mean == (0.5, 0.4, 0.3)
    assert large.digests() == data.digests()
    x, _ = next(iter(large.test))
    assert x.shape == (40, 3, 38, 32) and x.is_contiguous()


def test_image_size_comes_before_the_networks_own(tiny: Any, data: MNIST) -> None:
    demand = InputRequirements(height=64, width=64, resize="crop", short_side=80, min_side=16)
    module = tiny.kind(data_dir=data.data_dir, demand=demand, image_size=20, **SMALL)
    assert (module.spec.height, module.spec.width, module.spec.short_side) == (20, 20, 25)
    assert module.split("val").images.shape == (20, 1, 20, 20)
    with pytest.raises(UsageError, match=r"image_size = 8: this network needs 16"):
        tiny.kind(data_dir=data.data_dir, demand=demand, image_size=8, **SMALL).setup()


def test_data_dir_is_that_of_the_configuration(root: Path) -> None:
    assert MNIST().raw_folder == root / "data" / "MNIST" / "raw"
    assert FashionMNIST().raw_folder == root / "data" / "FashionMNIST" / "raw"


@pytest.mark.parametrize("kind", [MNIST, FashionMNIST])
def test_torchvision_knows_the_same_files(kind: type[MNIST]) -> None:
    import torchvision.datasets

    theirs = getattr(torchvision.datasets, kind.folder_name)
    assert [f"{file.name}.gz" for file in kind.files] == [name for name, _ in theirs.resources]
    assert kind(data_dir=".")._mirrors() == theirs.mirrors
    if kind is FashionMNIST:
        assert list(kind.names) == theirs.classes


def test_files_that_do_not_fit_each_other_are_refused(tiny: Any, tmp_path: Path) -> None:
    contents = dict(tiny.contents)
    contents["train-labels-idx1-ubyte"] = contents["t10k-labels-idx1-ubyte"]
    kind = with_contents(tiny, contents, tmp_path / "a")
    with pytest.raises(DataError, match=r"120 images.*40 labels"):
        kind(data_dir=tmp_path / "a", **SMALL).setup()
    contents = dict(tiny.contents)
    contents["t10k-labels-idx1-ubyte"] = contents["t10k-labels-idx1-ubyte"][:-1] + b"\x0a"
    kind = with_contents(tiny, contents, tmp_path / "b")
    with pytest.raises(DataError, match="label 10, expected 0 to 9"):
        kind(data_dir=tmp_path / "b", **SMALL).setup()


def with_contents(tiny: Any, contents: dict[str, bytes], folder: Path) -> type[MNIST]:
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, content in contents.items():
        (raw / f"{name}.gz").write_bytes(gzip.compress(content))
    files = tuple(
        RemoteFile(name, len(content), hashlib.sha256(content).hexdigest())
        for name, content in contents.items()
    )
    return type("Odd", (tiny.kind,), {"files": files})


def test_a_folder_with_spaces_and_umlauts(tiny: Any, tmp_path: Path) -> None:
    folder = tmp_path / "Bilder für später"
    tiny.put(folder / "MNIST" / "raw", gzipped=True)
    assert len(tiny.kind(data_dir=folder, **SMALL).test) == 1
