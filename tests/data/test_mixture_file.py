"""Mixture files: upstream's unchanged, and every mistake named with file, entry and remedy before anything is read."""

import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from fusionvl.data.mixture import MixturePart, open_mixture
from fusionvl.data.mixture_file import read_mixture_file
from fusionvl.data.sampling_strategy import Strategy


def write(files, *entries, name="mix.yaml", **others):
    path = files.folder / name
    path.write_text(yaml.safe_dump({"datasets": list(entries), **others}))
    return path


def selected(text, rows, label="l"):
    part = MixturePart(range(rows), Strategy.parse(text), None, label)
    return part.to_rows(np.arange(len(part))).tolist()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("all", list(range(10))),
        ("first:3", [0, 1, 2]),
        ("first:25%", [0, 1, 2]),
        ("end:3", [7, 8, 9]),
        ("end:11%", [8, 9]),
        ("end:100%", list(range(10))),
        ("first:99", list(range(10))),
        ("end:99", list(range(10))),
    ],
)
def test_strategies(text, expected):
    assert selected(text, 10) == expected


def test_percentages_round_up_but_not_by_float_noise():
    for percent in range(1, 101):
        assert len(selected(f"first:{percent}%", 100)) == percent
    assert len(selected("first:0.5%", 1000)) == 5
    assert len(selected("random:1%", 7)) == 1


def test_random_rows_differ_and_depend_on_the_label_alone():
    chosen = selected("random:30%", 1000, "select/0/a")
    assert len(set(chosen)) == len(chosen) == 300
    assert chosen == selected("random:300", 1000, "select/0/a")
    assert set(chosen) != set(selected("random:300", 1000, "select/1/a"))
    assert 60 < len(set(chosen) & set(selected("random:300", 1000, "select/1/a"))) < 120
    assert sorted(selected("random:100%", 1000)) == list(range(1000))


@pytest.mark.parametrize(
    "text",
    ["some", "first", "first:", "first:x", "first:-3", "first:0", "end:0%", "random:101%", "first:2.5", 5, None],
)
def test_unknown_strategy(files, text):
    files.llava("a.json", 4)
    path = write(files, {"json_path": "a.json"}, {"json_path": "a.json", "sampling_strategy": text})
    with pytest.raises(
        ValueError, match=rf"{re.escape(str(path))}: entry 2: .*sampling_strategy {re.escape(repr(text))}"
    ):
        read_mixture_file(path)


def test_upstream_file_unchanged(files):
    files.llava("a.json", 10)
    files.llava("b.jsonl", 20)
    path = files.folder / "stage2.yaml"
    path.write_text(
        f"datasets:\n- json_path: {files.folder}/a.json\n  sampling_strategy: all\n"
        f"- json_path: b.jsonl\n  sampling_strategy: end:25%\n"
    )
    mixture = open_mixture(path, seed=0)
    assert [part.source.name for part in mixture.parts] == ["a", "b"]
    assert [len(part) for part in mixture.parts] == [10, 5]
    drawn = {mixture.read(mixture.order.at(position)).id for position in range(15)}
    assert drawn == {f"id-{n}" for n in [*range(10), *range(15, 20)]}


def test_every_kind_in_one_mixture(files):
    pytest.importorskip("pyarrow")
    files.llava("a.json", 4)
    (files.folder / "lines.txt").write_bytes(files.llava("b.jsonl", 3).read_bytes())
    for number in (2, 1):
        files.tar(f"shard-{number}.tar", 5)
    files.parquet("p.parquet", 6)
    path = write(
        files,
        {"json_path": "a.json", "image_folder": "."},
        {"path": "lines.txt", "kind": "jsonl", "name": "lines"},
        {"path": "shard-*.tar", "name": "shards"},
        {"json_path": "p.parquet"},
        {"kind": "easy-vqa", "questions": "open", "max_turns": 2, "sampling_strategy": "first:7"},
    )
    mixture = open_mixture(path, seed=0)
    assert [part.source.name for part in mixture.parts] == ["a", "lines", "shards", "p", "easy-vqa-train"]
    assert [len(part) for part in mixture.parts] == [4, 3, 10, 6, 7]
    samples = [mixture.read(mixture.order.at(position)) for position in range(len(mixture))]
    assert {sample.source for sample in samples} == {"a", "lines", "shards", "p", "easy-vqa-train"}


def test_relative_paths_are_found_from_the_working_directory_too(files, monkeypatch, tmp_path):
    files.llava("a.json", 2)
    (tmp_path / "configs").mkdir()
    path = write(files, {"json_path": "a.json", "image_folder": "."}, name="configs/mix.yaml")
    monkeypatch.chdir(tmp_path)
    (entry,) = read_mixture_file(path)
    assert entry.files == (Path("a.json"),)


def test_one_file_twice_gets_two_names(files):
    files.llava("a.json", 10)
    mixture = open_mixture(
        write(
            files,
            {"json_path": "a.json", "sampling_strategy": "first:2"},
            {"json_path": "a.json", "sampling_strategy": "end:2"},
        ),
        seed=0,
    )
    assert [part.source.name for part in mixture.parts] == ["a", "a#2"]


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"json_path": "a.json", "sampling": "all"}, "unknown key 'sampling'; known are .*sampling_strategy"),
        ({"json_path": "none.json"}, r"there is no data file .*none\.json.*correct 'json_path'"),
        ({"json_path": "a.json", "image_folder": "gone"}, "there is no image folder .*gone.*correct 'image_folder'"),
        ({"json_path": "a.tar", "image_folder": "."}, "tar files hold their images themselves"),
        ({"json_path": "a.json", "path": "a.json"}, "only once"),
        ({"sampling_strategy": "all"}, "give the file"),
        ({"json_path": ["a.json"]}, "'json_path' must be text"),
        ({"json_path": "a.txt"}, r"cannot tell what it is.*set 'kind'"),
        ({"json_path": "a.json", "kind": "xls"}, "unknown kind 'xls'"),
        ({"json_path": "a.json", "weight": 0}, "'weight' must be a number above 0"),
        ({"json_path": "a.json", "weight": "2"}, "'weight' must be a number above 0"),
        ({"json_path": "a.json", "weight": 1.0}, "in every entry or in none"),
        ({"json_path": "a.json", "max_turns": 2}, "unknown key 'max_turns'"),
        ({"kind": "easy-vqa", "json_path": "a.json"}, "unknown key 'json_path'"),
        ("a.json", "must be keys and values"),
    ],
)
def test_faulty_entry_is_named(files, entry, words):
    files.llava("a.json", 4)
    files.tar("a.tar", 2)
    (files.folder / "a.txt").write_text("")
    path = write(files, {"json_path": "a.json"}, entry)
    with pytest.raises(ValueError, match=rf"mix\.yaml: .*{words}") as caught:
        read_mixture_file(path)
    assert "entry 2" in str(caught.value) or "entry 1 has none" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("datasets: []", "'datasets' must be a list"),
        ("{}", "'datasets' must be a list"),
        ("- json_path: a.json", "must hold 'datasets:'"),
        ("datasets: [", "not valid YAML"),
        ("dataset: []\ndatasets: []", "unknown key 'dataset'"),
    ],
)
def test_faulty_file(tmp_path, text, words):
    path = tmp_path / "mix.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"mix\.yaml: {words}"):
        read_mixture_file(path)


def test_missing_mixture_file(tmp_path):
    with pytest.raises(ValueError, match=r"none\.yaml: there is no such mixture file"):
        open_mixture(tmp_path / "none.yaml", seed=0)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[]", "holds no rows"),
        ('[{"id": 1}', "found the file's end"),
        ('[{"id": 1}]', "none of 1 rows looked at can be used; the first: .*record 0"),
    ],
)
def test_unusable_data_is_refused_before_the_first_step(files, content, words):
    (files.folder / "bad.json").write_text(content)
    path = write(files, {"json_path": "bad.json"})
    with pytest.raises(ValueError, match=rf"mix\.yaml: entry 1: .*{words}"):
        open_mixture(path, seed=0)


def test_wrong_image_folder_is_refused_before_the_first_step(files):
    files.llava("a.json", 0, records=[files.record(n, image=f"{n}.jpg") for n in range(50)])
    path = write(files, {"json_path": "a.json"})
    with pytest.raises(
        ValueError, match=r"entry 1: none of 8 rows .*there is no image .*0\.jpg; correct 'image_folder'"
    ):
        open_mixture(path, seed=0)
    (files.folder / "0.jpg").write_bytes(files.png())
    assert len(open_mixture(path, seed=0)) == 50


def test_fingerprint_tells_what_the_samples_and_their_order_depend_on(files):
    path = files.llava("a.json", 10)

    def fingerprint(seed=0, **entry):
        return open_mixture({"datasets": [{"json_path": str(path), **entry}]}, seed=seed).fingerprint

    first = fingerprint()
    others = [
        fingerprint(seed=1),
        fingerprint(sampling_strategy="first:9"),
        fingerprint(weight=1),
        fingerprint(name="b"),
    ]
    rows = path.read_text()
    for edit in [("answer 3.0", "answer 3.1"), ("answer 3.0", "no"), ('.png"', '.jpg"')]:
        path.write_text(rows.replace(*edit))  # in place, and the rows are as many as before
        others.append(fingerprint())
    files.llava("a.json", 11)
    assert len({first, fingerprint(), *others}) == 9
    path.write_text(rows)
    assert fingerprint() == first
    moved = path.rename(path.with_name("moved.json"))
    assert open_mixture({"datasets": [{"path": str(moved), "name": "a"}]}, seed=0).fingerprint == first


def test_fingerprint_of_drawn_conversations():
    options = [{}, {}, {"max_turns": 2}, {"questions": "open"}]
    found = [open_mixture({"datasets": [{"kind": "easy-vqa", **o}]}, seed=0).fingerprint for o in options]
    assert found[0] == found[1]
    assert len(set(found)) == 3


def test_shapes_are_those_of_the_samples_whatever_the_kind_of_file(files):
    pytest.importorskip("pyarrow")
    files.llava("a.json", 9)
    files.llava("b.jsonl", 9)
    files.tar("c.tar", 9)
    files.parquet("d.parquet", 9)
    entries = [{"path": name, "sampling_strategy": "end:7"} for name in ("a.json", "b.jsonl", "c.tar", "d.parquet")]
    mixture = open_mixture(write(files, *entries), seed=0)
    positions = np.array([27, 0, 5, 0, *range(28)])
    shapes = mixture.shapes(positions)
    assert [shapes.characters.dtype, shapes.turns.dtype, shapes.has_image.dtype] == [np.int64, np.int64, np.bool_]
    for number, position in enumerate(positions.tolist()):
        sample = mixture.read(mixture.order.at(position))
        texts = [text for turn in sample.turns for text in (turn.question, turn.answer)]
        assert shapes.characters[number] == sum(map(len, texts))
        assert shapes.turns[number] == len(sample.turns)
        assert shapes.has_image[number] == (sample.image is not None)
