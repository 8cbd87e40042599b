"""What this process may use, as made-up systems tell it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lightwork.backends.processes import limits
from lightwork.backends.processes.limits import (
    CPU_SHARE,
    MAX_WORKERS,
    NATIVE_NAMES,
    memory_limit_bytes,
    native_thread_env,
    oom_kill_count,
    resident_bytes,
    share_env,
    usable_cpus,
)

V2 = "25 20 0:22 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
V1_CPU = "30 25 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
V1_MEMORY = "31 25 0:28 / /sys/fs/cgroup/memory rw shared:9 - cgroup cgroup rw,memory\n"


class System:
    """A root folder with the files that a test wants."""

    def __init__(self, root: Path) -> None:
        self.root = str(root)
        self.path = root

    def write(self, path: str, content: str) -> None:
        file = self.path / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)

    def groups(self, groups: str, mounts: str) -> None:
        self.write("/proc/self/cgroup", groups)
        self.write("/proc/self/mountinfo", "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n" + mounts)


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> System:
    """Eight processors in the affinity, nothing in the environment."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    for name in (MAX_WORKERS, CPU_SHARE, *NATIVE_NAMES):
        monkeypatch.delenv(name, raising=False)
    return System(tmp_path)


def test_no_information(system: System) -> None:
    assert usable_cpus(system.root) == 8
    assert memory_limit_bytes(system.root) is None
    assert oom_kill_count(system.root) is None
    assert resident_bytes(1, system.root) is None


def test_no_affinity(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert usable_cpus(system.root) == 6
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert usable_cpus(system.root) == 1


@pytest.mark.parametrize(
    ("content", "count"),
    [
        ("max 100000", 8),
        ("200000 100000", 2),
        ("150000 100000", 2),
        ("10000 100000", 1),
        ("50000 10000\n", 5),
        ("5000000 100000", 8),
        ("", 8),
        ("nonsense", 8),
        ("100000 0", 8),
    ],
)
def test_quota_of_version_2(system: System, content: str, count: int) -> None:
    system.groups("0::/work/job\n", V2)
    system.write("/sys/fs/cgroup/work/job/cpu.max", content)
    assert usable_cpus(system.root) == count


@pytest.mark.parametrize(
    ("quota", "period", "count"),
    [("-1", "100000", 8), ("300000", "100000", 3), ("250000", "100000", 3), ("1000", "100000", 1)],
)
def test_quota_of_version_1(system: System, quota: str, period: str, count: int) -> None:
    system.groups("4:memory:/\n3:cpu,cpuacct:/work\n0::/\n", V1_CPU + V1_MEMORY)
    system.write("/sys/fs/cgroup/cpu,cpuacct/work/cpu.cfs_quota_us", quota)
    system.write("/sys/fs/cgroup/cpu,cpuacct/work/cpu.cfs_period_us", period)
    assert usable_cpus(system.root) == count


def test_the_groups_above_count_as_well(system: System) -> None:
    system.groups("0::/a/b/c\n", V2)
    system.write("/sys/fs/cgroup/a/b/c/cpu.max", "700000 100000")
    system.write("/sys/fs/cgroup/a/b/cpu.max", "max 100000")
    system.write("/sys/fs/cgroup/a/cpu.max", "300000 100000")
    system.write("/sys/fs/cgroup/a/b/memory.max", "1000000")
    system.write("/sys/fs/cgroup/a/memory.max", "max")
    assert usable_cpus(system.root) == 3
    assert memory_limit_bytes(system.root) == 1_000_000


def test_a_container_sees_the_hierarchy_from_its_own_group(system: System) -> None:
    """The path counts from the machine's root, the mount from the container's."""
    mount = V1_CPU.replace("0:27 / ", "0:27 /docker/abc ")
    system.groups("3:cpu,cpuacct:/docker/abc/inner\n", mount)
    base = "/sys/fs/cgroup/cpu,cpuacct"
    system.write(f"{base}/inner/cpu.cfs_quota_us", "-1")
    system.write(f"{base}/inner/cpu.cfs_period_us", "100000")
    system.write(f"{base}/cpu.cfs_quota_us", "200000")
    system.write(f"{base}/cpu.cfs_period_us", "100000")
    assert usable_cpus(system.root) == 2


@pytest.mark.parametrize("group", ["/docker/abcdef", "/elsewhere", "/../../outside"])
def test_a_group_that_cannot_be_seen(system: System, group: str) -> None:
    """The mount itself is the best that is known."""
    root = "/" if ".." in group else "/docker/abc"
    system.groups(f"0::{group}\n", V2.replace("0:22 / ", f"0:22 {root} "))
    system.write("/sys/fs/cgroup/cpu.max", "400000 100000")
    assert usable_cpus(system.root) == 4


def test_a_mount_point_with_a_space(system: System) -> None:
    system.groups("0::/\n", V2.replace("/sys/fs/cgroup", "/sys/my\\040groups"))
    system.write("/sys/my groups/cpu.max", "400000 100000")
    assert usable_cpus(system.root) == 4


def test_bounds_of_the_users(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    for value, count in [("3", 3), ("100", 8), ("0", 8), ("-2", 8), ("many", 8), ("", 8)]:
        monkeypatch.setenv(MAX_WORKERS, value)
        assert usable_cpus(system.root) == count
    monkeypatch.setenv(MAX_WORKERS, "3")
    monkeypatch.setenv(CPU_SHARE, "2")
    assert usable_cpus(system.root) == 2


def test_the_share_of_a_worker(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "usable_cpus", lambda: 8)
    for workers, share in [(1, 8), (2, 4), (3, 2), (8, 1), (100, 1), (0, 8)]:
        env = share_env(workers)
        assert env == {CPU_SHARE: str(share), **dict.fromkeys(NATIVE_NAMES, str(share))}
    assert share_env(2, 3) == {CPU_SHARE: "4", **dict.fromkeys(NATIVE_NAMES, "3")}


def test_what_the_user_has_set_stays(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "6")
    assert "OMP_NUM_THREADS" not in native_thread_env(2)
    assert native_thread_env(2)["MKL_NUM_THREADS"] == "2"
    # In a worker it was the pool around it that set them, and its share is to be shared again.
    monkeypatch.setenv(CPU_SHARE, "6")
    assert native_thread_env(2)["OMP_NUM_THREADS"] == "2"


def test_memory_of_version_1(system: System) -> None:
    system.groups("4:memory:/job\n", V1_MEMORY)
    system.write("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")
    assert memory_limit_bytes(system.root) is None
    system.write("/sys/fs/cgroup/memory/job/memory.limit_in_bytes", "536870912\n")
    assert memory_limit_bytes(system.root) == 512 * 1024 * 1024


def test_kills_for_want_of_memory(system: System) -> None:
    system.groups("4:memory:/job\n0::/job\n", V1_MEMORY)
    system.write(
        "/sys/fs/cgroup/memory/job/memory.oom_control",
        "oom_kill_disable 0\nunder_oom 0\noom_kill 4\n",
    )
    assert oom_kill_count(system.root) == 4
    system.groups("0::/job\n", V2)
    assert oom_kill_count(system.root) is None
    system.write("/sys/fs/cgroup/job/memory.events", "low 0\noom 9\noom_kill 7\noom_group_kill 0\n")
    assert oom_kill_count(system.root) == 7


def test_resident_memory(system: System) -> None:
    system.write("/proc/77/statm", "9000 2000 500 1 0 800 0\n")
    assert resident_bytes(77, system.root) == 2000 * os.sysconf("SC_PAGE_SIZE")
    for bad in ("", "9000", "a b c"):
        system.write("/proc/77/statm", bad)
        assert resident_bytes(77, system.root) is None


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs /proc")
def test_this_machine() -> None:
    assert 1 <= usable_cpus() <= (os.cpu_count() or 1)
    found = resident_bytes(os.getpid())
    assert found is not None
    assert 1_000_000 < found < 1 << 40
    limit = memory_limit_bytes()
    assert limit is None or limit > 1_000_000
    count = oom_kill_count()
    assert count is None or count >= 0
