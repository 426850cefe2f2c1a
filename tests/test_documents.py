"""JSON documents of mappings and of dataclasses."""

from __future__ import annotations

from dataclasses import dataclass

from mindtrace.documents import document


@dataclass(frozen=True)
class _Inner:
    name: str


@dataclass(frozen=True)
class _Outcome:
    version: int
    inner: _Inner


def test_a_document_begins_with_its_schema_version_and_keeps_the_order_of_fields() -> None:
    of_mapping = document({"b": 1, "a": 2})
    assert [*of_mapping.items()] == [("schema_version", 1), ("b", 1), ("a", 2)]
    of_dataclass = [*document(_Outcome(3, _Inner("x"))).items()]
    assert of_dataclass == [("schema_version", 1), ("version", 3), ("inner", {"name": "x"})]
