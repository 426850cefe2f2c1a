"""The writer of the history of champions: an append-only log with dense revisions.

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

import functools
from dataclasses import asdict
from datetime import UTC, datetime
from uuid import uuid4

from mlflow.exceptions import MlflowException

from mindtrace.errors import ConflictError
from mindtrace.registry.history import Entry, History, Written, champion
from mindtrace.registry.names import BUNDLE, CHAMPION, PREFIX, log_name
from mindtrace.registry.store import Store, pages, store_errors

__all__ = ["Entry", "Log", "append", "champion", "ensure_model", "history", "written"]

PAGE = 1000
# What MLflow says when others created versions of this name in each of its attempts.
_CROWDED = "Giving up after"


class Log:
    """The history of one name, to be added to."""

    def __init__(self, store: Store, model_name: str, history: History | None = None) -> None:
        """Open it; nothing is read yet.

        Args:
            store: where.
            model_name: whose history.
            history: a quicker way to read it, if there is one.
        """
        self.model_name = model_name
        self._store = store
        self._history = history or History(functools.partial(written, store, model_name))

    def read(self) -> tuple[Entry, ...]:
        """All counted entries as of now, oldest first.

        Raises:
            StoreError: the store is away.
        """
        return self._history.read()

    def append(
        self,
        *,
        expected: int,
        action: str,
        to: int,
        by: str,
        run_id: str | None,
        reason: str | None = None,
        verdict: str | None = None,
        test_digest: str | None = None,
    ) -> Entry:
        """Add an entry, if `expected` is still the last revision, and set the alias.

        Args:
            expected: the revision the caller looked at; 0 for none.
            action: see `Entry`.
            to: the version.
            by: who.
            run_id: the run of `to`; an MLflow server refuses a version without one.
            reason: free text.
            verdict: the gate's.
            test_digest: of the gate's test set.

        Raises:
            ConflictError: somebody else added one meanwhile.
            StoreError: the store is away.
        """
        before = self.read()
        if len(before) != expected:
            raise _stale(self.model_name, expected, len(before))
        entry = Entry(
            revision=expected + 1,
            at=datetime.now(UTC).isoformat(timespec="milliseconds"),
            by=by,
            action=action,
            origin=champion(before),
            to=to,
            reason=reason,
            verdict=verdict,
            test_digest=test_digest,
            token=uuid4().hex,
        )
        _write(self._store, self.model_name, entry, run_id)
        after = self.read()
        # By its token: others may write the very same words, and a request whose answer
        # was lost on the way is sent again, so the number that came back may be another's.
        if len(after) <= expected or after[expected].token != entry.token:
            raise _stale(self.model_name, expected, len(after))
        self._mirror(champion(after))
        return entry

    def mirror(self) -> None:
        """Make the alias say what the log says."""
        self._mirror(champion(self.read()))

    def _mirror(self, version: int | None) -> None:
        # Each writer looks at the log once more after it wrote the alias: so the last one
        # to write it, whoever that is, leaves it as the log has it then.
        told = None
        while version is not None and version != told:
            with store_errors(self._store.uri):
                self._store.client.set_registered_model_alias(
                    self.model_name, CHAMPION, str(version)
                )
            told, version = version, champion(self.read())


def written(store: Store, model_name: str, after: int = 0) -> list[Written]:
    """Number and tags of all in the companion model behind a number, in order.

    Raises:
        StoreError: the store is away.
    """
    where = f"name = '{log_name(model_name)}' and version_number > {after}"
    order = ["version_number ASC"]
    with store_errors(store.uri):
        found = pages(store.client.search_model_versions, where, max_results=PAGE, order_by=order)
        rows = [(int(version.version), version.tags) for version in found]
    return sorted(rows, key=lambda row: row[0])


def history(store: Store, model_name: str) -> list[Entry]:
    """All counted entries, oldest first; empty for a model without a champion."""
    return list(Log(store, model_name).read())


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
    """`Log.append` for whoever adds a single entry."""
    return Log(store, model_name).append(
        expected=expected,
        action=action,
        to=to,
        by=by,
        run_id=run_id,
        reason=reason,
        verdict=verdict,
    )


def ensure_model(store: Store, name: str, description: str | None = None) -> None:
    """Create a registered model unless it exists."""
    try:
        store.client.create_registered_model(name, description=description)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _write(store: Store, model_name: str, entry: Entry, run_id: str | None) -> None:
    """Write an entry; whether it counts is told by reading."""
    fields = {**asdict(entry), "expected": entry.revision - 1}
    del fields["revision"]
    tags = {PREFIX + key: str(value) for key, value in fields.items() if value is not None}
    name = log_name(model_name)
    source = f"runs:/{run_id}/{BUNDLE}" if run_id else "mindtrace"
    with store_errors(store.uri):
        if entry.revision == 1:
            ensure_model(store, name, "history of champions, kept by mindtrace")
        try:
            store.client.create_model_version(name, source, run_id, tags=tags, await_creation_for=0)
        except MlflowException as error:
            if _CROWDED in str(error):
                raise _crowded(model_name) from error
            raise


def _stale(model_name: str, expected: int, found: int) -> ConflictError:
    return ConflictError(
        f"{model_name}: its history is at revision {found}, not {expected}: "
        "somebody else changed the champion",
        hint=f"look again with mindtrace registry history {model_name}, then repeat",
    )


def _crowded(model_name: str) -> ConflictError:
    return ConflictError(
        f"{model_name}: others change its champion at this very moment", hint="repeat"
    )
