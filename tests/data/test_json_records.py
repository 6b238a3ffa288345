"""Record offsets in JSON files: every kind of string and nesting, any piece size, and faults named by byte."""

import json
import random

import numpy as np
import pytest

from fusionvl.data import json_records
from fusionvl.data.json_records import find_array_records, find_lines

TRICKY = [
    {"id": 0, "value": 'a "quoted" brace } ] { [ , and a comma'},
    {"id": 1, "value": "ends with a backslash \\", "image": "a.jpg"},
    {"id": 2, "value": '\\"', "image": None},
    {"id": 3, "value": '\\\\" } , {', "nested": {"list": [[1, {"x": "]"}], []], "empty": {}}},
    {"id": 4, "value": "ünïcode 猫 \U0001f600   \n\r\t\b", "image": "b.jpg"},
    {"id": 5, "value": 'says "image": "c.jpg" in its text'},
    {},
    {"image": "last.jpg"},
]
HAS_IMAGE = [False, True, False, False, True, False, False, True]


def table(path, find):
    return np.concatenate(list(find(path)))


def decoded(path, rows):
    content = path.read_bytes()
    return [json.loads(content[offset : offset + length]) for offset, length, _ in rows.tolist()]


@pytest.fixture(params=[1, 2, 3, 7, 64, 4 << 20])
def piece_bytes(request, monkeypatch):
    """Every border of a piece falls somewhere awkward at one of these sizes."""
    monkeypatch.setattr(json_records, "_PIECE_BYTES", request.param)


@pytest.mark.usefixtures("piece_bytes")
@pytest.mark.parametrize("ascii_only", [True, False])
@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_array(tmp_path, ascii_only, indent, newline, mark):
    path = tmp_path / "a.json"
    text = json.dumps(TRICKY, ensure_ascii=ascii_only, indent=indent).replace("\n", newline)
    path.write_bytes(mark + b" \n" + text.encode() + b"\n \n")
    rows = table(path, find_array_records)
    assert decoded(path, rows) == TRICKY
    assert rows["has_image"].tolist() == HAS_IMAGE


@pytest.mark.usefixtures("piece_bytes")
@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
@pytest.mark.parametrize("end", [b"", b"\n", b"\n  \n\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_lines(tmp_path, newline, end, mark):
    path = tmp_path / "a.jsonl"
    lines = [json.dumps(one, ensure_ascii=False).encode() for one in TRICKY]
    lines.insert(3, b"  ")
    lines.insert(1, b"")
    lines[-1] = b"  " + lines[-1]
    path.write_bytes(mark + newline.join(lines) + end)
    rows = table(path, find_lines)
    assert decoded(path, rows) == TRICKY
    assert rows["has_image"].tolist() == HAS_IMAGE


def test_random_records_of_quotes_backslashes_and_brackets(tmp_path, monkeypatch):
    generator = random.Random(0)
    for trial in range(40):
        monkeypatch.setattr(json_records, "_PIECE_BYTES", generator.randint(1, 40))
        records = [
            {"v": "".join(generator.choices('\\"{}[],: a', k=generator.randint(0, 30))), "l": [{"\\": "]"}] * (n % 3)}
            for n in range(generator.randint(0, 12))
        ]
        path = tmp_path / f"{trial}.json"
        path.write_text(json.dumps(records))
        assert decoded(path, table(path, find_array_records)) == records


def test_empty_array_and_empty_lines(tmp_path):
    path = tmp_path / "a.json"
    for text in ("[]", " [ \n ] "):
        path.write_text(text)
        assert len(table(path, find_array_records)) == 0
    path.write_text("")
    assert [len(piece) for piece in find_lines(path)] == []


GOOD = '{"id": 1}'


@pytest.mark.usefixtures("piece_bytes")
@pytest.mark.parametrize(
    ("text", "byte", "words"),
    [
        ("", 0, "it is empty"),
        ('{"id": 1}', 0, "kind: jsonl"),
        ("5", 0, "must hold one JSON array"),
        (f"[{GOOD}, {GOOD}", 21, "without the array's closing"),
        (f"[{GOOD},", 11, "without the array's closing"),
        (f'[{GOOD}, {{"id": 2', 12, "in the middle of the record"),
        (f'[{GOOD}, {{"id": "2}}]', 12, "in the middle of the record"),
        (f"[{GOOD} {GOOD}]", 11, "expected a comma"),
        (f"[{GOOD}, , {GOOD}]", 14, "expected a comma"),
        (f"[, {GOOD}]", 3, "expected nothing"),
        (f"[{GOOD}, 5]", 13, "expected nothing"),
        (f"[{GOOD},]", 11, "expected nothing"),
        (f"[{GOOD}}}", 10, "should end with ']'"),
        (f"[{GOOD}] x", 12, "follows the end"),
        (f"[{GOOD}]{GOOD}", 11, "follows the end"),
    ],
)
def test_faulty_array_is_named_by_file_and_byte(tmp_path, text, byte, words):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"a\.json.*byte {byte}\b") as caught:
        table(path, find_array_records)
    assert words in str(caught.value)


@pytest.mark.parametrize("find", [find_array_records, find_lines])
def test_other_encodings_are_refused(tmp_path, find):
    path = tmp_path / "a.json"
    path.write_bytes(json.dumps(TRICKY).encode("utf-16"))
    with pytest.raises(ValueError, match=r"byte 0: the file is UTF-16"):
        list(find(path))


@pytest.mark.parametrize(("find", "missing"), [(find_array_records, "quote or bracket"), (find_lines, "line break")])
def test_a_missing_quote_does_not_fill_the_memory(tmp_path, monkeypatch, find, missing):
    monkeypatch.setattr(json_records, "_PIECE_BYTES", 64)
    monkeypatch.setattr(json_records, "_LONGEST_RECORD", 256)
    path = tmp_path / "a.json"
    path.write_text(f'[{GOOD}, {{"id": "' + "x" * 2000 + "}]")
    with pytest.raises(ValueError, match=rf"begins at byte \d+ is longer than 256 bytes: a {missing}"):
        list(find(path))
