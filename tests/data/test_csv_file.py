"""CSV files of somebody's own questions: every row found where it is, every fault told with file and line."""

import csv
import pickle

import pytest

from fusionvl.data.csv_file import CsvFile
from fusionvl.data.file_source import FileSource
from fusionvl.data.mixture import open_mixture
from fusionvl.data.sample import Turn

TRICKY = [
    ("a.png", "what is it?", "a cup"),
    ("b.png", 'is it "red", or not?', "no, it is\nblue"),
    ("sub/ä 1.png", "wie heißt das?\r\nund warum?", "Straße 猫"),
    ("a.png", " which one? ", "the left one"),
]


def opened(path, **options):
    return FileSource("own", [CsvFile(path, **options)])


def write(path, rows, header=("image", "question", "answer"), *, newline="\n", mark=b""):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator=newline).writerows([header, *rows])
    path.write_bytes(mark + path.read_bytes())
    return path


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_every_row_is_a_sample_as_it_was_written(tmp_path, newline, mark):
    source = opened(write(tmp_path / "q.csv", TRICKY, newline=newline, mark=mark))
    assert len(source) == 4
    for row in (2, 0, 3, 1):
        sample = source.read(row, epoch=0, seed=0)
        image, question, answer = TRICKY[row]
        assert sample.turns == (Turn(question.strip(), answer),), "blanks around a cell do not count"
        assert sample.image == tmp_path / image
    ids = [source.read(row, epoch=0, seed=0).id for row in range(4)]
    assert ids == ["q.csv:2", "q.csv:3", "q.csv:5", "q.csv:7"], "file and line"


def test_columns_in_any_order_among_others_and_blank_lines(tmp_path):
    path = tmp_path / "q.csv"
    path.write_text('answer, note , image,question\nyes,,a.png,"one, or two?"\n\n\nno,x,b.png, "three?"')
    source = opened(path, image_folder=tmp_path / "pictures")
    samples = [source.read(row, epoch=0, seed=0) for row in range(len(source))]
    assert [sample.turns[0] for sample in samples] == [Turn("one, or two?", "yes"), Turn("three?", "no")]
    assert [sample.image for sample in samples] == [tmp_path / "pictures" / name for name in ("a.png", "b.png")]
    assert [sample.id for sample in samples] == ["q.csv:2", "q.csv:5"]


def test_a_pickled_source_reads_the_same(tmp_path):
    source = opened(write(tmp_path / "q.csv", TRICKY))
    source.read(1, epoch=0, seed=0)
    copy = pickle.loads(pickle.dumps(source))
    assert [copy.read(row, epoch=0, seed=0) for row in range(4)] == [
        source.read(row, epoch=0, seed=0) for row in range(4)
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "line 1: the columns must be image, question, answer .*found none"),
        ("image;question;answer\na.png;b;c\n", "line 1: .*with commas between them.*found image;question;answer"),
        ("picture,question,answer\na.png,b,c\n", "line 1: .*found picture, question, answer"),
        ("image,question,answer,answer\na.png,b,c,d\n", "line 1: .*found image, question, answer, answer"),
        ('image,question,answer\na.png,b,c\na.png,"b,c\na.png,b,c\n', "line 3: rows cannot be told apart.*quote"),
    ],
)
def test_a_file_that_is_none_is_refused_with_its_line(tmp_path, text, words):
    path = tmp_path / "q.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"q\.csv: {words}"):
        opened(path)


def test_another_encoding_is_refused(tmp_path):
    path = tmp_path / "q.csv"
    path.write_bytes("image,question,answer\na.png,b,c\n".encode("utf-16"))
    with pytest.raises(ValueError, match=r"q\.csv: line 1: the columns must be .*UTF-8"):
        opened(path)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"a.png,what?,", "no answer; fill it in, or take the line out"),
        (b"a.png, ,yes", "no question; fill it in"),
        (b",what?,yes", "no image; fill it in"),
        (b"a.png,one, or two?,yes", "4 cells where the header has 3; .*double quotes"),
        (b"a.png,what?", "2 cells where the header has 3"),
        (b"a.png,wei\xdf?,ja", "not UTF-8; save the file as CSV in UTF-8"),
    ],
)
def test_a_faulty_row_is_named_by_its_line_and_hides_no_other(tmp_path, line, words):
    path = tmp_path / "q.csv"
    path.write_bytes(b"image,question,answer\na.png,b,c\n" + line + b"\na.png,d,e\n")
    source = opened(path)
    assert len(source) == 3
    assert source.read(2, epoch=0, seed=0).turns == (Turn("d", "e"),)
    with pytest.raises(ValueError, match=rf"q\.csv: record 1: line 3: {words}"):
        source.read(1, epoch=0, seed=0)


class TestAsAMixture:
    """A data file, or the folder it lies in, by itself and as an entry."""

    def test_a_file_a_folder_and_an_entry_are_the_same(self, files, monkeypatch):
        write(files.folder / "q.csv", [("image.png", f"what is {n}?", str(n)) for n in range(5)])
        (files.folder / "image.png").write_bytes(files.png())
        monkeypatch.chdir(files.folder.parent)
        name = files.folder.name
        opened = [
            open_mixture(files.folder / "q.csv", seed=0),
            open_mixture(files.folder, seed=0),
            open_mixture(type(files.folder)(name), seed=0),
            open_mixture({"datasets": [{"path": name}]}, seed=0),
        ]
        assert len({mixture.fingerprint for mixture in opened}) == 1
        assert [mixture.read(mixture.order.at(0)).source for mixture in opened] == ["q"] * 4

    def test_an_empty_folder(self, tmp_path):
        (tmp_path / "a.png").touch()
        with pytest.raises(ValueError, match=r"entry 1: there is no data file .* and no folder with one \(\.csv, "):
            open_mixture(tmp_path, seed=0)

    def test_a_folder_with_files_of_two_kinds(self, files):
        files.llava("a.json", 2)
        write(files.folder / "q.csv", TRICKY)
        with pytest.raises(ValueError, match=r"several kinds \(a\.json, q\.csv\); name the one that is meant"):
            open_mixture(files.folder, seed=0)

    def test_pictures_that_are_all_missing(self, tmp_path):
        write(tmp_path / "q.csv", TRICKY)
        with pytest.raises(ValueError, match=r"the first: q, row 0 \(id 'q\.csv:2'\): there is no image .*a\.png"):
            open_mixture(tmp_path, seed=0)
