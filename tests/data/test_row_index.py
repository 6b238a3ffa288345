"""The index of a data file: built once by whoever comes first, never torn, never stale, never in Python lists."""

import json
import multiprocessing
import os
import pickle
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from fusionvl.data import row_index
from fusionvl.data.llava_source import LlavaSource
from fusionvl.data.mixture import open_mixture
from fusionvl.data.row_index import open_index

COLUMNS = np.dtype([("offset", "<i8"), ("has_image", "?")])


def pieces(*counts):
    """A way of finding rows that counts how often it is asked."""

    def find():
        find.calls += 1
        first = 0
        for count in counts:
            piece = np.zeros(count, COLUMNS)
            piece["offset"] = np.arange(first, first + count)
            first += count
            yield piece

    find.calls = 0
    return find


@pytest.fixture
def data_file(tmp_path):
    path = tmp_path / "data.bin"
    path.write_bytes(b"x" * 100)
    return path


def test_built_once_and_mapped(data_file):
    find = pieces(3, 0, 5)
    first = open_index(data_file, COLUMNS, find)
    second = open_index(data_file, COLUMNS, find)
    assert find.calls == 1
    assert first.path == second.path
    assert first.path.parent == data_file.parent / ".fusionvl-index"
    assert isinstance(second.rows, np.memmap)
    assert second.rows["offset"].tolist() == list(range(8))
    assert len(second) == 8


def test_no_rows(data_file):
    assert len(open_index(data_file, COLUMNS, pieces())) == 0


def test_an_index_pickles_as_its_path(data_file):
    index = open_index(data_file, COLUMNS, pieces(10_000))
    assert index.rows["offset"][77] == 77
    dumped = pickle.dumps(index)
    assert len(dumped) < 500
    assert pickle.loads(dumped).rows["offset"][77] == 77


def test_changed_file_is_indexed_again_and_the_old_index_goes(data_file):
    find = pieces(3)
    old = open_index(data_file, COLUMNS, find)
    data_file.write_bytes(b"x" * 101)
    longer = open_index(data_file, COLUMNS, find)
    os.utime(data_file, ns=(1, 1))
    touched = open_index(data_file, COLUMNS, find)
    assert find.calls == 3
    assert len({old.path, longer.path, touched.path}) == 3
    assert list(data_file.parent.glob(".fusionvl-index/*.npy")) == [touched.path]


@pytest.mark.parametrize("keep", [0, 5, 100, -1])
def test_torn_index_is_built_again(data_file, keep):
    find = pieces(50)
    path = open_index(data_file, COLUMNS, find).path
    path.write_bytes(path.read_bytes()[:keep])
    assert open_index(data_file, COLUMNS, find).rows["offset"].tolist() == list(range(50))
    assert find.calls == 2


def test_foreign_file_in_the_place_of_an_index(data_file):
    find = pieces(5)
    path = open_index(data_file, COLUMNS, find).path
    path.write_bytes(b"not an index at all, but long enough to be one")
    assert len(open_index(data_file, COLUMNS, find)) == 5


def test_failure_while_building_leaves_nothing_behind(data_file):
    def fails():
        yield np.zeros(3, COLUMNS)
        raise ValueError("corrupt")

    with pytest.raises(ValueError, match="corrupt"):
        open_index(data_file, COLUMNS, fails)
    left = [path.name for path in data_file.parent.glob(".fusionvl-index/*") if path.suffix != ".lock"]
    assert left == []
    assert len(open_index(data_file, COLUMNS, pieces(2))) == 2


def test_two_files_of_one_name_have_two_indexes(tmp_path):
    for number in (1, 2):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "a.json").write_bytes(b"x" * 10)
    shared = tmp_path / "indexes"
    first = open_index(tmp_path / "1" / "a.json", COLUMNS, pieces(1), folder=shared)
    second = open_index(tmp_path / "2" / "a.json", COLUMNS, pieces(2), folder=shared)
    assert (len(first), len(second)) == (1, 2)
    assert first.path.parent == second.path.parent == shared


def test_read_only_data_folder_uses_the_cache_folder(data_file, tmp_path, monkeypatch):
    monkeypatch.setattr(row_index.os, "access", lambda path, mode: False)  # root may write anywhere
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    index = open_index(data_file, COLUMNS, pieces(1))
    assert index.path.is_relative_to(tmp_path / "cache" / "fusionvl")


def test_missing_data_file(tmp_path):
    with pytest.raises(ValueError, match=r"none\.json: there is no such data file"):
        open_index(tmp_path / "none.json", COLUMNS, pieces(1))


def slowly(calls: Path):
    with calls.open("a") as file:
        file.write(f"{os.getpid()}\n")
    for number in range(3):
        time.sleep(0.2)
        piece = np.zeros(1, COLUMNS)
        piece["offset"] = number
        yield piece


def open_in_process(arguments):
    data_file, calls = arguments
    index = open_index(data_file, COLUMNS, lambda: slowly(calls))
    return index.path.name, index.rows["offset"].tolist()


def test_three_processes_at_once_build_one_index(data_file, tmp_path):
    calls = tmp_path / "calls"
    with multiprocessing.get_context("fork").Pool(3) as pool:
        found = pool.map(open_in_process, [(data_file, calls)] * 3, chunksize=1)
    assert found == [(found[0][0], [0, 1, 2])] * 3
    assert len(calls.read_text().splitlines()) == 1


def test_memory_does_not_grow_with_the_rows(tmp_path):
    path = tmp_path / "many.jsonl"
    body = json.dumps([{"from": "human", "value": "question " * 5}, {"from": "gpt", "value": "answer " * 5}])
    rows = 200_000
    with path.open("w") as file:
        for number in range(rows):
            file.write(f'{{"id": "{number}", "conversations": {body}}}\n')
    assert path.stat().st_size > 30e6
    tracemalloc.start()
    try:
        source = LlavaSource(path, name="many", lines=True)
        build_peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        mixture = open_mixture({"datasets": [{"json_path": str(path), "sampling_strategy": "random:90%"}]}, seed=0)
        for position in range(0, len(mixture), 1000):
            mixture.read(mixture.order.at(position))
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert len(source) == rows
    # One list of 200,000 integers alone would be more than 6 MB.
    assert build_peak < 25e6
    assert held < 10e6
