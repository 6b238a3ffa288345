"""The index of a data file: built once by whoever comes first, whole or not at all, never stale, in no Python list."""

import multiprocessing
import os
import pickle
import time
import tracemalloc

import numpy as np
import pytest

from fusionvl.data import row_index
from fusionvl.data.json_file import JsonFile
from fusionvl.data.mixture import open_mixture
from fusionvl.data.record_file import RecordFile
from fusionvl.data.row_index import open_index


class Numbers(RecordFile):
    """A file of numbers, one a line; writes down each time it is scanned."""

    place = ("number",)

    def scan(self):
        with self.path.with_suffix(".scans").open("a") as scans:
            scans.write("scanned\n")
        for line in self.path.read_text().split():
            time.sleep(0.05)
            yield (int(line),), None

    def fetch(self, *place):
        raise NotImplementedError

    @property
    def scans(self):
        return len(self.path.with_suffix(".scans").read_text().split())


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "data[1].txt"
    path.write_text("5 3 9")
    return Numbers(path)


def places(index):
    return [index.place(row)[0] for row in range(len(index))]


def test_built_once_and_mapped(file):
    first, second = open_index(file), open_index(file)
    assert file.scans == 1
    assert first == second
    assert first.path.parent == file.path.parent / ".fusionvl-index"
    assert places(second) == [5, 3, 9]
    assert isinstance(second._rows, np.memmap)


def test_no_rows(file):
    file.path.write_text("")
    assert len(open_index(file)) == 0


def test_an_index_pickles_as_its_path(file):
    index = open_index(file)
    assert len(index) == 3
    dumped = pickle.dumps(index)
    assert len(dumped) < 1000
    assert places(pickle.loads(dumped)) == [5, 3, 9]


def test_changed_file_is_indexed_again_and_the_old_index_goes(file):
    old = open_index(file)
    file.path.write_text("5 3 8")
    edited = open_index(file)
    os.utime(file.path, ns=(1, 1))
    touched = open_index(file)
    assert file.scans == 3
    assert places(touched) == [5, 3, 8]
    assert old.fingerprint != edited.fingerprint == touched.fingerprint
    assert list(file.path.parent.glob(".fusionvl-index/*.rows")) == [touched.path]


def test_failure_while_building_leaves_nothing_behind(file):
    file.path.write_text("5 x")
    with pytest.raises(ValueError, match="invalid literal"):
        open_index(file)
    assert [path for path in file.path.parent.glob(".fusionvl-index/*") if path.suffix != ".lock"] == []
    file.path.write_text("5 7")
    assert places(open_index(file)) == [5, 7]


def test_two_files_of_one_name_have_two_indexes(tmp_path):
    files = []
    for number in (1, 2):
        (tmp_path / str(number)).mkdir()
        files.append(Numbers(tmp_path / str(number) / "a.txt"))
        files[-1].path.write_text(f"{number}")
    first, second = (open_index(file, folder=tmp_path / "indexes") for file in files)
    assert (places(first), places(second)) == ([1], [2])
    assert first.path.parent == second.path.parent == tmp_path / "indexes"


def test_read_only_data_folder_uses_the_cache_folder(file, tmp_path, monkeypatch):
    monkeypatch.setattr(row_index.os, "access", lambda path, mode: False)  # root may write anywhere
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert open_index(file).path.is_relative_to(tmp_path / "cache" / "fusionvl")


def test_missing_data_file_and_a_wrong_place_for_indexes(file, tmp_path):
    with pytest.raises(ValueError, match=r"none\.txt: there is no such data file"):
        open_index(Numbers(tmp_path / "none.txt"))
    with pytest.raises(ValueError, match=r"data\[1\]\.txt/below cannot be written: Not a directory"):
        open_index(file, folder=file.path / "below")


def test_three_processes_at_once_build_one_index(file):
    with multiprocessing.get_context("fork").Pool(3) as pool:
        found = pool.map(open_index, [file] * 3, chunksize=1)
    assert [places(index) for index in found] == [[5, 3, 9]] * 3
    assert file.scans == 1


def test_memory_does_not_grow_with_the_rows(files):
    rows = 40_000
    path = files.llava("many.json", 0, records=[files.record(n, words=30) for n in range(rows)])
    assert path.stat().st_size > 10e6
    tracemalloc.start()
    try:
        index = open_index(JsonFile(path, lines=False))
        build_peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        mixture = open_mixture({"datasets": [{"json_path": str(path), "sampling_strategy": "random:90%"}]}, seed=0)
        for position in range(0, len(mixture), 1000):
            mixture.read(mixture.order.at(position))
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert len(index) == rows
    # One list of 40,000 integers alone would be more than 1 MB.
    assert build_peak < 6e6
    assert held < 3e6
