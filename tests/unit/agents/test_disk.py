"""State on disk does what state in memory does, and is gone with its process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from easyremote.agents.disk import DiskCopy, DiskShelf, Scratch, need_rocksdict
from easyremote.errors import ConfigError
from easyremote.windows.resting import NEVER, Rested
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shelves import MemoryShelf

KEYS = st.binary(min_size=0, max_size=3)
ACTIONS = st.lists(
    st.tuples(st.just("put"), KEYS, st.sampled_from([-(2**62), -1, 0, 1, 255, 256, NEVER]))
    | st.tuples(st.just("take"), KEYS, st.just(0))
    | st.tuples(st.just("due"), st.just(b""), st.sampled_from([-1, 0, 255, NEVER - 1])),
    max_size=30,
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(actions=ACTIONS, most=st.integers(1, 5))
def test_a_shelf_on_disk_does_what_one_in_memory_does(
    tmp_path: Path, actions: list[tuple[str, bytes, int]], most: int
) -> None:
    on_disk, in_memory = DiskShelf(tmp_path / "shelf"), MemoryShelf()
    try:
        for number, (action, key, time) in enumerate(actions):
            if action == "put":
                in_memory.take(key)
                on_disk.take(key)
                for shelf in (on_disk, in_memory):
                    shelf.put([Rested(key, b"state %d" % number, time)])
            elif action == "take":
                assert on_disk.take(key) == in_memory.take(key)
            else:
                assert on_disk.due(time, most) == in_memory.due(time, most)
    finally:
        on_disk.close()


def test_a_copy_on_disk_is_a_mapping_and_deletes_what_it_leaves(tmp_path: Path) -> None:
    copy = DiskCopy(tmp_path / "copy")
    copy.update({b"a": b"1", b"": b"2", b"b": b"3"})
    assert (dict(copy), len(copy), copy.pop(b"a"), copy.pop(b"a", None)) == (
        {b"a": b"1", b"": b"2", b"b": b"3"},
        3,
        b"1",
        None,
    )
    copy.clear()
    assert dict(copy) == {}
    copy.close()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_deleted_and_what_a_living_one_has_is_not(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from easyremote.agents.disk import Scratch; "
        "kept = Scratch(Path(sys.argv[1])); print(kept.folder, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        its = Path(other.stdout.readline().strip())
        first = Scratch(tmp_path)
        assert its.exists()
        other.kill()
        other.wait()
        second = Scratch(tmp_path)
        assert (its.exists(), first.folder.exists(), second.folder.exists()) == (False, True, True)
        first.close()
        second.close()
    assert [one for one in tmp_path.iterdir() if one.is_dir()] == []


def test_a_partition_that_comes_back_while_its_shelf_is_open_gets_another_one(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path)
    first, second = (DiskShelf(scratch.new("shelf", 0)) for _ in range(2))
    first.put([Rested(b"a", b"1", 0)])
    assert (second.take(b"a"), first.take(b"a")) == (None, b"1")
    for shelf in (first, second):
        shelf.close()
    scratch.close()


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rocksdict", None)
    with pytest.raises(ConfigError, match=r"easyremote-kafka\[rocksdb\]"):
        need_rocksdict()
