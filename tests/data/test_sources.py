"""Every kind of file as a source: rows by number, pickling, and faults named by file and row."""

import importlib
import json
import os
import pickle
import random

import numpy as np
import pytest

from fusionvl.data.file_source import FileSource
from fusionvl.data.json_file import JsonFile
from fusionvl.data.llava import read_llava
from fusionvl.data.parquet_file import ParquetFile
from fusionvl.data.tar_file import TarFile


def read(source, row):
    return source.read(row, epoch=0, seed=0)


def opened(*files):
    return FileSource("unit", files)


def llava(path, **options):
    return opened(JsonFile(path, lines=path.suffix == ".jsonl", **options))


@pytest.fixture(params=["json", "jsonl", "tar", "parquet", "parquet-bytes", "several"])
def source(request, files):
    """Eight rows; the odd ones have an image."""
    kind = request.param
    if kind in ("json", "jsonl"):
        return llava(files.llava(f"a.{kind}", 8))
    if kind == "tar":
        return opened(TarFile(files.tar("a.tar", 8)))
    if kind.startswith("parquet"):
        return opened(ParquetFile(files.parquet("a.parquet", 8, struct=kind == "parquet")))
    empty = JsonFile(files.llava("empty.json", 0), lines=False)
    return opened(TarFile(files.tar("1.tar", 4)), empty, TarFile(files.tar("2.tar", 4)))


def test_rows_in_any_order(source):
    order = list(range(8))
    random.Random(1).shuffle(order)
    assert len(source) == 8
    for row in order:
        sample = read(source, row)
        number = row % 4 if len(source.files) > 1 else row
        assert (sample.id, sample.source) == (f"id-{number}", "unit")
        assert sample.turns[0].answer == f"answer {number}.0"
        assert (sample.image is not None) == bool(row % 2)
    assert source.shapes(np.array([7, 0, 3, 3])).has_image.tolist() == [True, False, True, True]


def test_a_pickled_source_reads_the_same(source):
    read(source, 5)
    dumped = pickle.dumps(source)
    assert len(dumped) < 4000
    copy = pickle.loads(dumped)
    assert [read(copy, row) for row in range(8)] == [read(source, row) for row in range(8)]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_does_not_disturb_the_reads(source):
    expected = [read(source, row) for row in range(8)]
    child = os.fork()
    if child == 0:
        same = all([read(source, row) for row in range(8)] == expected for _ in range(20))
        os._exit(0 if same else 1)
    assert all([read(source, row) for row in range(8)] == expected for _ in range(20))
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("suffix", ["json", "jsonl"])
def test_llava_rows_are_those_of_the_plain_reader(files, suffix):
    path = files.llava(f"unit.{suffix}", 9)
    assert [read(llava(path), row) for row in range(9)] == list(read_llava(path))
    elsewhere = llava(path, image_folder=files.folder / "images")
    assert read(elsewhere, 1).image == files.folder / "images" / "image.png"


TALK = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]


def test_faulty_records_are_named_by_file_and_row(files):
    path = files.llava("a.json", 0, records=[files.record(0), {"id": "x", "conversations": TALK[:1]}, [1]])
    source = llava(path)
    assert read(source, 0).id == "id-0"
    with pytest.raises(ValueError, match=r"a\.json: record 1: id 'x': empty answer"):
        read(source, 1)
    with pytest.raises(ValueError, match=r"a\.json: record 2: must be an object"):
        read(source, 2)
    path.write_bytes(path.read_bytes()[:60])  # under a running process
    with pytest.raises(ValueError, match=r"a\.json: record 2: .*a\.json ends before byte"):
        read(source, 2)


def test_tar_faults(files):
    good = json.dumps(files.record(0)).encode()
    bad = [
        ([("a.png", files.png())], "'a' has no records a.json"),
        ([("a.json", good), ("a.png", b"1"), ("a.jpg", b"2")], "'a' has 2 images"),
    ]
    for number, (members, words) in enumerate(bad):
        with pytest.raises(ValueError, match=words):
            opened(TarFile(files.tar(f"{number}.tar", 0, members=members)))
    named = json.dumps(files.record(1, image="gone.jpg")).encode()
    members = [
        ("a.json", b"{"),
        ("b.json", named),
        ("c.json", good),
        ("c.png", b""),
        ("d.json", b"[]"),
        ("e.json", good),
    ]
    source = opened(TarFile(files.tar("rows.tar", 0, members=members)))
    for row, words in enumerate(["not valid JSON at byte 513", "names the image 'gone.jpg'", "0 bytes", "an object"]):
        with pytest.raises(ValueError, match=rf"rows\.tar: record {row}: .*{words}"):
            read(source, row)
    assert read(source, 4).id == "id-0"


def test_tar_cut_off_or_compressed(files):
    path = files.tar("a.tar", 4)
    path.write_bytes(path.read_bytes()[: 512 + 20])
    with pytest.raises(ValueError, match=r"a\.tar: cut off in the middle of 'shard/0000.json' at byte 512"):
        opened(TarFile(path))
    path.write_bytes(b"\x1f\x8b" + b"x" * 2000)
    with pytest.raises(ValueError, match=r"a\.tar: not a readable tar file.*must be unpacked"):
        opened(TarFile(path))


def test_parquet_text_only_and_empty_conversations(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    kind = arrow.list_(arrow.struct([("from", arrow.string()), ("value", arrow.string())]))
    column = arrow.array([TALK, [], None, TALK * 2], type=kind)
    parquet.write_table(arrow.table({"conversations": column}), path)
    source = opened(ParquetFile(path))
    shapes = source.shapes(np.arange(4))
    assert (shapes.characters.tolist(), shapes.turns.tolist()) == ([2, 0, 0, 4], [1, 0, 0, 2])
    assert not shapes.has_image.any()
    assert len(read(source, 3).turns) == 2
    for row in (1, 2):
        with pytest.raises(ValueError, match=rf"a\.parquet: record {row}: .*'conversations' must be a list"):
            read(source, row)


def test_parquet_with_other_columns(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    for columns, words in [
        ({"text": ["x"]}, "has no column 'conversations'; its columns are text"),
        ({"conversations": ["x"]}, "record 0: .*'conversations' must be a list"),
        ({"conversations": [[{"role": "x", "value": "y"}]]}, "record 0: .*must be from 'human'"),
        ({"conversations": [TALK], "image": ["a.jpg"]}, "record 0: .*in parquet files the contents of the file"),
        ({"conversations": [TALK], "image": [{"path": "a.jpg"}]}, "names the image .*a.jpg.* no image is stored"),
        ({"conversations": [TALK], "image": [b""]}, "its image is stored with 0 bytes"),
    ]:
        parquet.write_table(arrow.table(columns), path)
        with pytest.raises(ValueError, match=rf"a\.parquet: .*{words}"):
            read(opened(ParquetFile(path)), 0)
    path.write_bytes(b"PAR1 no parquet")
    with pytest.raises(ValueError, match=r"a\.parquet: not a readable parquet file"):
        opened(ParquetFile(path))


def test_parquet_with_a_torn_row_group(files):
    path = files.parquet("a.parquet", 60, row_group_size=30)
    content = bytearray(path.read_bytes())
    content[4 : len(content) // 4] = bytes(len(content) // 4 - 4)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.parquet: row group 0 cannot be read"):
        opened(ParquetFile(path))


def test_parquet_without_pyarrow_says_how_to_install_it(tmp_path, monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(f"No module named {name!r}", name="pyarrow")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'fusionvl\[train\]'"):
        opened(ParquetFile(tmp_path / "a.parquet"))


def test_a_source_needs_files():
    with pytest.raises(ValueError, match="unit: no files"):
        opened()
