"""Cores of the machine, and those that this process may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mindtrace.utils import available_cores, num_cores, system


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Eight cores, and a folder of control groups, beside the file that names those we are in."""
    folder = tmp_path / "cgroup"
    monkeypatch.setattr(system, "_CGROUPS", folder)
    monkeypatch.setattr(system, "_MEMBERSHIP", tmp_path / "membership")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    return folder


def test_a_process_may_use_one_core_at_least_and_no_more_than_there_are() -> None:
    assert 1 <= available_cores() <= num_cores() == os.cpu_count()


V2, V1 = "0::/user.slice/job", "4:cpu,cpuacct:/docker/1"


@pytest.mark.parametrize(
    ("membership", "files", "cores"),
    [
        (None, {}, 8),  # not Linux
        ("0::/", {"cpu.max": "max 100000"}, 8),
        ("0::/", {"cpu.max": "150000 100000"}, 2),
        ("0::/", {"cpu.max": "50000 100000"}, 1),
        ("0::/", {"cpu.max": "9900000 100000"}, 8),
        # the tightest of all groups above
        (V2, {"user.slice/cpu.max": "200000 100000", "user.slice/job/cpu.max": "600000 100000"}, 2),
        # an older kernel
        (V1, {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
        (V1, {"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}, 3),
        # of another controller
        ("7:memory:/docker/1", {"cpu.max": "100000 100000"}, 8),
    ],
)
def test_affinity_and_the_quota_of_a_container_count(
    groups: Path, membership: str | None, files: dict[str, str], cores: int
) -> None:
    if membership is not None:
        groups.with_name("membership").write_text(f"{membership}\n")
    for name, text in files.items():
        (groups / name).parent.mkdir(parents=True, exist_ok=True)
        (groups / name).write_text(f"{text}\n")
    assert available_cores() == cores
