"""How tests wait for what other processes and threads do."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

PATIENCE = 600.0  # seconds: for what does not come to its point
_LOOK_EVERY = 0.05


def until(true: Callable[[], Any], patience: float = PATIENCE) -> Any:
    """What `true` returns, once that is something.

    Patience is counted in looks: a machine that stands still meanwhile costs none.
    """
    for _ in range(int(patience / _LOOK_EVERY)):
        if found := true():
            return found
        time.sleep(_LOOK_EVERY)
    raise AssertionError(true)
