"""Cores of the machine, and those that this process may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mindtrace.utils import available_cores, num_cores, system


class Kernel:
    """What Linux shows of control groups, in a folder of the test."""

    def __init__(self, folder: Path) -> None:
        self.groups = folder / "cgroup"
        self.groups.mkdir()
        self.membership = folder / "membership"

    def joins(self, line: str) -> None:
        self.membership.write_text(f"{line}\n")

    def grants(self, group: str, quota: str) -> None:
        folder = self.groups / group
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cpu.max").write_text(f"{quota}\n")


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    """Eight cores, and no control group yet."""
    made = Kernel(tmp_path)
    monkeypatch.setattr(system, "_CGROUPS", made.groups)
    monkeypatch.setattr(system, "_MEMBERSHIP", made.membership)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    return made


def test_a_process_may_use_one_core_at_least_and_no_more_than_there_are() -> None:
    assert 1 <= available_cores() <= num_cores() == os.cpu_count()


def test_affinity_counts(kernel: Kernel) -> None:
    assert available_cores() == 8


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("max 100000", 8), ("150000 100000", 2), ("50000 100000", 1), ("9900000 100000", 8)],
)
def test_the_quota_of_a_container_counts(kernel: Kernel, quota: str, cores: int) -> None:
    kernel.joins("0::/")
    kernel.grants(".", quota)
    assert available_cores() == cores


def test_the_tightest_of_all_groups_above_counts(kernel: Kernel) -> None:
    kernel.joins("0::/user.slice/job")
    kernel.grants("user.slice", "200000 100000")
    kernel.grants("user.slice/job", "600000 100000")
    assert available_cores() == 2


@pytest.mark.parametrize(("granted", "cores"), [("-1", 8), ("300000", 3)])
def test_the_quota_of_an_older_kernel_counts(kernel: Kernel, granted: str, cores: int) -> None:
    kernel.joins("4:cpu,cpuacct:/docker/1")
    folder = kernel.groups / "cpu"
    folder.mkdir()
    (folder / "cpu.cfs_quota_us").write_text(f"{granted}\n")
    (folder / "cpu.cfs_period_us").write_text("100000\n")
    assert available_cores() == cores


def test_groups_of_other_controllers_are_nothing_to_us(kernel: Kernel) -> None:
    kernel.joins("7:memory:/docker/1")
    kernel.grants(".", "100000 100000")
    assert available_cores() == 8
