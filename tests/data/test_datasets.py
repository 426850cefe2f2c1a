"""Sources of torchvision, each from a few images in its own file format; downloads; MNIST."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import scipy.io
import torch
import torchvision.datasets
from PIL import Image
from tests.data.conftest import idx_contents
from torch.utils.data import DataLoader

from mindtrace.config.sections import Source
from mindtrace.config.settings import load_settings
from mindtrace.data import MNIST, InputRequirements, TorchvisionImages, build_data
from mindtrace.data.datasets import SOURCES
from mindtrace.errors import DataError, DownloadError, UsageError
from mindtrace.preprocess import ImageSpec, image_digest, normalise

SMALL: dict[str, Any] = {"num_train": None, "num_val": 20}
CLOSED = "http://127.0.0.1:1"
RNG = np.random.default_rng(3)


def md5(path: Path) -> str:
    return torchvision.datasets.utils.calculate_md5(path)  # type: ignore[no-any-return]


@pytest.fixture
def data(tiny: Any, tmp_path: Path) -> MNIST:
    tiny.put(tmp_path / "MNIST" / "raw", gzipped=False)
    return MNIST(data_dir=tmp_path, batch_size=16, **SMALL)


@pytest.mark.parametrize("workers", [0, 2])
def test_any_data_loader_takes_a_split(data: MNIST, workers: int) -> None:
    image, label = data.train[3]
    assert (image.shape, image.dtype, type(label)) == ((1, 12, 10), torch.float32, int)
    assert torch.equal(image, data.sample("train", 3)[0]) and label == data.sample("train", 3)[1]
    with pytest.raises(IndexError):
        data.train[100]
    batches = list(DataLoader(data.test, batch_size=16, num_workers=workers))
    x, y = next(iter(data.test_dataloader()))
    assert torch.equal(torch.cat([a for a, _ in batches]), x)
    assert torch.equal(torch.cat([b for _, b in batches]), y)


# -- each source in its own format


def jpeg(path: Path, size: tuple[int, int] = (9, 7)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RNG.integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)


def idx_kind(name: str, *prefixes: str) -> Callable[[Path, pytest.MonkeyPatch], None]:
    def put(home: Path, _: pytest.MonkeyPatch) -> None:
        raw = home / name / "raw"
        raw.mkdir(parents=True)
        counts = dict(zip(prefixes or ("train", "t10k"), (30, 10), strict=True))
        for file, content in idx_contents(counts, (6, 5)).items():
            (raw / file).write_bytes(content)

    return put


def cifar(name: str, labels: str, classes: int) -> Callable[[Path, pytest.MonkeyPatch], None]:
    def put(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        kind = getattr(torchvision.datasets, name)
        folder = home / kind.base_folder
        folder.mkdir()

        def write(file: str, content: dict[str, Any]) -> list[str]:
            (folder / file).write_bytes(pickle.dumps(content))
            return [file, md5(folder / file)]

        def batch(file: str, count: int) -> list[str]:
            pixels = RNG.integers(0, 256, (count, 3072), dtype=np.uint8)
            return write(file, {"data": pixels, labels: [n % classes for n in range(count)]})

        names = [f"class {n}" for n in range(classes)]
        meta = write(kind.meta["filename"], {kind.meta["key"]: names})
        train = [batch(file, max(20, 4 * classes)) for file, _ in kind.train_list]
        monkeypatch.setattr(kind, "train_list", train)
        monkeypatch.setattr(kind, "test_list", [batch(kind.test_list[0][0], 10)])
        monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": meta[1]})

    return put


def svhn(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    split_list = {}
    for name, count in (("train", 30), ("test", 10)):
        file = home / f"{name}_32x32.mat"
        labels = np.arange(count)[:, None] % 10 + 1  # 10 stands for the digit 0
        pixels = RNG.integers(0, 256, (32, 32, 3, count), dtype=np.uint8)
        scipy.io.savemat(file, {"X": pixels, "y": labels.astype(np.uint8)})
        split_list[name] = ["http://nowhere.example/", file.name, md5(file)]
    monkeypatch.setattr(torchvision.datasets.SVHN, "split_list", split_list)


def flowers(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = home / "flowers-102"
    for number in range(1, 13):
        jpeg(base / "jpg" / f"image_{number:05d}.jpg")
    parts = {"trnid": [1, 2, 3, 4, 5, 6], "valid": [7, 8], "tstid": [9, 10, 11, 12]}
    scipy.io.savemat(base / "setid.mat", parts)
    scipy.io.savemat(base / "imagelabels.mat", {"labels": [n % 3 + 1 for n in range(12)]})
    files = {"image": ("102flowers.tgz", "")}
    for key, name in (("label", "imagelabels.mat"), ("setid", "setid.mat")):
        files[key] = (name, md5(base / name))
    monkeypatch.setattr(torchvision.datasets.Flowers102, "_file_dict", files)


def pets(home: Path, _: pytest.MonkeyPatch) -> None:
    base = home / "oxford-iiit-pet"
    for part, count in (("trainval", 20), ("test", 6)):
        lines = []
        for number in range(count):
            name = f"{('Abyssinian', 'basset_hound')[number % 2]}_{part}{number}"
            jpeg(base / "images" / f"{name}.jpg")
            lines.append(f"{name} {number % 2 + 1} {number % 2 + 1} 1\n")
        (base / "annotations").mkdir(exist_ok=True)
        (base / "annotations" / f"{part}.txt").write_text("".join(lines))


def eurosat(home: Path, _: pytest.MonkeyPatch) -> None:
    for name in ("Forest", "River"):
        for number in range(10):
            jpeg(home / "eurosat" / "2750" / name / f"{name}_{number}.jpg")


def food(home: Path, _: pytest.MonkeyPatch) -> None:
    base = home / "food-101"
    (base / "meta").mkdir(parents=True)
    for part, count in (("train", 10), ("test", 3)):
        listed = {name: [f"{name}/{part}{n}" for n in range(count)] for name in ("pho", "tacos")}
        (base / "meta" / f"{part}.json").write_text(json.dumps(listed))
        for images in listed.values():
            for image in images:
                jpeg(base / "images" / f"{image}.jpg")


PUT: dict[str, Callable[[Path, pytest.MonkeyPatch], None]] = {
    "mnist": idx_kind("MNIST"),
    "fashion_mnist": idx_kind("FashionMNIST"),
    "kmnist": idx_kind("KMNIST"),
    "emnist": idx_kind("EMNIST", "emnist-balanced-train", "emnist-balanced-test"),
    "cifar10": cifar("CIFAR10", "labels", 10),
    "cifar100": cifar("CIFAR100", "fine_labels", 100),
    "svhn": svhn,
    "flowers102": flowers,
    "oxford_iiit_pet": pets,
    "eurosat": eurosat,
    "food101": food,
}
# train, val and test; the first and the last class; channels, height and width.
EXPECTED: dict[str, tuple[tuple[int, ...], tuple[str, str], tuple[int, ...]]] = {
    "mnist": ((25, 5, 10), ("0", "9"), (1, 6, 5)),
    "fashion_mnist": ((25, 5, 10), ("T-shirt/top", "Ankle boot"), (1, 6, 5)),
    "kmnist": ((25, 5, 10), ("o", "wo"), (1, 6, 5)),
    "emnist": ((25, 5, 10), ("0", "t"), (1, 5, 6)),
    "cifar10": ((195, 5, 10), ("class 0", "class 9"), (3, 32, 32)),
    "cifar100": ((395, 5, 10), ("class 0", "class 99"), (3, 32, 32)),
    "svhn": ((25, 5, 10), ("0", "9"), (3, 32, 32)),
    "flowers102": ((6, 2, 4), ("pink primrose", "blackberry lily"), (3, 9, 7)),
    "oxford_iiit_pet": ((15, 5, 6), ("Abyssinian", "Basset Hound"), (3, 9, 7)),
    "eurosat": ((11, 5, 4), ("Forest", "River"), (3, 9, 7)),
    "food101": ((15, 5, 6), ("pho", "tacos"), (3, 9, 7)),
}


def test_every_source_can_be_configured_and_is_tested() -> None:
    assert set(get_args(Source)) == {*SOURCES, "digits", "folder", "table"}
    assert set(SOURCES) == set(PUT) == set(EXPECTED)


@pytest.mark.parametrize("source", list(SOURCES))
def test_a_source_is_read_from_files_put_by_hand(
    root: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    (root / "data").mkdir(parents=True)
    PUT[source](root / "data", monkeypatch)
    counts, (first, last), shape = EXPECTED[source]
    kept = SOURCES[source].mnist_kind or source == "flowers102"
    num_val = 5 if kept else 0.25
    data = build_data(load_settings(sets=[f"data.source={source}", f"data.num_val={num_val}"]))
    assert data.source == source
    if not kept:  # by image: as many as the images' digests say
        found = tuple(data.digests().counts.values())
        assert sum(found) == sum(counts) and all(found)
        assert found[2] == counts[2] or source == "eurosat"
        counts = found
        count = build_data(load_settings(sets=[f"data.source={source}", "data.num_val=5"]))
        with pytest.raises(UsageError, match=r"num_val = 5\.?0?: must be fractions"):
            count.setup()
    assert tuple(len(data.split(stage)) for stage in ("train", "val", "test")) == counts
    assert (data.class_names[0], data.class_names[-1]) == (first, last)
    image, label = data.train[0]
    assert image.shape == shape and 0 <= label < len(data.class_names)
    assert (data.spec.height, data.spec.width) == shape[1:]
    assert data.digests().counts == dict(zip(("train", "val", "test"), counts, strict=True))


@pytest.mark.parametrize("source", ["cifar10", "svhn", "emnist"])
def test_pixels_and_labels_stay_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    PUT[source](tmp_path, monkeypatch)
    data = TorchvisionImages(source, data_dir=tmp_path, num_val=0.2)
    arguments = SOURCES[source].splits["test"]
    theirs = getattr(torchvision.datasets, SOURCES[source].dataset)(tmp_path, **arguments)
    for index in range(10):
        image, label = theirs[index]
        image = image.transpose(Image.Transpose.TRANSPOSE) if source == "emnist" else image
        assert data.test.digests()[index] == image_digest(np.asarray(image))
        assert int(data.test.labels[index]) == label


def test_colour_images_for_a_grey_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    PUT["cifar10"](tmp_path, monkeypatch)
    requirements = InputRequirements(mode="L", height=20, width=20)
    grey = TorchvisionImages("cifar10", data_dir=tmp_path, requirements=requirements)
    assert grey.test.images.shape == (10, 1, 20, 20)
    colour = TorchvisionImages("cifar10", data_dir=tmp_path, image_size=16)
    assert colour.test.images.shape == (10, 3, 16, 16)
    assert grey.digests() == colour.digests()


def test_a_pickle_with_another_checksum_is_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    PUT["cifar10"](tmp_path, monkeypatch)

    class Attack:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "attacked",))

    (tmp_path / "cifar-10-batches-py" / "test_batch").write_bytes(pickle.dumps(Attack()))
    with pytest.raises(DownloadError, match=r"damaged; cannot download cifar10"):
        TorchvisionImages("cifar10", data_dir=tmp_path, mirror=CLOSED).setup()
    assert not (tmp_path / "attacked").exists()


def test_a_mirror_is_refused_where_it_cannot_serve(tmp_path: Path) -> None:
    for source in ("flowers102", "oxford_iiit_pet", "eurosat", "food101"):
        with pytest.raises(UsageError, match=f"mirror: torchvision downloads {source}"):
            TorchvisionImages(source, data_dir=tmp_path, mirror=CLOSED)


# -- downloads


def left_in(home: Path) -> list[str]:
    return sorted(path.name for path in home.iterdir())


def test_the_first_use_downloads_and_the_next_one_does_not(
    tiny: Any, mirror: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mirror.files = tiny.gzipped()
    data = MNIST(data_dir=tmp_path, mirror=mirror.url, **SMALL)
    heard: list[str] = []
    data.progress.stage = heard.append  # type: ignore[method-assign]
    assert len(data.train) == 100
    asked = len(mirror.asked)
    assert set(mirror.asked) == set(mirror.files) and "downloading mnist" in heard
    assert len(MNIST(data_dir=tmp_path, mirror=mirror.url, **SMALL).train) == 100
    assert len(mirror.asked) == asked
    assert left_in(tmp_path) == [".lock", "MNIST"]
    assert set(left_in(tmp_path / "MNIST" / "raw")) >= set(tiny.contents)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("level", [None, 9, 1])
def test_files_put_by_hand_need_no_network(tiny: Any, tmp_path: Path, level: int | None) -> None:
    """Gzipped or not; compressed again by somebody, with another checksum, is as good."""
    home = tmp_path / "Bilder für später"
    raw = home / "MNIST" / "raw"
    tiny.put(raw, gzipped=level is not None)
    if level == 1:
        for name, content in tiny.contents.items():
            (raw / f"{name}.gz").write_bytes(gzip.compress(content, 1))
    data = MNIST(data_dir=home, mirror=CLOSED, **SMALL)
    assert (len(data.train), len(data.val), len(data.test)) == (100, 20, 40)
    assert data.train.images.shape == (100, 1, 12, 10)
    assert (data.train.images.dtype, data.train.labels.dtype) == (torch.uint8, torch.int64)


def test_archives_in_a_read_only_folder_are_read(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.put(tmp_path / "MNIST" / "raw", gzipped=True)
    # Not chmod: root may write anyway.
    monkeypatch.setattr("mindtrace.data.datasets.os.access", lambda *_: False)
    data = MNIST(data_dir=tmp_path, mirror=CLOSED, **SMALL)
    assert (len(data.train), len(data.val), len(data.test)) == (100, 20, 40)
    assert left_in(tmp_path) == ["MNIST"]
    assert all(path.suffix == ".gz" for path in (tmp_path / "MNIST" / "raw").iterdir())


@pytest.mark.parametrize("kept", [500, 1, 0, None])
def test_only_what_is_missing_or_damaged_is_downloaded(
    tiny: Any, mirror: Any, tmp_path: Path, kept: int | None
) -> None:
    mirror.files = tiny.gzipped()
    raw = tmp_path / "MNIST" / "raw"
    tiny.put(raw, gzipped=kept is None)
    if kept is None:
        (raw / "t10k-labels-idx1-ubyte.gz").unlink()
    else:
        os.truncate(raw / "train-images-idx3-ubyte", kept)
    MNIST(data_dir=tmp_path, mirror=mirror.url, **SMALL).prepare_data()
    for name, expected in tiny.contents.items():
        assert (raw / name).read_bytes() == expected
    if kept is None:
        assert set(mirror.asked) == {"t10k-labels-idx1-ubyte.gz"}


def test_without_a_network_the_error_says_what_to_do(
    tiny: Any, mirror: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    PUT["cifar10"](tmp_path, monkeypatch)
    for path in (tmp_path / "cifar-10-batches-py").iterdir():
        path.unlink()
    for source, folder, url in (
        ("mnist", "MNIST/raw", mirror.url),
        ("mnist", "MNIST/raw", CLOSED),
        ("cifar10", "cifar-10-batches-py", CLOSED),
    ):
        with pytest.raises(DownloadError) as caught:
            TorchvisionImages(source, data_dir=tmp_path, mirror=url).prepare_data()
        message, hint = caught.value.message, str(caught.value.hint)
        assert message.startswith(f"cannot download {source}: ") and "\n" not in message
        for remedy in ("[data] mirror", str(tmp_path / folder), "source = digits"):
            assert remedy in hint
    assert left_in(tmp_path) == [".lock", "cifar-10-batches-py"]


def test_another_content_and_a_silent_server_are_refused(
    tiny: Any, mirror: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror.files = tiny.gzipped()
    released = threading.Event()
    mirror.answers = [lambda request, body: released.wait(30)] * 4
    try:
        with monkeypatch.context() as patch, pytest.raises(DownloadError, match="timed out"):
            patch.setattr("mindtrace.data.download._TIMEOUT_S", 0.1)
            MNIST(data_dir=tmp_path, mirror=mirror.url).prepare_data()
    finally:
        released.set()
    mirror.answers = []
    mirror.files["t10k-labels-idx1-ubyte.gz"] = b"<html>sign in first</html>"
    with pytest.raises(DownloadError, match="corrupted"):
        MNIST(data_dir=tmp_path, mirror=mirror.url).prepare_data()
    assert left_in(tmp_path) == [".lock"]


def unavailable(request: Any, _: bytes) -> None:
    request.send_error(503)


def cut_short(request: Any, body: bytes) -> None:
    request.send_response(200)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    request.wfile.write(body[:-5])


def test_a_download_is_tried_again(
    tiny: Any, mirror: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mindtrace.data.download._PAUSE_S", 0)
    mirror.files = tiny.gzipped()
    mirror.answers = [unavailable, cut_short]
    assert len(MNIST(data_dir=tmp_path, mirror=mirror.url, **SMALL).train) == 100
    mirror.answers = [unavailable] * 3
    with pytest.raises(DownloadError, match="HTTP Error 503"):
        MNIST(data_dir=tmp_path / "other", mirror=mirror.url).prepare_data()


def test_a_login_is_sent_and_not_shown(tiny: Any, mirror: Any, tmp_path: Path) -> None:
    mirror.files = tiny.gzipped()
    url = mirror.url.replace("://", "://ann:s%40crt@")
    MNIST(data_dir=tmp_path / "a", mirror=url, **SMALL).prepare_data()
    assert {one["Authorization"] for one in mirror.headers} == {"Basic YW5uOnNAY3J0"}
    mirror.files.clear()
    with pytest.raises(DownloadError) as caught:
        MNIST(data_dir=tmp_path / "b", mirror=url).prepare_data()
    assert "s%40crt" not in str(caught.value) and "s@crt" not in str(caught.value)


def test_a_folder_that_cannot_be_written_is_named(tiny: Any, mirror: Any, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DownloadError, match=f"cannot write into {tmp_path}/file/data"):
        MNIST(data_dir=tmp_path / "file" / "data", mirror=mirror.url).prepare_data()
    assert mirror.asked == []


_CHILD = """
import sys, torchvision
from mindtrace.data import MNIST
torchvision.datasets.MNIST.resources = eval(sys.argv[3])
MNIST(data_dir=sys.argv[1], mirror=sys.argv[2], num_train=None, num_val=20).setup()
"""


@pytest.mark.proof
def test_a_killed_download_leaves_nothing_that_looks_whole(
    tiny: Any, mirror: Any, tmp_path: Path
) -> None:
    mirror.files = tiny.gzipped()
    asked, released = threading.Event(), threading.Event()

    def stuck(request: Any, body: bytes) -> None:
        asked.set()
        released.wait(30)

    mirror.answers = [stuck]
    resources = repr(torchvision.datasets.MNIST.resources)
    command = [sys.executable, "-c", _CHILD, str(tmp_path), mirror.url, resources]
    first = subprocess.Popen(command)
    try:
        assert asked.wait(60)
        first.kill()
        first.wait()
    finally:
        released.set()
    assert left_in(tmp_path) == [".lock", ".mnist.new"]
    several = [subprocess.Popen(command) for _ in range(2)]
    assert [process.wait(120) for process in several] == [0, 0]
    assert left_in(tmp_path) == [".lock", "MNIST"]


# -- MNIST


def test_every_image_is_in_one_split_which_depends_on_split_seed_alone(
    tiny: Any, data: MNIST
) -> None:
    raw = np.frombuffer(tiny.contents["train-images-idx3-ubyte"], np.uint8, offset=16)
    expected = sorted(image_digest(image) for image in raw.reshape(120, 12, 10))
    assert sorted([*data.train.digests(), *data.val.digests()]) == expected

    def val(split_seed: int, seed: int) -> list[bytes]:
        module = MNIST(data_dir=data.data_dir, split_seed=split_seed, **SMALL)
        module.order.seed = seed
        torch.manual_seed(seed)
        return module.val.digests()

    assert val(3, 0) == val(3, 1) != val(4, 0)


def test_num_train_and_num_val_are_counts(data: MNIST) -> None:
    module = MNIST(data_dir=data.data_dir, num_train=37, num_val=0.25)
    assert module.digests().counts == {"train": 37, "val": 30, "test": 40}
    other = MNIST(data_dir=data.data_dir, num_train=None, num_val=30)
    assert module.val.digests() == other.val.digests()
    with pytest.raises(UsageError, match="num_train = 101 and num_val = 20: there are 120"):
        MNIST(data_dir=data.data_dir, num_train=101, num_val=20).setup()
    with pytest.raises(UsageError, match="num_val = 120"):
        MNIST(data_dir=data.data_dir, num_val=120).setup()


def test_the_input_is_what_predict_computes(data: MNIST) -> None:
    assert data.spec == ImageSpec("L", 12, 10, (0.1307,), (0.3081,))
    assert data.class_names == tuple("0123456789")
    expected = normalise(data.test.images[:, 0].numpy(), data.spec)
    assert np.abs(data.normalise(data.test.images).numpy() - expected).max() < 1e-6


def test_a_network_of_colour_and_size_shares_the_test_set(data: MNIST) -> None:
    requirements = InputRequirements(
        mode="RGB", min_side=32, mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.2)
    )
    large = MNIST(data_dir=data.data_dir, requirements=requirements, **SMALL)
    assert large.test.images.shape == (40, 3, 38, 32)
    assert large.spec.mean == (0.5, 0.4, 0.3)
    assert large.digests() == data.digests()
    x, _ = next(iter(large.test_dataloader()))
    assert x.shape == (40, 3, 38, 32) and x.is_contiguous()


def test_image_size_comes_before_the_networks_own(data: MNIST) -> None:
    requirements = InputRequirements(height=64, width=64, resize="crop", short_side=80, min_side=16)
    module = MNIST(data_dir=data.data_dir, requirements=requirements, image_size=20, **SMALL)
    assert (module.spec.height, module.spec.width, module.spec.short_side) == (20, 20, 25)
    assert module.val.images.shape == (20, 1, 20, 20)
    with pytest.raises(UsageError, match=r"image_size = 8: this network needs 16"):
        MNIST(data_dir=data.data_dir, requirements=requirements, image_size=8, **SMALL).setup()


def test_files_that_do_not_fit_each_other_are_refused(tiny: Any, tmp_path: Path) -> None:
    contents = dict(tiny.contents)
    tiny.put(tmp_path / "MNIST" / "raw", gzipped=False)
    labels = tmp_path / "MNIST" / "raw" / "train-labels-idx1-ubyte"
    for content, says in (
        (contents["t10k-labels-idx1-ubyte"], r"120 images.*40 labels"),
        (contents[labels.name][:-1] + b"\x0a", "label 10, expected 0 to 9"),
    ):
        labels.write_bytes(content)
        with pytest.raises(DataError, match=says):
            MNIST(data_dir=tmp_path, **SMALL).setup()
