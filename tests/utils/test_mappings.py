"""ifnone and flatten_dict."""

from __future__ import annotations

from typing import Any

import pytest

from mindtrace.utils import flatten_dict, ifnone


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
