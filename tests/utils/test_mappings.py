"""ifnone and flatten_dict."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, strategies as st

from mindtrace.utils import flatten_dict, ifnone

KEYS = st.text("abc", min_size=1, max_size=3)
NESTED = st.recursive(
    st.dictionaries(KEYS, st.integers(), max_size=4),
    lambda inner: st.dictionaries(KEYS, st.one_of(st.integers(), inner), max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize("empty", [0, "", False, [], 0.0])
def test_only_none_gives_way_to_the_default(empty: Any) -> None:
    assert ifnone(empty, "default") is empty
    assert ifnone(None, "default") == "default"


@pytest.mark.parametrize(
    ("nested", "options", "flat"),
    [
        ({"a": 1, "b": {"c": 2, "d": {"e": 3}}}, {}, {"a": 1, "b.c": 2, "b.d.e": 3}),
        (
            {"a": {"b": 1}, "c": 2},
            {"parent_key": "root", "sep": "/"},
            {"root/a/b": 1, "root/c": 2},
        ),
        ({"a": [1, {"b": 2}], "c": {}}, {}, {"a": [1, {"b": 2}]}),
        ({"a": {1: "one"}}, {}, {"a.1": "one"}),
    ],
)
def test_levels_are_joined(
    nested: dict[str, Any], options: dict[str, str], flat: dict[str, Any]
) -> None:
    assert flatten_dict(nested, **options) == flat


@given(NESTED)
def test_every_leaf_keeps_its_value_and_its_path(nested: dict[str, Any]) -> None:
    flat = flatten_dict(nested)
    for path, value in flat.items():
        level: Any = nested
        for key in path.split("."):
            level = level[key]
        assert level == value
    assert len(flat) == _leaves(nested)


def _leaves(nested: dict[str, Any]) -> int:
    return sum(_leaves(value) if isinstance(value, dict) else 1 for value in nested.values())
