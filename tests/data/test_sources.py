"""Every kind of source: rows by number, facts from the index, pickling, and faults named by file and row."""

import importlib
import json
import os
import pickle
import random

import numpy as np
import pytest

from fusionvl.data.easy_vqa import conversation_sample, divide_train, load_split, question_samples
from fusionvl.data.easy_vqa_source import EasyVqaSource
from fusionvl.data.joined_source import JoinedSource
from fusionvl.data.llava import read_llava
from fusionvl.data.llava_source import LlavaSource
from fusionvl.data.parquet_source import ParquetSource
from fusionvl.data.tar_source import TarSource


def read(source, row):
    return source.read(row, epoch=0, seed=0)


def rows(*numbers):
    return np.array(numbers, dtype=np.int64)


@pytest.fixture(params=["json", "jsonl", "tar", "parquet", "parquet-bytes", "joined"])
def source(request, files):
    """Eight rows; the odd ones have an image."""
    kind = request.param
    if kind in ("json", "jsonl"):
        return LlavaSource(files.llava(f"a.{kind}", 8), name="unit", lines=kind == "jsonl")
    if kind == "tar":
        return TarSource(files.tar("a.tar", 8), name="unit")
    if kind.startswith("parquet"):
        return ParquetSource(files.parquet("a.parquet", 8, struct=kind == "parquet"), name="unit")
    parts = [TarSource(files.tar(f"{n}.tar", 4), name="part") for n in (1, 2)]
    return JoinedSource("unit", parts)


def test_rows_at_random(source):
    order = list(range(8))
    random.Random(1).shuffle(order)
    assert len(source) == 8
    for row in order:
        sample = read(source, row)
        number = row % 4 if isinstance(source, JoinedSource) else row
        assert sample.id == f"id-{number}"
        assert sample.turns[0].answer == f"answer {number}.0"
        assert (sample.image is not None) == bool(row % 2)


def test_facts_from_the_index(source):
    asked = rows(7, 0, 3, 3)
    assert source.has_image(asked).tolist() == [True, False, True, True]
    lengths = source.lengths(asked)
    assert lengths.dtype == np.int64
    for row, length in zip(asked.tolist(), lengths.tolist(), strict=True):
        characters = sum(len(turn.question) + len(turn.answer) for turn in read(source, row).turns)
        assert characters <= length <= characters + 250


def test_a_pickled_source_reads_the_same(source):
    read(source, 5)
    dumped = pickle.dumps(source)
    assert len(dumped) < 3000
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
    path = files.llava(f"a.{suffix}", 9)
    source = LlavaSource(path, name="a", lines=suffix == "jsonl")
    assert [read(source, row) for row in range(9)] == list(read_llava(path))


def test_llava_image_folder(files):
    path = files.llava("a.json", 2)
    source = LlavaSource(path, name="a", lines=False, image_folder=files.folder / "images")
    assert read(source, 1).image == files.folder / "images" / "image.png"


TALK = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"conversations": TALK[::-1]}, "a conversation starts with the human"),
        ({"conversations": TALK[:1]}, "empty answer"),
        ({"conversations": [TALK[0], {"from": "gpt", "value": " "}]}, "empty answer"),
        ({"conversations": [{"from": "human", "value": "<image>q"}, TALK[1]]}, "has no 'image'"),
        ({"id": "x"}, "'conversations' must be a list"),
        ([1], "must be an object"),
    ],
)
def test_faulty_llava_record_is_named(files, record, words):
    path = files.llava("a.json", 0, records=[files.record(0), record])
    source = LlavaSource(path, name="a", lines=False)
    assert read(source, 0).id == "id-0"
    with pytest.raises(ValueError, match=r"a\.json: record 1.*" + words):
        read(source, 1)


def test_record_that_is_not_json_is_named_by_byte(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes('{"id": "é"}\n{"é" 1}\n'.encode() + b'{"id": "\xff"}\n')
    source = LlavaSource(path, name="a", lines=True)
    with pytest.raises(ValueError, match=r"a\.jsonl: record 1: not valid JSON at byte 19") as caught:
        read(source, 1)
    assert isinstance(caught.value.__cause__, json.JSONDecodeError)
    with pytest.raises(ValueError, match=r"a\.jsonl: record 2: not UTF-8 at byte 30"):
        read(source, 2)


def test_file_cut_off_under_a_running_process(files):
    path = files.llava("a.json", 5)
    source = LlavaSource(path, name="a", lines=False)
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ValueError, match=r"a\.json: ends before byte"):
        read(source, 4)


def test_tar_faults(files):
    good = json.dumps(files.record(0)).encode()
    bad = [
        ([("a.png", files.png())], "'a' has no record"),
        ([("a.json", good), ("a.png", b"1"), ("a.jpg", b"2")], "'a' has 2 images"),
    ]
    for number, (members, words) in enumerate(bad):
        with pytest.raises(ValueError, match=words):
            TarSource(files.tar(f"{number}.tar", 0, members=members), name="t")
    named = json.dumps(files.record(1, image="gone.jpg")).encode()
    members = [
        ("a.json", b"{"),
        ("b.json", named),
        ("c.json", good),
        ("c.png", b""),
        ("d.json", b"[]"),
        ("e.json", good),
    ]
    source = TarSource(files.tar("rows.tar", 0, members=members), name="t")
    for row, words in enumerate(
        ["not valid JSON near byte 512", "names the image 'gone.jpg'", "0 bytes", "an object"]
    ):
        with pytest.raises(ValueError, match=rf"rows\.tar: record {row}: .*{words}"):
            read(source, row)
    assert read(source, 4).id == "id-0"


def test_tar_cut_off_or_compressed(files):
    path = files.tar("a.tar", 4)
    path.write_bytes(path.read_bytes()[: 512 + 20])
    with pytest.raises(ValueError, match=r"a\.tar: cut off in the middle of 'shard/0000.json' at byte 512"):
        TarSource(path, name="t")
    path.write_bytes(b"\x1f\x8b" + b"x" * 2000)
    with pytest.raises(ValueError, match=r"a\.tar: not a readable tar file.*must be unpacked"):
        TarSource(path, name="t")


def test_parquet_lengths_are_characters(files):
    source = ParquetSource(files.parquet("a.parquet", 7), name="p")
    expected = [sum(len(turn.question) + len(turn.answer) for turn in read(source, row).turns) for row in range(7)]
    assert source.lengths(np.arange(7)).tolist() == expected


def test_parquet_statistics_may_be_missing(files):
    parquet = pytest.importorskip("pyarrow.parquet")
    path = files.parquet("a.parquet", 6)
    parquet.write_table(parquet.read_table(path), path, write_statistics=False)
    assert ParquetSource(path, name="p").has_image(np.arange(6)).tolist() == [False, True] * 3


def test_parquet_text_only_and_empty_conversations(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    kind = arrow.list_(arrow.struct([("from", arrow.string()), ("value", arrow.string())]))
    column = arrow.array([TALK, [], None, TALK * 2], type=kind)
    parquet.write_table(arrow.table({"conversations": column}), path)
    source = ParquetSource(path, name="p")
    assert source.lengths(np.arange(4)).tolist() == [2, 0, 0, 4]
    assert not source.has_image(np.arange(4)).any()
    assert len(read(source, 3).turns) == 2
    for row in (1, 2):
        with pytest.raises(ValueError, match=rf"a\.parquet: record {row} .*'conversations' must be a list"):
            read(source, row)


def test_parquet_with_other_columns(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    for columns, words in [
        ({"text": ["x"]}, "no column 'conversations'; its columns are text"),
        ({"conversations": ["x"]}, "must be a list of structs"),
        ({"conversations": [[{"role": "x", "value": "y"}]]}, "must hold 'from' and 'value'"),
        ({"conversations": [TALK], "image": ["a.jpg"]}, "'image' must be bytes"),
    ]:
        parquet.write_table(arrow.table(columns), path)
        with pytest.raises(ValueError, match=rf"a\.parquet: .*{words}"):
            ParquetSource(path, name="p")
    path.write_bytes(b"PAR1 no parquet")
    with pytest.raises(ValueError, match=r"a\.parquet: not a readable parquet file"):
        ParquetSource(path, name="p")


def test_parquet_with_a_torn_row_group(files):
    path = files.parquet("a.parquet", 60, row_group_size=30)
    content = bytearray(path.read_bytes())
    content[4 : len(content) // 4] = bytes(len(content) // 4 - 4)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.parquet: row group 0 cannot be read"):
        ParquetSource(path, name="p")


def test_parquet_without_pyarrow_says_how_to_install_it(tmp_path, monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(f"No module named {name!r}", name="pyarrow")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'fusionvl\[train\]'"):
        ParquetSource(tmp_path / "a.parquet", name="p")


def test_easy_vqa_draws_what_training_drew_before():
    images, held_out = divide_train(load_split("train"))
    source = EasyVqaSource(max_turns=3)
    assert len(source) == len(images)
    for row, epoch in [(0, 0), (5, 0), (5, 1), (len(images) - 1, 7)]:
        expected = conversation_sample(images, row, seed=9, epoch=epoch, max_turns=3)
        assert source.read(row, epoch=epoch, seed=9) == expected
    drawn = {source.read(row, epoch=0, seed=0).image for row in range(len(source))}
    assert drawn.isdisjoint(sample.image for sample in question_samples(held_out))
    assert source.has_image(rows(0, 1)).all()
    mean = np.mean([sum(len(t.question) + len(t.answer) for t in read(source, row).turns) for row in range(500)])
    assert mean == pytest.approx(source.lengths(np.arange(500)).mean(), rel=0.1)


def test_easy_vqa_open_questions():
    source = EasyVqaSource(questions="open", max_turns=1)
    answers = {read(source, row).turns[0].answer for row in range(len(source))}
    assert answers.isdisjoint({"yes", "no"})
    assert len(answers) == 11


@pytest.mark.parametrize("options", [{"questions": "closed"}, {"max_turns": 0}, {"max_turns": "4"}])
def test_easy_vqa_options(options):
    with pytest.raises(ValueError, match=r"easy-VQA: (questions|max_turns) must be"):
        EasyVqaSource(**options)


def test_joined_needs_parts():
    with pytest.raises(ValueError, match="no files to join"):
        JoinedSource("x", [])
