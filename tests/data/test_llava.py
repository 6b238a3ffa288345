"""LLaVA files: records to samples and back, and an error that finds the fault for every kind of broken record."""

import json
from pathlib import Path

import pytest

from fusionvl.data import Sample, Turn
from fusionvl.data.llava import parse_record, read_llava, to_record, write_llava


def talk(*values):
    return [{"from": "gpt" if i % 2 else "human", "value": value} for i, value in enumerate(values)]


def parse(record, index=3):
    return parse_record(record, index=index, image_root=Path("/images"), source="unit")


def test_record_with_image():
    sample = parse({"id": "a1", "image": "coco/1.jpg", "conversations": talk("<image>\nWhat is it?", "A cat.")})
    assert sample == Sample(
        id="a1", turns=(Turn("What is it?", "A cat."),), image=Path("/images/coco/1.jpg"), source="unit"
    )


@pytest.mark.parametrize("value", ["<image>\nWhat?", "What?\n<image>", "<image>What?", " <image> What? ", "What?"])
def test_marker_is_removed_wherever_it_stands(value):
    sample = parse({"id": "a", "image": "1.jpg", "conversations": talk(value, "A cat.")})
    assert sample.turns[0].question == "What?"
    assert sample.image == Path("/images/1.jpg")


def test_text_only_record():
    sample = parse({"id": "a", "conversations": talk("Hello", "Hi")})
    assert sample.image is None
    assert sample.turns == (Turn("Hello", "Hi"),)


def test_texts_without_a_marker_are_not_touched():
    sample = parse({"id": "a", "conversations": talk(" One? ", "1\n", " Two?\n", " 2")})
    assert sample.turns == (Turn(" One? ", "1\n"), Turn(" Two?\n", " 2"))


@pytest.mark.parametrize(("given", "expected"), [(None, "3"), ("", "3"), (0, "0"), (12, "12"), ("x/1", "x/1")])
def test_ids(given, expected):
    assert parse({"id": given, "conversations": talk("q", "a")}).id == expected


def test_record_without_id_is_named_by_its_index():
    assert parse({"conversations": talk("q", "a")}).id == "3"


@pytest.mark.parametrize(
    ("record", "fault"),
    [
        ({"conversations": [{"from": "gpt", "value": "Hi"}]}, "entry 1 must be from 'human', got 'gpt'"),
        ({"conversations": [{"from": "system", "value": "Be nice"}, *talk("q", "a")]}, "got 'system'"),
        ({"conversations": [*talk("q"), *talk("q", "a")]}, "entry 2 must be from 'gpt', got 'human'"),
        ({"conversations": [*talk("q", "a"), {"from": "gpt", "value": "b"}]}, "entry 3 must be from 'human'"),
        ({"conversations": talk("q", "a", "q2")}, "empty answer: the conversation ends with a question .entry 3."),
        ({"conversations": talk("q", "")}, "turn 1: empty answer"),
        ({"conversations": talk("q", "a", "q2", " \n")}, "turn 2: empty answer"),
        ({"conversations": talk("", "a")}, "turn 1: empty question"),
        ({"image": "1.jpg", "conversations": talk("<image>\n", "a")}, "turn 1: empty question"),
        ({"conversations": talk("<image>\nq", "a")}, "<image> in the first question, but the record has no 'image'"),
        ({"image": "1.jpg", "conversations": talk("<image>q", "a", "<image>q2", "a")}, "<image> in entry 3"),
        ({"image": "1.jpg", "conversations": talk("<image>q", "an <image>")}, "<image> in entry 2"),
        ({"image": "1.jpg", "conversations": talk("<image><image>q", "a")}, "<image> 2 times"),
        ({"image": ["1.jpg", "2.jpg"], "conversations": talk("q", "a")}, "'image' is a list of 2"),
        ({"image": "", "conversations": talk("q", "a")}, "'image' must be a file name, got ''"),
        ({"image": 5, "conversations": talk("q", "a")}, "'image' must be a file name, got 5"),
        ({"conversations": []}, "'conversations' must be a list of at least one"),
        ({"image": "1.jpg"}, "'conversations' must be a list of at least one"),
        ({"conversations": ["q", "a"]}, "entry 1 must be an object"),
        ({"conversations": [{"from": "human"}]}, "entry 1 must be an object with 'from' and a text 'value'"),
    ],
)
def test_faulty_records_are_refused_by_index_and_id(record, fault):
    with pytest.raises(ValueError, match=f"^record 3 .id 'bad'.: .*{fault}"):
        parse({"id": "bad", **record})


def test_record_of_another_type_is_refused():
    with pytest.raises(ValueError, match="record 3: must be an object, got list"):
        parse(["q", "a"])


@pytest.fixture
def samples(tmp_path):
    return [
        Sample(
            id="1",
            turns=(Turn("What is it?", "A cat."), Turn("Où ça ?", "Là-bas 猫")),
            image=tmp_path / "images" / "1.png",
            source="pets",
        ),
        Sample(id="2", turns=(Turn("Hello", "Hi"),), image=None, source="pets"),
    ]


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_round_trip(tmp_path, samples, suffix):
    path = tmp_path / f"pets{suffix}"
    assert write_llava(path, iter(samples)) == 2
    assert list(read_llava(path)) == samples


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_round_trip_of_nothing(tmp_path, suffix):
    path = tmp_path / f"none{suffix}"
    assert write_llava(path, []) == 0
    assert list(read_llava(path)) == []


def test_files_are_plain_llava(tmp_path, samples):
    path = tmp_path / "pets.json"
    write_llava(path, samples)
    assert json.loads(path.read_text(encoding="utf-8"))[0] == {
        "id": "1",
        "image": "images/1.png",
        "conversations": talk("<image>\nWhat is it?", "A cat.", "Où ça ?", "Là-bas 猫"),
    }


def test_image_root_may_be_elsewhere(tmp_path, samples):
    path = tmp_path / "lists" / "pets.jsonl"
    path.parent.mkdir()
    write_llava(path, samples, image_root=tmp_path / "images")
    assert json.loads(path.read_text(encoding="utf-8").splitlines()[0])["image"] == "1.png"
    assert list(read_llava(path, image_root=tmp_path / "images")) == samples


def test_blank_lines_and_byte_order_mark_are_no_fault(tmp_path):
    path = tmp_path / "a.jsonl"
    line = json.dumps({"conversations": talk("q", "a")})
    path.write_text(f"\ufeff{line}\n\n{line}\n", encoding="utf-8")
    assert [sample.id for sample in read_llava(path)] == ["0", "1"]


def test_reading_stops_at_the_faulty_record_naming_the_file(tmp_path):
    path = tmp_path / "mixed.jsonl"
    records = [{"id": "ok", "conversations": talk("q", "a")}, {"id": "x9", "conversations": talk("q", "")}]
    path.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    reader = read_llava(path)
    assert next(reader).id == "ok"
    with pytest.raises(ValueError, match=r"mixed\.jsonl: record 1 .id 'x9'.: turn 1: empty answer"):
        next(reader)


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("a.jsonl", '{"conversations": []', r"a\.jsonl, line 1: not valid JSON"),
        ("a.json", "[", r"a\.json: not valid JSON"),
        ("a.json", "{}", r"a\.json: must hold a list of records, got dict"),
        ("a.csv", "", r"a\.csv: a LLaVA file ends in \.json or \.jsonl"),
    ],
)
def test_faulty_files_are_refused(tmp_path, name, content, fault):
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=fault):
        list(read_llava(path))


@pytest.mark.parametrize(
    ("image", "question", "fault"),
    [
        (b"\x89PNG", "q", "save the image to a file first"),
        (Path("/elsewhere/1.png"), "q", "is not below the image root /images"),
        (Path("/images/1.png"), "what does <image> mean?", "turn 1: the text holds the marker <image>"),
    ],
)
def test_samples_the_format_cannot_hold_are_refused(image, question, fault):
    sample = Sample(id="s", turns=(Turn(question, "a"),), image=image, source="unit")
    with pytest.raises(ValueError, match=f"sample 's'.*{fault}"):
        to_record(sample, image_root=Path("/images"))


def test_writing_another_suffix_is_refused_before_anything_is_written(tmp_path, samples):
    with pytest.raises(ValueError, match=r"ends in \.json or \.jsonl"):
        write_llava(tmp_path / "pets.txt", samples)
    assert list(tmp_path.iterdir()) == []
