"""Cores of the machine, and those that this process may use."""

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")


def num_cores() -> int:
    """Cores of the machine, at least 1."""
    return os.cpu_count() or 1


def available_cores() -> int:
    """Cores this process may use, at least 1: its affinity, and its container's quota."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else num_cores()
    quotas = [_quota(group) for group in _groups(_CGROUPS, _MEMBERSHIP)]
    return max(1, math.ceil(min([affinity, *(quota for quota in quotas if quota is not None)])))


def _groups(cgroups: Path, membership: Path) -> Iterator[Path]:
    """The folders of the control groups this process is in, from its own up to the root."""
    # cgroups(7): a line of the membership is `id:controllers:path`; version 2 names no
    # controllers, version 1 mounts `cpu` on its own. A container sees itself as root.
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        lines = []  # not Linux
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = cgroups / "cpu" if controllers else cgroups
        own = top / path.strip("/")
        yield from (own, *(parent for parent in own.parents if parent.is_relative_to(top)))


def _quota(group: Path) -> float | None:
    """Processor seconds a second that a group is granted; None is no limit of its own."""
    # cpu.max (version 2), cpu.cfs_quota_us and cpu.cfs_period_us (version 1), in
    # microseconds; `max` and -1 are no limit.
    for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
            words = " ".join((group / name).read_text() for name in names).split()
            granted, period = map(int, words)
            if granted >= 0:
                return granted / period
    return None
