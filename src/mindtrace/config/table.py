"""Room core: every section and key there is, in one table; nothing comes in.

The only source of defaults, ranges, documentation, synonyms and of the keys that
`POST /retrain` takes. Only the defaults of `[DIR_PATHS]` stand elsewhere: in `config.ini`,
which `Config` reads as well.
"""

from __future__ import annotations

from mindtrace.config.keys import Key, Section
from mindtrace.config.places import hosts, path, path_or, url
from mindtrace.config.values import (
    choice,
    count_or_fraction,
    flag,
    fraction,
    matching,
    optional,
    positive,
    size,
    whole,
)

SOURCES = ("mnist", "fashion_mnist", "digits", "folder")
# torchvision's, each of which has been tried on grey and on colour images
VISION_NAMES = (
    *("resnet18", "resnet50", "mobilenet_v3_small"),
    *("efficientnet_b0", "convnext_tiny", "shufflenet_v2_x1_0"),
)
NETWORKS = ("mlp", "cnn", *VISION_NAMES)
_NAME = matching(
    r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}",
    "1 to 64 letters, digits, '.', '_' or '-', and begin with a letter or digit",
)
_TITLE = matching(
    r"[^\s/](?:[^\x00-\x1f\x7f/]{0,198}[^\s/])?", "one line of at most 200 signs, without /"
)
_HOST = matching(r"[A-Za-z0-9._:-]+", "a host name or an address")
_DEVICE = matching(r"auto|cpu|mps|cuda(:[0-9]{1,3})?", "auto, cpu, mps, cuda or cuda:N")
_STORE = url("sqlite", "postgresql", "mysql", "mssql", "http", "https")

_PATHS = Section(
    name="DIR_PATHS",
    field="dirs",
    doc="Where things are kept.",
    synonyms="paths dirs directories path dir",
    keys=(
        Key("ROOT", path(), None, "the folder of everything else"),
        Key("DATA", path(), None, "images that were downloaded"),
        Key("CHECKPOINTS", path(), None, "checkpoints of trainings under way"),
    ),
)

_DATA = Section(
    name="data",
    field="data",
    doc="The images.",
    published="source batch_size num_workers num_val test_fraction split_seed image_size augment",
    synonyms="dataset datamodule dataloader images",
    keys=(
        Key(
            "source",
            choice(*SOURCES),
            "mnist",
            "where images come from; digits needs no network",
            "dataset dataset_name data name",
        ),
        Key(
            "dir",
            optional(path(), "", "none"),
            "",
            "source = folder only: one sub-folder a class, under train/val/test or as one tree",
            "path folder data_dir root directory",
        ),
        Key(
            "mirror",
            optional(url("http", "https"), "", "none"),
            "",
            "fetches mnist and fashion_mnist from here, not from torchvision's mirrors",
            "mirrors url",
        ),
        Key("batch_size", whole(1), "64", "images in one step of training", "batch batchsize bs"),
        Key(
            "num_workers",
            whole(0, 1024),
            "0",
            "processes that help to decode the files of a folder",
            "workers n_workers loader_workers",
        ),
        Key(
            "num_val",
            optional(count_or_fraction(), "", "none", "auto"),
            "",
            "images for validation; blank is 5000 for the mnist kinds and 0.1 elsewhere",
            "val_size val_fraction val_split validation n_val",
        ),
        Key(
            "test_fraction",
            fraction(zero=False),
            "0.2",
            "images for the test: of digits, and of a folder without a test split of its own",
            "test_size test_split num_test",
        ),
        Key(
            "split_seed",
            whole(0),
            "0",
            "makes the split, alone: versions of different seeds share a test set",
            "data_seed random_state",
        ),
        Key(
            "image_size",
            optional(whole(1, 1024), "", "none", "auto"),
            "",
            "height and width in pixels; blank is what the source or the network has",
            "img_size imgsz size resolution input_size",
        ),
        Key(
            "augment",
            choice("none", "light"),
            "none",
            "light: in training, shifts of up to 1/14 of the side and turns of up to 10 degrees",
            "augmentation augmentations transforms",
        ),
    ),
)

_MODEL = Section(
    name="model",
    field="model",
    doc="The network.",
    published="name hidden dropout freeze weights",
    synonyms="network net architecture arch",
    keys=(
        Key("name", choice(*NETWORKS), "mlp", "which one", "model arch architecture network"),
        Key(
            "hidden",
            whole(1, 65536),
            "100",
            "units in the hidden layer of mlp",
            "hidden_dim hidden_size hidden_units width",
        ),
        Key(
            "dropout",
            fraction(zero=True),
            "0.2",
            "part of the units that a step of training leaves out",
            "dropout_rate drop_rate drop",
        ),
        Key(
            "weights",
            path_or("none", "default"),
            "none",
            "where to start: from nothing, torchvision's own, or a .safetensors file",
            "pretrained checkpoint init_from",
        ),
        Key("freeze", flag(), "false", "train the last layer only", "frozen freeze_backbone"),
    ),
)

_TRAIN = Section(
    name="train",
    field="train",
    doc="The training.",
    published="max_epochs lr schedule monitor patience seed max_minutes",
    synonyms="training fit trainer optimizer optim hyperparameters",
    keys=(
        Key(
            "max_epochs",
            whole(1),
            "10",
            "times through the images that train",
            "epochs epoch num_epochs n_epochs nepochs",
        ),
        Key(
            "lr",
            positive(),
            "0.001",
            "learning rate; with one_cycle the highest",
            "learning_rate learningrate learn_rate lr0 eta",
        ),
        Key(
            "schedule",
            choice("constant", "one_cycle"),
            "constant",
            "how the learning rate moves",
            "scheduler lr_schedule lr_scheduler sched",
        ),
        Key(
            "monitor",
            choice("val_acc", "val_loss"),
            "val_acc",
            "tells which epoch's weights are the best",
            "metric monitored",
        ),
        Key(
            "patience",
            optional(whole(1), "none"),
            "none",
            "epochs without a better one after which to stop",
            "early_stopping early_stop early_stopping_patience",
        ),
        Key(
            "seed",
            whole(0, 2**32 - 1),
            "0",
            "of weights, dropout and the order of images; the split has its own",
            "random_seed manual_seed",
        ),
        Key(
            "max_minutes",
            optional(positive(), "none"),
            "none",
            "minutes after which to stop",
            "max_time time_limit minutes",
        ),
    ),
)

_REGISTRY = Section(
    name="registry",
    field="registry",
    doc="Where versions are kept: an MLflow store.",
    published="model_name",
    synonyms="mlflow tracking registration",
    keys=(
        Key(
            "model_name",
            optional(_NAME),
            "",
            "the name to register under; blank is the name of the source or of its folder",
            "name model registered_model_name",
        ),
        Key(
            "experiment_name",
            optional(_TITLE),
            "",
            "experiment of the runs; blank is as model_name",
            "experiment",
        ),
        Key(
            "tracking_uri",
            _STORE,
            "sqlite:///${DIR_PATHS:ROOT}/mlflow.db",
            "the store: SQLite, another database or an MLflow server",
            "uri tracking mlflow_tracking_uri url store",
        ),
    ),
)

_SERVE = Section(
    name="serve",
    field="serve",
    doc="The server. Timeouts are in seconds.",
    synonyms="server http api service",
    keys=(
        Key(
            "host",
            _HOST,
            "127.0.0.1",
            "address to listen on; any but a loopback one needs a token_file",
            "address bind hostname ip",
        ),
        Key("port", whole(0, 65535), "8000", "port to listen on; 0 is any free one"),
        Key("workers", whole(1, 256), "1", "processes that answer", "num_workers processes"),
        Key(
            "token_file",
            optional(path(), "", "none"),
            "",
            "file with the token that every request must bring",
            "token auth token_path api_key",
        ),
        Key(
            "allowed_hosts",
            hosts(),
            "",
            "names, beside the loopback ones, under which the server may be called",
            "hosts trusted_hosts",
        ),
        Key("max_body", size(1024), "16 MiB", "largest body of a request", "body_limit"),
        Key("max_retrain_body", size(1024), "256 KiB", "largest body of POST /retrain"),
        Key("max_header", size(1024), "16 KiB", "largest head of a request"),
        Key("max_pixels", whole(1), "25000000", "largest image, in pixels", "pixels"),
        Key("max_connections", whole(1), "1024", "most connections at a time", "connections"),
        Key("queue", whole(1), "64", "requests that may wait", "queue_size backlog"),
        Key("header_timeout", positive(), "10", "for the head of a request to arrive"),
        Key(
            "body_timeout",
            positive(),
            "30",
            "for its body to arrive, and for its answer to be read",
        ),
        Key("request_timeout", positive(), "10", "for its answer to be found", "timeout"),
        Key("drain_timeout", positive(), "30", "for open requests to end when we stop"),
        Key(
            "access_log",
            flag(),
            "false",
            "a line of JSON on stderr for every request",
            "log_access",
        ),
    ),
)

_JOBS = Section(
    name="jobs",
    field="jobs",
    doc="Retraining.",
    synonyms="job retrain worker queue",
    keys=(
        Key(
            "database_url",
            optional(url("sqlite", "postgresql"), "", "none"),
            "",
            "where jobs are kept; blank is SQLite in ROOT",
            "database db db_url url",
        ),
        Key(
            "promote",
            choice("never", "gate", "always"),
            "never",
            "whether a retrained version becomes champion; gate asks the comparison",
            "promotion auto_promote",
        ),
        Key("max_queued", whole(1), "8", "jobs that may wait", "queue queue_size queued"),
    ),
)

_COMPUTE = Section(
    name="compute",
    field="compute",
    doc="The machine.",
    published="precision threads",
    synonyms="hardware device resources machine",
    keys=(
        Key("device", _DEVICE, "auto", "what trains", "accelerator gpu devices gpus"),
        Key(
            "precision",
            choice("auto", "32", "bf16"),
            "auto",
            "of the arithmetic while training; results are kept as float32",
            "dtype amp half",
        ),
        Key(
            "threads",
            optional(whole(1, 1024), "auto", "none"),
            "auto",
            "processor threads while training",
            "num_threads n_threads cpus cores",
        ),
        Key("pin_memory", flag(), "false", "copy to a GPU from pinned memory", "pin pinned"),
    ),
)

SECTIONS = (_PATHS, _DATA, _MODEL, _TRAIN, _REGISTRY, _SERVE, _JOBS, _COMPUTE)
