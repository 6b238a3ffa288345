"""LLaVA files: records to samples and back, and an error that finds the fault for every kind of broken record."""

import json
from pathlib import Path

import pytest

from fusionvl.data import Sample, Turn
from fusionvl.data.llava import measure_record, parse_record, read_llava, to_record, write_llava


def talk(*values):
    return [{"from": "gpt" if i % 2 else "human", "value": value} for i, value in enumerate(values)]


PICTURE = Path("/images/1.jpg")


def parse(record):
    return parse_record(record, row=3, source="unit")


@pytest.mark.parametrize("image", [PICTURE, b"contents of a file"])
@pytest.mark.parametrize("value", ["<image>\nWhat?", "What?\n<image>", "<image>What?", " <image> What? ", "What?"])
def test_marker_is_removed_wherever_it_stands(value, image):
    record = {"id": "a", "image": image, "conversations": talk(value, "A cat.")}
    assert parse(record) == Sample(id="a", turns=(Turn("What?", "A cat."),), image=image, source="unit")
    assert measure_record(record) == (len("What?A cat."), 1, True)


def test_text_only_record_is_not_touched():
    record = {"id": "a", "conversations": talk(" One? ", "1\n", " Two?\n", " 2")}
    assert parse(record).turns == (Turn(" One? ", "1\n"), Turn(" Two?\n", " 2"))
    assert parse(record).image is None
    assert measure_record(record) == (len(" One? 1\n Two?\n 2"), 2, False)


@pytest.mark.parametrize(("given", "expected"), [(None, "3"), ("", "3"), (0, "0"), (12, "12"), ("x/1", "x/1")])
def test_ids(given, expected):
    assert parse({"id": given, "conversations": talk("q", "a")}).id == expected


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
        ({"image": PICTURE, "conversations": talk("<image>\n", "a")}, "turn 1: empty question"),
        ({"conversations": talk("<image>\nq", "a")}, "<image> in the first question, but the record has no 'image'"),
        ({"image": PICTURE, "conversations": talk("<image>q", "a", "<image>q2", "a")}, "<image> in entry 3"),
        ({"image": PICTURE, "conversations": talk("<image>q", "an <image>")}, "<image> in entry 2"),
        ({"image": PICTURE, "conversations": talk("<image><image>q", "a")}, "<image> 2 times"),
        ({"image": ["1.jpg", "2.jpg"], "conversations": talk("q", "a")}, "'image' is a list of 2"),
        ({"image": b"", "conversations": talk("q", "a")}, "its image is stored with 0 bytes"),
        ({"image": "", "conversations": talk("q", "a")}, "'image' must be a file name .*, got ''"),
        ({"image": 5, "conversations": talk("q", "a")}, "'image' must be a file name .*, got 5"),
        ({"conversations": []}, "'conversations' must be a list of at least one"),
        ({"image": PICTURE}, "'conversations' must be a list of at least one"),
        ({"conversations": ["q", "a"]}, "entry 1 must be an object"),
        ({"conversations": [{"from": "human"}]}, "entry 1 must be an object with 'from' and a text 'value'"),
    ],
)
def test_faulty_records_are_refused_by_id(record, fault):
    measure_record(record)  # says anything, and does not fail
    with pytest.raises(ValueError, match=f"^id 'bad': .*{fault}"):
        parse({"id": "bad", **record})


def test_record_of_another_type_is_refused():
    measure_record(["q", "a"])
    with pytest.raises(ValueError, match="must be an object, got list"):
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


@pytest.mark.parametrize("count", [0, 2])
@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_round_trip(tmp_path, samples, suffix, count):
    path = tmp_path / f"pets{suffix}"
    assert write_llava(path, iter(samples[:count])) == count
    assert list(read_llava(path)) == samples[:count]


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


def test_reading_stops_at_the_faulty_record_naming_the_file(tmp_path):
    path = tmp_path / "mixed.jsonl"
    records = [{"id": "ok", "conversations": talk("q", "a")}, {"id": "x9", "conversations": talk("q", "")}]
    path.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    reader = read_llava(path)
    assert next(reader).id == "ok"
    with pytest.raises(ValueError, match=r"mixed\.jsonl: record 1: id 'x9': turn 1: empty answer"):
        next(reader)


def test_faulty_files_are_refused(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"conversations": []')
    with pytest.raises(ValueError, match=r"a\.jsonl: record 0: not valid JSON at byte 20"):
        list(read_llava(path))
    with pytest.raises(ValueError, match=r"a\.csv: a LLaVA file ends in \.json or \.jsonl"):
        list(read_llava(tmp_path / "a.csv"))


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
