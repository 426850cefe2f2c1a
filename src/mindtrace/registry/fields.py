"""What can be asked of a version: names of fields come in, a version's values go out; light.

The same fields are columns of a list, keys to sort by and operands of a query. Metrics
of the best epoch, digests and the like are tags with our prefix; only a version without
such tags is judged by the metrics of its run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal

from mindtrace.registry.names import METRIC, PREFIX

if TYPE_CHECKING:
    from mindtrace.registry.reader import ModelVersion

Kind = Literal["number", "text", "time", "alias", "mixed"]
Group = Literal["column", "metric", "tag", "param"]

COLUMNS: Mapping[str, Kind] = {
    "model_name": "text",
    "version": "number",
    "alias": "alias",
    "created_at": "time",
    "run_id": "text",
}
METRICS = ("train_loss", "val_loss", "val_acc", "test_loss", "test_acc")
OUR_TAGS: Mapping[str, Kind] = {
    "data_digest": "text",
    "test_digest": "text",
    "bundle_digest": "text",
    "weights_digest": "text",
    "config_digest": "text",
    "seed": "number",
    "best_epoch": "number",
    "duration_s": "number",
    "parent": "text",
    "job_id": "text",
    "who": "text",
    "git_commit": "text",
    "platform": "text",
}
NAMES = (*COLUMNS, *METRICS, *OUR_TAGS)
# Whatever a run or somebody else's tool has written.
FREE: Mapping[str, tuple[Group, Kind]] = {
    "metrics": ("metric", "number"),
    "params": ("param", "mixed"),
    "tags": ("tag", "mixed"),
}

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Field:
    """One thing that versions have.

    Attributes:
        group: where it is kept.
        name: there; a tag's in full, with its prefix.
        kind: how its values compare. `mixed` is text that may be a number.
    """

    group: Group
    name: str
    kind: Kind


def find_field(text: str) -> Field | None:
    """The field of that name, or None: `val_acc`, `metrics.f1`, `params.train.lr`, `tags.x`."""
    if text in COLUMNS:
        return Field("column", text, COLUMNS[text])
    if text in METRICS:
        return Field("metric", text, "number")
    if text in OUR_TAGS:
        return Field("tag", PREFIX + text, OUR_TAGS[text])
    group, dot, name = text.partition(".")
    if dot and name and group in FREE:
        return Field(FREE[group][0], name, FREE[group][1])
    return None


def value_of(
    field: Field, row: ModelVersion, params: Mapping[str, str] | None = None
) -> float | str | None:
    """A version's value; times are milliseconds since 1970, None is a value it has not.

    Args:
        field: any but `alias`, of which a version has several.
        row: the version.
        params: of its run.
    """
    if field.group == "metric":
        return metrics_of(row).get(field.name)
    if field.group == "column":
        if field.name == "created_at":
            return milliseconds(datetime.fromisoformat(row.created_at))
        if field.name == "version":
            return row.version
        return row.name if field.name == "model_name" else row.run_id
    found = (row.tags if field.group == "tag" else params or {}).get(field.name)
    return number(found) if field.kind == "number" else found


def metrics_of(row: ModelVersion) -> dict[str, float]:
    """Metrics of the best epoch, whose weights a version has; else its run's last ones."""
    best = {
        key.removeprefix(PREFIX + METRIC): number(value)
        for key, value in row.tags.items()
        if key.startswith(PREFIX + METRIC)
    }
    kept = {name: value for name, value in best.items() if value is not None}
    return dict(sorted((kept if best else dict(row.metrics)).items()))


def number(text: str | None) -> float | None:
    """Text as a number, None if it is none; NaN is none."""
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        return None
    return None if math.isnan(value) else value


def milliseconds(moment: datetime) -> float:
    """Since 1970; a time without a zone is UTC."""
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return (aware - _EPOCH) / timedelta(milliseconds=1)
