"""Verifying a mixture: every count compared with what was written, faults by name, and the same from two processes."""

import io
import json

import pytest
from PIL import Image

from fusionvl.cli import main
from fusionvl.data import verification_report
from fusionvl.data.mixture import open_mixture
from fusionvl.data.sample import OverLongError
from fusionvl.data.verification import verify_mixture
from fusionvl.data.verification_report import LENGTH_EDGES


def measure(sample):
    """What the command line does, in small: opens the image, counts tokens."""
    if sample.image is not None:
        try:
            file = io.BytesIO(sample.image) if isinstance(sample.image, bytes) else sample.image
            with Image.open(file) as image:
                image.load()
        except OSError as error:
            raise ValueError(f"cannot use {sample.image} as an image: {error}") from error
    tokens = sum(len(turn.question.split()) + len(turn.answer.split()) for turn in sample.turns)
    if tokens > 100:
        raise OverLongError(f"{tokens} tokens do not fit into max_length=100")
    return tokens


@pytest.fixture
def mixture(files):
    records = [files.record(n, turns=1 + n % 3, words=n % 10) for n in range(2000)]
    for n in (5, 900, 1999):
        records[n]["conversations"][-1]["value"] = ""
    records[70]["image"] = "gone.png"
    records[71]["image"] = "image.png"
    records[72]["image"] = "torn.png"
    records[73] = files.record(73, words=200)
    first = files.llava("a.json", 0, records=records)
    (files.folder / "torn.png").write_bytes(files.png(size=64)[:90])
    second = files.tar("b.tar", 10)
    entries = [{"json_path": str(first)}, {"path": str(second), "sampling_strategy": "end:4"}]
    return open_mixture({"datasets": entries}, seed=0)


def test_counts(mixture):
    report = verify_mixture(mixture, measure)
    a, b = report.sources
    assert (a.name, a.rows, a.rows_in_file, a.images, a.corrupt, a.over_long) == ("a", 2000, 2000, 1, 5, 1)
    assert (b.name, b.rows, b.rows_in_file, b.images, b.corrupt) == ("b", 4, 10, 2, 0)
    assert a.turns == sum(1 + n % 3 for n in range(2000) if n not in (5, 900, 1999, 70, 72, 73))
    assert [(f.row, f.kind, f.id) for f in a.faulty] == [
        (5, "corrupt", None),
        (70, "corrupt", "id-70"),
        (72, "corrupt", "id-72"),
        (73, "over-long", "id-73"),
        (900, "corrupt", None),
        (1999, "corrupt", None),
    ]
    for fault, words in zip(
        a.faulty, ["empty answer", "no image", "torn.png", "do not fit", "empty", "empty"], strict=True
    ):
        assert words in fault.reason
    assert sum(a.histogram) == a.rows - a.corrupt - a.over_long
    assert (report.corrupt, report.total().over_long) == (5, 1)
    samples = [mixture.parts[1].source.read(row, epoch=0, seed=0) for row in range(6, 10)]
    assert b.tokens == sum(measure(sample) for sample in samples)
    assert b.longest == max(measure(sample) for sample in samples)
    assert b.characters == sum(len(t.question) + len(t.answer) for sample in samples for t in sample.turns)


def test_two_processes_find_the_same(mixture):
    assert verify_mixture(mixture, measure, processes=2) == verify_mixture(mixture, measure)


def test_only_the_first_faults_are_named_but_all_are_counted(mixture, monkeypatch):
    monkeypatch.setattr(verification_report, "_NAMED_FAULTS", 2)
    report = verify_mixture(mixture, measure)
    assert [fault.row for fault in report.sources[0].faulty] == [5, 70]
    assert report.corrupt == 5
    text = report.as_text()
    assert "corrupt: a, row 70 (id 'id-70'): there is no image" in text
    assert "... and 4 more in a" in text


def test_written_report(mixture, tmp_path):
    report = verify_mixture(mixture, measure)
    report.write(tmp_path / "out")
    content = json.loads((tmp_path / "out" / "report.json").read_text())
    assert content["unit"] == "tokens"
    assert content["all"]["rows"] == 2004
    assert content["all"]["corrupt"] == 5
    assert content["sources"][0]["faulty"][1]["id"] == "id-70"
    assert len(content["length_edges"]) + 1 == len(content["all"]["histogram"])
    assert list(LENGTH_EDGES) == content["length_edges"] == sorted(set(LENGTH_EDGES))
    with Image.open(tmp_path / "out" / "lengths.png") as plot:
        assert plot.size == (960, 540)


def test_table(mixture):
    table = verify_mixture(mixture, measure).as_text().split("\n\n")[0].splitlines()
    assert " ".join(table[0].split()) == "source rows images turns characters tokens longest corrupt over-long"
    assert [line.split()[0] for line in table[1:]] == ["a", "b", "all"]
    assert table[3].split()[1] == "2,004"


def test_faulty_arguments(mixture):
    with pytest.raises(ValueError, match="processes must be at least 1"):
        verify_mixture(mixture, measure, processes=0)


@pytest.mark.parametrize(
    ("option", "where", "reason"),
    [
        ("--model", "none/at/all", "There is no folder"),
        ("--output", "mix.yaml", "cannot be written: File exists"),
        ("--output", "mix.yaml/report", "cannot be written: Not a directory"),
        ("--image-folder", "none", "there is no image folder"),
    ],
)
def test_wrong_places_end_the_command_with_a_sentence(files, capsys, option, where, reason):
    files.llava("a.json", 3)
    path = files.folder / "mix.yaml"
    path.write_text("datasets: [{json_path: a.json}]")
    assert main(["data", "verify", str(path), option, str(files.folder / where)]) == 2
    error = capsys.readouterr().err
    assert reason in error
    assert "Traceback" not in error
    assert path.read_text() == "datasets: [{json_path: a.json}]"
