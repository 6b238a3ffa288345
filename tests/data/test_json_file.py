"""JSON files: records with every kind of string and nesting are found where they are, faults are named by byte."""

import json
import random

import pytest

from fusionvl.data import json_file
from fusionvl.data.json_file import JsonFile

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
GOOD = '{"id": 1}'


def scanned(path, *, lines):
    """The records, after making sure that reading them at their places gives the same."""
    file = JsonFile(path, lines=lines)
    found = list(file.scan())
    for place, record in found:
        assert json.loads(file.read(*place)) == record
    return [record for _, record in found]


@pytest.mark.parametrize("ascii_only", [True, False])
@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_array(tmp_path, monkeypatch, ascii_only, indent, newline, mark):
    monkeypatch.setattr(json_file, "_MAPPED", 40)
    path = tmp_path / "a.json"
    text = json.dumps(TRICKY, ensure_ascii=ascii_only, indent=indent).replace("\n", newline)
    path.write_bytes(mark + b" \n" + text.encode() + b"\n \n")
    assert scanned(path, lines=False) == TRICKY


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
    assert scanned(path, lines=True) == TRICKY


def test_random_records_of_quotes_backslashes_and_brackets(tmp_path):
    generator = random.Random(0)
    for trial in range(40):
        records = [
            {"v": "".join(generator.choices('\\"{}[],: a', k=generator.randint(0, 30))), "l": [{"\\": "]"}] * (n % 3)}
            for n in range(generator.randint(0, 12))
        ]
        path = tmp_path / f"{trial}.json"
        path.write_text(json.dumps(records))
        assert scanned(path, lines=False) == records


@pytest.mark.parametrize(("text", "lines"), [("[]", False), (" [ \n ] ", False), ("", True), ("\n \n", True)])
def test_no_records(tmp_path, text, lines):
    path = tmp_path / "a.json"
    path.write_text(text)
    assert scanned(path, lines=lines) == []


@pytest.mark.parametrize(
    ("text", "byte", "words"),
    [
        ("", 0, "it is empty"),
        ('{"id": 1}', 0, "kind: jsonl"),
        ("5", 0, "expected one JSON array"),
        (f"[{GOOD}, {GOOD}", 21, "the array's closing"),
        (f"[{GOOD},", 11, "expected a record, found the file's end"),
        (f'[{GOOD}, {{"id": 2', 12, "does not end"),
        (f'[{GOOD}, {{"id": "2}}]', 12, "does not end"),
        (f"[{GOOD}, {'[' * 20}{']' * 20}]", 12, "16 levels of brackets"),
        (f"[{GOOD} {GOOD}]", 11, "expected a comma"),
        (f"[{GOOD}, , {GOOD}]", 12, "expected a record"),
        (f"[, {GOOD}]", 1, "expected a record"),
        (f"[{GOOD}, 5]", 12, "expected a record"),
        (f"[{GOOD},]", 11, "expected a record"),
        (f"[{GOOD}}}", 10, "the array's closing ']'"),
        (f"[{GOOD}] x", 12, "expected nothing after the array's end"),
        (f"[{GOOD}]{GOOD}", 11, "expected nothing after the array's end"),
    ],
)
def test_faulty_array_is_named_by_file_and_byte(tmp_path, text, byte, words):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"a\.json.*byte {byte}\b") as caught:
        list(JsonFile(path, lines=False).scan())
    assert words in str(caught.value)


@pytest.mark.parametrize("lines", [True, False])
def test_other_encodings_are_refused(tmp_path, lines):
    path = tmp_path / "a.json"
    path.write_bytes(json.dumps(TRICKY).encode("utf-16"))
    with pytest.raises(ValueError, match=r"byte 0: the file is UTF-16"):
        list(JsonFile(path, lines=lines).scan())


@pytest.mark.parametrize("lines", [True, False])
def test_a_missing_quote_or_line_break_does_not_fill_the_memory(tmp_path, monkeypatch, lines):
    monkeypatch.setattr(json_file, "_LONGEST_RECORD", 256)
    path = tmp_path / "a.json"
    path.write_text(f'[{GOOD}, {{"id": "' + "x" * 2000 + "}]")
    with pytest.raises(ValueError, match=r"begins at byte \d+ does not end within the file, 256 bytes"):
        list(JsonFile(path, lines=lines).scan())


def test_one_faulty_record_does_not_hide_the_others(tmp_path):
    bad = ['{"é" 1}', '{"id": "\udcff"}', '{"a": tru}', '{"deep": ' + "[" * 5000 + "]" * 5000 + "}"]
    words = ["not valid JSON at byte 20", "not UTF-8 at byte 30", "not valid JSON at byte 40", "nested too deeply"]
    text = "\n".join([GOOD, *bad, GOOD])
    path = tmp_path / "a.jsonl"
    path.write_bytes(text.encode(errors="surrogateescape"))
    file = JsonFile(path, lines=True)
    found = list(file.scan())
    assert [record for _, record in found] == [{"id": 1}, None, None, None, None, {"id": 1}]
    for (place, _), fault in zip(found[1:-1], words, strict=True):
        with pytest.raises(ValueError, match=fault.split(" at ")[0]):
            file.fetch(*place)
    path.write_bytes(("[" + ",".join([GOOD, *bad[:3], GOOD]) + "]").encode(errors="surrogateescape"))
    in_array = [record for _, record in JsonFile(path, lines=False).scan()]
    assert in_array == [{"id": 1}, None, None, None, {"id": 1}]
