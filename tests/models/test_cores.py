"""Cores by affinity and cgroup quotas."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from models import cores as counting
from models.cores import limit_native_threads, usable_cores


def write_quota(folder: Path, quota: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cpu.max").write_text(quota + "\n")


def write_quota_v1(folder: Path, quota: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cpu.cfs_quota_us").write_text(quota + "\n")
    (folder / "cpu.cfs_period_us").write_text("100000\n")


def member_of(tmp_path: Path, *lines: str) -> Path:
    file = tmp_path / "membership"
    file.write_text("".join(f"{line}\n" for line in lines))
    return file


@pytest.fixture(autouse=True)
def four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("max 100000", 4), ("100000 100000", 1), ("50000 100000", 1), ("250000 100000", 3), ("999900000 100000", 4)],
)
def test_cgroup_v2_quota_limits_the_cores(tmp_path: Path, quota: str, cores: int) -> None:
    write_quota(tmp_path, quota)
    assert usable_cores(tmp_path, member_of(tmp_path, "0::/")) == cores
    assert usable_cores(tmp_path, tmp_path / "none") == cores


@pytest.mark.parametrize(("quota", "cores"), [("-1", 4), ("100000", 1)])
@pytest.mark.parametrize("mount", ["cpu", "cpu,cpuacct"])
def test_cgroup_v1_quota_limits_the_cores(tmp_path: Path, quota: str, cores: int, mount: str) -> None:
    write_quota_v1(tmp_path / mount, quota)
    assert usable_cores(tmp_path, member_of(tmp_path, "5:memory:/", f"4:{mount}:/", "0::/")) == cores


@pytest.mark.parametrize("limited", ["", "kubepods", "kubepods/pod1", "kubepods/pod1/container"])
def test_quota_of_any_enclosing_cgroup_limits_the_cores(tmp_path: Path, limited: str) -> None:
    write_quota(tmp_path / "kubepods/pod1/container", "max 100000")
    write_quota(tmp_path / limited, "150000 100000")
    assert usable_cores(tmp_path, member_of(tmp_path, "0::/kubepods/pod1/container")) == 2


@pytest.mark.parametrize("limited", ["", "docker", "docker/1"])
def test_quota_of_any_enclosing_cgroup_v1_limits_the_cores(tmp_path: Path, limited: str) -> None:
    write_quota_v1(tmp_path / "cpu" / limited, "50000")
    assert usable_cores(tmp_path, member_of(tmp_path, "3:cpu,cpuacct:/docker/1", "0::/docker/1")) == 1


def test_quota_is_found_if_the_path_is_the_hosts(tmp_path: Path) -> None:
    write_quota(tmp_path, "100000 100000")
    for path in ("/docker/0123456789ab", "/../../system.slice"):
        assert usable_cores(tmp_path, member_of(tmp_path, f"0::{path}")) == 1


def test_sibling_cgroup_does_not_limit_the_cores(tmp_path: Path) -> None:
    write_quota(tmp_path / "other", "100000 100000")
    assert usable_cores(tmp_path, member_of(tmp_path, "0::/own")) == 4


def test_affinity_limits_the_cores_without_a_cgroup(tmp_path: Path) -> None:
    assert usable_cores(tmp_path, tmp_path / "none") == 4
    (tmp_path / "cpu.max").write_text("unreadable")
    assert usable_cores(tmp_path, tmp_path / "none") == 4


@pytest.mark.parametrize(("cores", "expected"), [(4, None), (2, "2")])
def test_native_threads_are_limited_only_by_a_quota(
    cores: int, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "")
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(counting, "usable_cores", lambda: cores)
    limit_native_threads()
    assert os.environ.get("OMP_NUM_THREADS") == expected
