"""Every section and key, declared once: type, range, default, help."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Literal, get_type_hints

from pydantic import ByteSize, Field
from pydantic.fields import FieldInfo

from mindtrace.config import schema
from mindtrace.config.formats import FORMAT_NAMES, FORMATS, SERVED
from mindtrace.config.ini import Place, packaged_layer

_Small = Literal["kmnist", "emnist", "cifar10", "cifar100", "svhn"]
_Photos = Literal["flowers102", "oxford_iiit_pet", "eurosat", "food101"]
Source = Literal["mnist", "fashion_mnist", "digits", "folder", _Small, _Photos, "table"]
#: The sources that `[data] dir` names, and that begin with pretrained weights.
PHOTO_SOURCES = ("folder", "table")
#: What `[model] weights` may be besides a path, and all that a request may say.
STARTS = ("auto", "none", "default")

Seconds = Annotated[float, Field(gt=0)]
key = schema.key
public = partial(key, request=True)  # POST /retrain may set it; all else is the machine's own
BLANK = ("", "none")
optional = partial(key, None, none=BLANK)
AUTO = ("", "none", "auto")
size = partial(key, ge=1024, words="a size such as 262144, 256 KiB or 16 MiB")


class DirSettings(schema.Section):
    """Where things are kept."""

    # Their defaults stand in config.ini, which `Config` reads as well.
    root: Path = key(..., "the folder that holds everything else", kind=schema.PATH)
    data: Path = key(..., "downloaded images", kind=schema.PATH)
    checkpoints: Path = key(..., "checkpoints of running trainings", kind=schema.PATH)


class DataSettings(schema.Section):
    """The images."""

    source: Source = public("mnist", "where images come from; digits needs no network")
    dir: Path | None = optional(
        "of source = folder: one sub-folder a class, under train/val/test or as one tree; "
        "of table: a CSV or Parquet file with path and label, also split, group, weight",
        kind=schema.PATH,
    )
    mirror: str | None = optional(
        "download mnist and its kin, cifar and svhn from here instead of torchvision's addresses",
        kind=schema.url("http", "https"),
        repr=False,
    )
    batch_size: int = public(64, "images per training step", ge=1)
    num_workers: int = public(
        0, "threads that decode image files; 0 for as many as there are cores", ge=0, le=1024
    )
    num_val: Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0, lt=1)] | None = public(
        None,
        "fraction for validation (blank: 0.1); for mnist and its kin images of train (blank: 5000)",
        none=AUTO,
        words="a whole number of images, or a fraction above 0 and below 1",
    )
    test_fraction: float = public(
        0.2,
        "fraction of images for the test, where the source has no test split of its own",
        gt=0,
        lt=1,
    )
    split_seed: int = public(0, "with each image, decides its split and nothing else", ge=0)
    group: str | None = optional(
        "keeps in one split the images in whose relative paths it finds the same text; of a "
        "table: or a column",
        kind=schema.REGEX,
    )
    image_size: int | None = public(
        None,
        "height and width in pixels; blank is what the source or the network uses",
        none=AUTO,
        ge=1,
        le=1024,
    )
    formats: tuple[str, ...] = key(
        tuple(FORMATS),
        "image files that train, predict and data check read; heic needs mindtrace[heif]",
        kind=FORMAT_NAMES,
    )
    max_pixels: int = key(
        100_000_000, "largest image file, in pixels, that train, predict and data check read", ge=1
    )
    resize: Literal["auto", "stretch", "crop", "pad"] = public(
        "auto", "how images of another shape are brought to that size; auto: as the network has it"
    )
    augment: Literal["none", "light", "photo", "strong"] = public(
        "none",
        "light: small shifts and turns; photo: crops, mirroring, light and colour; strong: more",
    )


class ModelSettings(schema.Section):
    """The network."""

    name: str = public(
        "mlp",
        "the architecture: mlp, cnn, or any of timm, such as tf_efficientnet_lite0 or resnet18",
        words="mlp, cnn or a name in timm.list_models()",
    )
    hidden: int = public(100, "units in the hidden layer of mlp", ge=1, le=65536)
    dropout: float = public(0.2, "fraction of units that a training step leaves out", ge=0, lt=1)
    weights: str = public(
        "auto",
        "initial weights: random, pretrained (auto: for source = folder), or a .safetensors file",
        kind=schema.path("auto, none, default or a path", str, STARTS),
    )
    freeze: bool = public(False, "train the last layer only, in each epoch with less weight decay")


class TrainSettings(schema.Section):
    """The training."""

    max_epochs: int = public(10, "passes over the training images", ge=1)
    lr: float = public(0.001, "learning rate; with one_cycle the highest", gt=0)
    schedule: Literal["constant", "one_cycle"] = public("constant", "how the learning rate changes")
    monitor: Literal["val_acc", "val_loss", "val_balanced_accuracy", "val_f1_macro"] = public(
        "val_acc", "the metric that decides which epoch's weights are best"
    )
    balance: Literal["none", "loss", "sample"] = public(
        "none", "for rare classes: loss weighs their images more, sample shows them more often"
    )
    label_smoothing: float = public(0.0, "probability that is spread over all classes", ge=0, lt=1)
    mixup: float = public(
        0.0,
        "blend pairs of images and their labels, by a Beta(mixup, mixup) share; 0 is off",
        ge=0,
        le=10,
    )
    weight_decay: float = public(0.01, "how strongly AdamW pulls weights to zero", ge=0, le=10)
    average: Literal["none", "ema"] = public(
        "none", "ema: validate and keep a moving average of the weights over about the last epoch"
    )
    patience: int | None = public(
        None, "epochs without improvement after which to stop", none=("none", ""), ge=1
    )
    seed: int = public(
        0,
        "seeds weights, dropout and the order of images; the split has its own seed",
        ge=0,
        le=2**32 - 1,
    )
    max_minutes: float | None = public(None, "minutes after which to stop", none=("none", ""), gt=0)


class RegistrySettings(schema.Section):
    """Where versions are kept: an MLflow store."""

    model_name: str | None = public(
        None,
        "the name to register under; blank is the name of the source or of its folder",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
        words="1 to 64 letters, digits, '.', '_' or '-', and begin with a letter or digit",
        none=("",),
    )
    metric: Literal["accuracy", "balanced_accuracy", "f1_macro"] = key(
        "accuracy", "what the gate compares; the other two weigh all classes alike"
    )
    margin: float = key(0.01, "loss in the metric that still counts as equal", ge=0, le=1)
    class_margin: float = key(
        0.05, "loss of accuracy in one class that is no reason to reject", ge=0, le=1
    )
    experiment_name: str | None = key(
        None,
        "MLflow experiment of the runs; blank is the same as model_name",
        pattern=r"^[^\s/](?:[^\x00-\x1f\x7f/]{0,198}[^\s/])?$",
        words="one line of at most 200 characters, without /",
        none=("",),
    )
    tracking_uri: str = key(
        "sqlite:///${DIR_PATHS:ROOT}/mlflow.db",
        "the store: SQLite, another database or an MLflow server",
        kind=schema.url("sqlite", "postgresql", "mysql", "mssql", "http", "https"),
        repr=False,
    )


class ServeSettings(schema.Section):
    """The server. Timeouts are in seconds."""

    host: str = key(
        "127.0.0.1",
        "address to listen on; any but a loopback one needs a token_file",
        pattern=r"^[A-Za-z0-9._:-]+$",
        words="a host name or an address",
    )
    port: int = key(8000, "port to listen on; 0 is any free one", ge=0, le=65535)
    workers: int = key(1, "processes that answer requests", ge=1, le=256)
    token_file: Path | None = optional(
        "file with the token that every request must carry", kind=schema.PATH
    )
    allowed_hosts: tuple[str, ...] = key(
        (),
        "host names, besides the loopback ones, under which the server may be called",
        kind=schema.HOSTS,
    )
    max_body: ByteSize = size(16 * 2**20, "largest body of a request")
    max_retrain_body: ByteSize = size(256 * 2**10, "largest body of POST /retrain")
    max_header: ByteSize = size(16 * 2**10, "largest header of a request")
    formats: tuple[str, ...] = key(SERVED, "image files that are read", kind=FORMAT_NAMES)
    max_pixels: int = key(25_000_000, "largest image, in pixels", ge=1)
    max_connections: int = key(1024, "most connections at once", ge=1)
    queue: int = key(64, "requests that may wait", ge=1)
    header_timeout: Seconds = key(10.0, "until the header of a request has arrived")
    body_timeout: Seconds = key(
        30.0, "until its body has arrived, and until its response has been read"
    )
    request_timeout: Seconds = key(10.0, "until it is answered")
    drain_timeout: Seconds = key(30.0, "for open requests to finish at shutdown")
    access_log: bool = key(False, "write a line of JSON to stderr for every request")


class JobSettings(schema.Section):
    """Retraining."""

    database_url: str | None = optional(
        "where jobs are kept; blank is SQLite in ROOT",
        kind=schema.url("sqlite", "postgresql"),
        repr=False,
    )
    promote: Literal["never", "gate", "always"] = key(
        "never", "whether a retrained version becomes champion; gate: if the comparison allows it"
    )
    max_queued: int = key(8, "jobs that may wait", ge=1)


class ComputeSettings(schema.Section):
    """The machine."""

    device: str = key(
        "auto",
        "the device to train on",
        pattern=r"^(auto|cpu|mps|cuda(:[0-9]{1,3})?)$",
        words="auto, cpu, mps, cuda or cuda:N",
    )
    precision: Literal["auto", "32", "bf16"] = public(
        "auto", "number format while training; results are float32"
    )
    threads: int | None = public(
        None, "processor threads for training", none=("auto", "none", ""), ge=1, le=1024
    )
    pin_memory: bool = key(False, "use pinned memory for copies to a GPU")


@dataclass(frozen=True)
class Sections:
    """All of them."""

    dirs: DirSettings  # [DIR_PATHS] of an INI
    data: DataSettings
    model: ModelSettings
    train: TrainSettings
    registry: RegistrySettings
    serve: ServeSettings
    jobs: JobSettings
    compute: ComputeSettings


#: By their names in an INI.
SECTIONS: Mapping[str, type[schema.Section]] = {
    "DIR_PATHS" if name == "dirs" else name: kind for name, kind in get_type_hints(Sections).items()
}
#: The sections that a bundle or a run may carry; the rest belongs to a machine.
TRAVELLING = ("data", "model", "train", "compute")
#: (section, key) as in an INI -> its field.
KEYS: Mapping[Place, FieldInfo] = {
    (section, name.upper() if section == "DIR_PATHS" else name): declared
    for section, model in SECTIONS.items()
    for name, declared in model.model_fields.items()
}
#: section -> the names of its keys.
KNOWN: Mapping[str, Sequence[str]] = {
    section: [name for owner, name in KEYS if owner == section] for section in SECTIONS
}
#: What others call a key.
SYNONYMS: Mapping[str, Place] = {
    "dataset": ("data", "source"),
    "batch": ("data", "batch_size"),
    "workers": ("data", "num_workers"),
    "val_split": ("data", "num_val"),
    "architecture": ("model", "name"),
    "pretrained": ("model", "weights"),
    "epochs": ("train", "max_epochs"),
    "learning_rate": ("train", "lr"),
    "early_stopping": ("train", "patience"),
    "gpu": ("compute", "device"),
}
#: All that a retraining may ask for.
PUBLISHED = frozenset(place for place, declared in KEYS.items() if schema.key_of(declared).request)


@cache
def default_texts() -> dict[Place, str]:
    """The INI text of each default, with its references."""
    texts = {place: entry.text for place, entry in packaged_layer().entries.items()}
    others = [place for place in KEYS if place not in texts]
    return texts | {place: schema.ini_text(KEYS[place], KEYS[place].default) for place in others}


def images_at(path: str | None) -> dict[str, str]:
    """The source that a path is."""
    if path is None:
        return {}
    table = path.lower().endswith((".csv", ".tsv", ".parquet")) and not Path(path).is_dir()
    return {"data.source": "table" if table else "folder", "data.dir": path}
