"""Reads through MLflow without importing it: a child process does.

In: the questions of `Reader`. Out: the child's answers. Both speak JSON, a line a
message: `{"call": "names", "arguments": []}` is answered by `{"result": [...]}` or by
`{"error": "...", "hint": "..."}`. Run as a program, this file is the child.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mindtrace.errors import StoreError, UsageError
from mindtrace.registry.query import Query
from mindtrace.registry.query_text import parse_query
from mindtrace.registry.reader import ModelVersion

_URI = "MINDTRACE_CHILD_READER_URI"


class ChildReader:
    """A `Reader` that asks a child process, which lives as long as this object."""

    def __init__(self, uri: str, root: Path) -> None:
        """Remember what to ask; the child starts with the first question."""
        self._uri = uri
        self._root = root
        self._child: subprocess.Popen[str] | None = None
        self._turn = threading.Lock()

    def names(self) -> list[str]:
        """See `Reader`."""
        return list(self._ask("names"))

    def version_of_alias(self, name: str, alias: str) -> int | None:
        """See `Reader`."""
        answer = self._ask("version_of_alias", name, alias)
        return None if answer is None else int(answer)

    def version(self, name: str, number: int) -> ModelVersion | None:
        """See `Reader`."""
        answer = self._ask("version", name, number)
        return None if answer is None else _row(answer)

    def aliases(self, name: str) -> dict[str, int]:
        """See `Reader`."""
        return {alias: int(number) for alias, number in self._ask("aliases", name).items()}

    def versions(
        self,
        name: str | None,
        limit: int,
        *,
        query: Query | None = None,
        after: int | None = None,
    ) -> Sequence[ModelVersion]:
        """See `Reader`; a query travels as its texts."""
        texts = (query or Query()).texts
        return [_row(answer) for answer in self._ask("versions", name, limit, *texts, after)]

    def log(self, model_name: str, after: int = 0) -> Sequence[tuple[int, Mapping[str, str]]]:
        """See `Reader`."""
        return [(int(number), tags) for number, tags in self._ask("log", model_name, after)]

    def params(self, run_id: str) -> dict[str, str]:
        """See `Reader`."""
        return dict(self._ask("params", run_id))

    def fetch(self, location: str, folder: Path) -> None:
        """See `Reader`."""
        self._ask("fetch", location, str(folder))

    def _ask(self, call: str, *arguments: Any) -> Any:
        with self._turn:
            child = self._started()
            assert child.stdin is not None
            assert child.stdout is not None
            try:
                child.stdin.write(json.dumps({"call": call, "arguments": arguments}) + "\n")
                child.stdin.flush()
                line = child.stdout.readline()
            except BrokenPipeError:
                line = ""
            if not line:
                self._child = None
                raise StoreError(f"the reader of the registry ended with code {child.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            kind = UsageError if answer.get("usage") else StoreError
            raise kind(answer["error"], hint=answer["hint"])
        return answer["result"]

    def _started(self) -> subprocess.Popen[str]:
        if self._child is None or self._child.poll() is not None:
            # The URI may hold a password: the environment is private, a command line is not.
            # -P: a file of the working directory must not stand in for a module.
            self._child = subprocess.Popen(
                [sys.executable, "-P", "-m", __name__, str(self._root)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, _URI: self._uri},
            )
            weakref.finalize(self, _dismiss, self._child)
        return self._child


def _dismiss(child: subprocess.Popen[str]) -> None:
    """A reader has nothing to put away."""
    child.kill()
    with child:
        pass


def _row(fields: dict[str, Any]) -> ModelVersion:
    return ModelVersion(**{**fields, "aliases": tuple(fields["aliases"])})


def answer(reader: Any, message: dict[str, Any]) -> dict[str, Any]:
    """The child's answer to one message."""
    arguments, more = message["arguments"], {}
    if message["call"] == "fetch":
        arguments = [arguments[0], Path(arguments[1])]
    if message["call"] == "versions":
        *arguments, where, sort, after = arguments
        more = {"query": parse_query(where, sort), "after": after}
    try:
        result = getattr(reader, message["call"])(*arguments, **more)
    except (StoreError, UsageError) as error:
        usage = isinstance(error, UsageError)
        return {"error": error.message, "hint": error.hint, "usage": usage}
    if isinstance(result, list):
        result = [asdict(one) if isinstance(one, ModelVersion) else one for one in result]
    return {"result": asdict(result) if isinstance(result, ModelVersion) else result}


def main() -> None:
    """The child: answers until its parent closes the pipe."""
    # MLflow may print; only answers belong on the pipe.
    pipe, sys.stdout = sys.stdout, sys.stderr
    from mindtrace.registry.client_reader import ClientReader
    from mindtrace.registry.store import Store

    reader: ClientReader | None = None
    for line in sys.stdin:
        try:
            reader = reader or ClientReader(Store(os.environ[_URI], Path(sys.argv[1])))
            reply = answer(reader, json.loads(line))
        except StoreError as error:
            reply = {"error": error.message, "hint": error.hint}
        pipe.write(json.dumps(reply) + "\n")
        pipe.flush()


if __name__ == "__main__":
    main()
