"""Room core: one frozen dataclass for each section; what the schema's texts become.

Field names are the INI's keys in lower case. `settings.py` fills them; a test holds them
against the schema.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class DirSettings:
    """`[DIR_PATHS]`; absolute paths."""

    root: Path
    data: Path
    checkpoints: Path


@dataclass(frozen=True)
class DataSettings:
    """`[data]`.

    `num_val` is a number of images, or a float that is a part of them; None is the
    source's own default. `mirror` may hold a password and is not in the repr.
    """

    source: str
    dir: Path | None
    mirror: str | None = field(repr=False)
    batch_size: int
    num_workers: int
    num_val: int | float | None
    test_fraction: float
    split_seed: int
    image_size: int | None
    augment: str


@dataclass(frozen=True)
class ModelSettings:
    """`[model]`; `weights` is `none`, `default` or the text of an absolute path."""

    name: str
    hidden: int
    dropout: float
    weights: str
    freeze: bool


@dataclass(frozen=True)
class TrainSettings:
    """`[train]`; None is no limit."""

    max_epochs: int
    lr: float
    schedule: str
    monitor: str
    patience: int | None
    seed: int
    max_minutes: float | None


@dataclass(frozen=True)
class RegistrySettings:
    """`[registry]`; `tracking_uri` may hold a password and is not in the repr."""

    model_name: str | None
    experiment_name: str | None
    tracking_uri: str = field(repr=False)


@dataclass(frozen=True)
class ServeSettings:
    """`[serve]`; sizes in bytes, timeouts in seconds."""

    host: str
    port: int
    workers: int
    token_file: Path | None
    allowed_hosts: tuple[str, ...]
    max_body: int
    max_retrain_body: int
    max_header: int
    max_pixels: int
    max_connections: int
    queue: int
    header_timeout: float
    body_timeout: float
    request_timeout: float
    drain_timeout: float
    access_log: bool


@dataclass(frozen=True)
class JobSettings:
    """`[jobs]`; `database_url` None is SQLite in ROOT, and it is not in the repr."""

    database_url: str | None = field(repr=False)
    promote: str
    max_queued: int


@dataclass(frozen=True)
class ComputeSettings:
    """`[compute]`; `threads` None is auto."""

    device: str
    precision: str
    threads: int | None
    pin_memory: bool
