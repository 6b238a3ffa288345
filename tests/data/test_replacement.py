"""Samples that cannot be used: replaced by the position alone, named in the quarantine file, and too many stop."""

import json
from collections import Counter

import pytest

from fusionvl.data.mixture import open_mixture
from fusionvl.data.replacement import FaultPolicy, SampleReader
from fusionvl.data.sample import OverLongError
from fusionvl.run_folder import CannotWriteError

BAD = {3, 40, 77}


@pytest.fixture
def mixture(files):
    records = [files.record(n) for n in range(100)]
    for n in BAD:
        records[n]["conversations"] = records[n]["conversations"][:1]
    first = files.llava("a.json", 0, records=records)
    second = files.llava("b.json", 50)
    entries = [{"json_path": str(path)} for path in (first, second)]
    return open_mixture({"datasets": entries}, seed=2)


def read_all(reader, positions):
    return [reader.read_or_replace(position).id for position in positions]


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def keep(sample):
    return sample


def test_corrupt_rows_are_replaced_and_named(mixture, tmp_path):
    quarantine = tmp_path / "q.jsonl"
    reader = SampleReader(mixture, keep, quarantine=quarantine)
    positions = range(len(mixture))
    samples = [reader.read_or_replace(position) for position in positions]
    for position, sample in zip(positions, samples, strict=True):
        place = mixture.order.at(position)
        if (place.source, place.row) not in {(0, row) for row in BAD}:
            assert sample == mixture.read(place)
        assert sample.source == mixture.parts[place.source].source.name
    faults = lines(quarantine)
    assert {fault["row"] for fault in faults} == BAD
    for fault in faults:
        assert fault["source"] == "a"
        assert fault["kind"] == "corrupt"
        assert "empty answer" in fault["reason"]
        assert f"id-{fault['row']}" in fault["reason"]
        assert fault["replaced_by"] not in BAD
        assert mixture.order.at(fault["position"]).row == fault["row"] or fault["row"] in BAD
        assert samples[fault["position"]].id == f"id-{fault['replaced_by']}"
    assert reader.faults == {("a", "corrupt"): len(faults)}
    assert reader.reads == len(mixture) + len(faults)


def test_replacements_depend_on_the_position_alone(mixture):
    forward = read_all(SampleReader(mixture, keep), range(300))
    backward = read_all(SampleReader(mixture, keep), reversed(range(300)))
    assert forward == backward[::-1]
    assert read_all(SampleReader(mixture, keep), range(120, 180)) == forward[120:180]


def test_faults_of_decoding_count_and_carry_the_id(mixture, tmp_path):
    def decode(sample):
        if sample.source == "b" and sample.id == "id-7":
            raise ValueError("cannot use x.jpg as an image: truncated")
        return sample.id

    quarantine = tmp_path / "q.jsonl"
    reader = SampleReader(mixture, decode, quarantine=quarantine)
    read = [reader.read_or_replace(position) for position in range(len(mixture))]
    (fault,) = [fault for fault in lines(quarantine) if fault["source"] == "b"]
    assert (fault["id"], fault["row"], fault["epoch"]) == ("id-7", 7, 0)
    assert fault["reason"] == "cannot use x.jpg as an image: truncated"
    assert read[fault["position"]] == f"id-{fault['replaced_by']}"


def test_other_errors_are_not_taken_for_corrupt_samples(mixture):
    def decode(sample):
        raise KeyError("a mistake of ours")

    with pytest.raises(KeyError):
        SampleReader(mixture, decode).read_or_replace(0)


def over_long(sample):
    if int(sample.id.removeprefix("id-")) % 2:
        raise OverLongError("300 tokens do not fit")
    return sample


def test_over_long_samples_are_dropped_and_counted_apart(mixture, tmp_path):
    quarantine = tmp_path / "q.jsonl"
    reader = SampleReader(mixture, over_long, policy=FaultPolicy(max_corrupt_ratio=0.5), quarantine=quarantine)
    assert all(int(found.removeprefix("id-")) % 2 == 0 for found in read_all(reader, range(60)))
    assert reader.faults["a", "over-long"] > 5
    assert reader.faults["b", "over-long"] > 5
    assert Counter((fault["source"], fault["kind"]) for fault in lines(quarantine)) == reader.faults
    assert any(fault["reason"] == "300 tokens do not fit" and fault["id"] for fault in lines(quarantine))


def test_over_long_as_an_error(mixture):
    reader = SampleReader(mixture, over_long, policy=FaultPolicy(on_over_long="error"))
    with pytest.raises(ValueError, match=r"over-long sample: [ab], row \d+ \(id 'id-\d+'\): 300 tokens do not fit"):
        read_all(reader, range(60))


def test_corrupt_as_an_error(mixture, tmp_path):
    quarantine = tmp_path / "q.jsonl"
    reader = SampleReader(mixture, keep, policy=FaultPolicy(on_corrupt="error"), quarantine=quarantine)
    with pytest.raises(ValueError, match=r"corrupt sample: a, row \d+: .*a\.json: record \d+: id 'id-\d+': empty"):
        read_all(reader, range(len(mixture)))
    assert len(lines(quarantine)) == 1


@pytest.mark.parametrize(("ratio", "allowed"), [(0.0, 0), (0.001, 1), (0.002, 2), (0.01, 3)])
def test_too_many_corrupt_samples_stop(mixture, ratio, allowed, tmp_path):
    quarantine = tmp_path / "q.jsonl"
    reader = SampleReader(mixture, keep, policy=FaultPolicy(max_corrupt_ratio=ratio), quarantine=quarantine)
    faulty = [p for p in range(len(mixture)) if (at := mixture.order.at(p)).source == 0 and at.row in BAD]
    read_all(reader, faulty[:allowed])
    if allowed < len(BAD):
        with pytest.raises(ValueError, match=rf"more than max_corrupt_ratio={ratio}.*the last: a, row"):
            reader.read_or_replace(faulty[allowed])
    assert len(lines(quarantine)) >= min(allowed + 1, len(BAD))


def test_nothing_left_to_replace_with(files, tmp_path):
    files.llava("a.json", 1)
    mixture = open_mixture({"datasets": [{"json_path": str(tmp_path / "a.json")}]}, seed=0)

    def decode(sample):
        raise ValueError("broken image")

    quarantine = tmp_path / "q.jsonl"
    with pytest.raises(ValueError, match=r"a: neither row 0 nor any of 0 replacements can be used.*broken image"):
        SampleReader(mixture, decode, quarantine=quarantine).read_or_replace(0)
    assert lines(quarantine)[0]["replaced_by"] is None


def test_a_quarantine_file_that_cannot_be_written_is_named(mixture, tmp_path):
    reader = SampleReader(mixture, over_long, quarantine=tmp_path)
    with pytest.raises(CannotWriteError, match=f"{tmp_path} cannot be written"):
        read_all(reader, range(60))


@pytest.mark.parametrize("wrong", [{"on_corrupt": "skip"}, {"on_over_long": "cut"}, {"max_corrupt_ratio": 2}])
def test_faulty_policy(wrong):
    with pytest.raises(ValueError, match="must be"):
        FaultPolicy(**wrong)
