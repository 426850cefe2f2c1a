"""The history of champions: an append-only log with dense revisions.

In: who wants which version to be champion, and which revision they looked at. Out:
the next revision, or `ConflictError` if somebody was quicker.

MLflow has no conditional write. What it has on every store is an atomic creation of
model versions with dense numbers. So the log is a companion model: each of its
versions is an entry that carries the revision its author expected, and an entry
counts only if that is the revision right before it. Whoever reads all entries in
order comes to the same history; an alias, which the last writer wins, does not. The
alias `champion` mirrors the log and is repaired from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from mlflow.exceptions import MlflowException

from mindtrace.errors import ConflictError
from mindtrace.registry.names import BUNDLE, CHAMPION, PREFIX, log_name
from mindtrace.registry.store import Store, store_errors

PAGE = 1000


@dataclass(frozen=True)
class Entry:
    """One counted line of the history.

    Attributes:
        revision: 1 for the first.
        at: UTC, ISO 8601.
        by: who.
        action: `promote`, `rollback` or `refuse`.
        origin: the champion before, or None.
        to: the version it is about.
        reason: free text, or None.
        verdict: the gate's, or None.
    """

    revision: int
    at: str
    by: str
    action: str
    origin: int | None
    to: int
    reason: str | None = None
    verdict: str | None = None


def history(store: Store, model_name: str) -> list[Entry]:
    """All counted entries, oldest first; empty for a model without a champion."""
    entries: list[Entry] = []
    for tags in _raw_entries(store, model_name):
        if int(tags["expected"]) == len(entries):
            entries.append(_entry(len(entries) + 1, tags))
    return entries


def champion(entries: Sequence[Entry]) -> int | None:
    """The version that the log names, or None."""
    for entry in reversed(entries):
        if entry.action != "refuse":
            return entry.to
    return None


def append(
    store: Store,
    model_name: str,
    *,
    expected: int,
    action: str,
    to: int,
    by: str,
    run_id: str,
    reason: str | None = None,
    verdict: str | None = None,
) -> Entry:
    """Add an entry, if `expected` is still the last revision.

    Args:
        store: where.
        model_name: whose history.
        expected: the revision the caller looked at; 0 for none.
        action: see `Entry`.
        to: the version.
        by: who.
        run_id: the run of `to`; an MLflow server refuses a version without one.
        reason: free text.
        verdict: the gate's.

    Raises:
        ConflictError: somebody else added one meanwhile.
        StoreError: the store is away.
    """
    before = history(store, model_name)
    if len(before) != expected:
        raise _stale(model_name, expected, len(before))
    entry = Entry(
        revision=expected + 1,
        at=datetime.now(UTC).isoformat(timespec="milliseconds"),
        by=by,
        action=action,
        origin=champion(before),
        to=to,
        reason=reason,
        verdict=verdict,
    )
    _write(store, model_name, entry, run_id)
    after = history(store, model_name)
    if len(after) <= expected or after[expected] != entry:
        raise _stale(model_name, expected, len(after))
    mirror(store, model_name, after)
    return entry


def mirror(store: Store, model_name: str, entries: Sequence[Entry]) -> None:
    """Make the alias say what the log says."""
    version = champion(entries)
    if version is not None:
        with store_errors(store.uri):
            store.client.set_registered_model_alias(model_name, CHAMPION, str(version))


def _write(store: Store, model_name: str, entry: Entry, run_id: str) -> None:
    fields = {**asdict(entry), "expected": entry.revision - 1}
    del fields["revision"]
    tags = {PREFIX + key: str(value) for key, value in fields.items() if value is not None}
    name = log_name(model_name)
    with store_errors(store.uri):
        ensure_model(store, name, "history of champions, kept by mindtrace")
        store.client.create_model_version(
            name, f"runs:/{run_id}/{BUNDLE}", run_id, tags=tags, await_creation_for=0
        )


def ensure_model(store: Store, name: str, description: str | None = None) -> None:
    """Create a registered model unless it exists."""
    try:
        store.client.create_registered_model(name, description=description)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _raw_entries(store: Store, model_name: str) -> list[dict[str, str]]:
    rows = []
    token = None
    with store_errors(store.uri):
        while True:
            page = store.client.search_model_versions(
                f"name = '{log_name(model_name)}'",
                max_results=PAGE,
                order_by=["version_number ASC"],
                page_token=token,
            )
            rows += [(int(version.version), version.tags) for version in page]
            token = page.token
            if not token:
                break
    rows.sort(key=lambda row: row[0])
    return [{key.removeprefix(PREFIX): tag for key, tag in tags.items()} for _, tags in rows]


def _entry(revision: int, tags: dict[str, str]) -> Entry:
    values: dict[str, Any] = {
        key: tags.get(key) for key in ("at", "by", "action", "reason", "verdict")
    }
    origin = tags.get("origin")
    return Entry(
        revision=revision,
        origin=None if origin is None else int(origin),
        to=int(tags["to"]),
        **values,
    )


def _stale(model_name: str, expected: int, found: int) -> ConflictError:
    return ConflictError(
        f"{model_name}: its history is at revision {found}, not {expected}: "
        "somebody else changed the champion",
        hint=f"look again with mindtrace registry show {model_name}, then repeat",
    )
