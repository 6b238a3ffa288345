"""The reader of signs: what a row states, how near that is to what is read, and real pictures read offline."""

import random
import socket
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusionvl.synth.corruptions import CORRUPTIONS
from fusionvl.synth.filters.ocr import (
    edit_distance,
    rapid_reader,
    score_ocr,
    similarity_to_lines,
    stated_texts,
)
from fusionvl.synth.procedural import make_scene
from fusionvl.synth.rows import Row, SynthTurn, row_id
from fusionvl.synth.selection import default_limits

LIMIT = default_limits()["ocr_worst"].least


def text_row(*turns: SynthTurn, description: str = "", kind: str = "SynthText", image: str = "sign.png") -> Row:
    return Row(row_id("sign", description, kind, repr(turns)), kind, "", description, image, turns, "ok")


def test_what_a_row_states():
    row = text_row(
        SynthTurn("What is written on the top sign?\nIn a word.", "HOTEL", correct="HOTEL"),
        SynthTurn("What does the sign say?", 'The sign says "TAXI 12".'),
        SynthTurn('Does the sign say "PIZZA"?', "yes", correct="yes"),
        SynthTurn('Does the sign say "CINEMA"?', "no", correct="no"),
        SynthTurn('Does the sign say "MUSIC"?', 'No, the sign says "EAST", not "MUSIC".'),
        SynthTurn('Does the sign say "OLD"?', 'No, the sign does not say "OLD".'),
        SynthTurn("What does the word on the sign mean in English?", '"BROT" is German for "bread".'),
        SynthTurn("What does the sign say?\nA. UP\nB. DOWN", "A", ("UP", "DOWN"), "A"),
        SynthTurn("What color is the sign?", "red", correct="red"),
        description='A shop sign reads “OPEN”, and below it "BREAD $3".',
    )
    assert stated_texts(row) == ["OPEN", "BREAD $3", "HOTEL", "TAXI 12", "PIZZA", "EAST"]


@given(st.text("AB1", max_size=7), st.text("AB1", max_size=7))
def test_edit_distance_is_the_shortest_way(one, other):
    def slow(left, right):
        if not left or not right:
            return len(left) + len(right)
        ways = (slow(left[1:], right) + 1, slow(left, right[1:]) + 1)
        return min(*ways, slow(left[1:], right[1:]) + (left[0] != right[0]))

    assert edit_distance(one, other) == slow(one, other)


def test_a_text_may_stand_on_several_lines():
    lines = ["KITCHEN", "Tea $5", "Soup $7", "EXIT"]
    assert similarity_to_lines("Tea $5 Soup $7", lines) == 1
    assert similarity_to_lines("exit", lines) == 1
    assert similarity_to_lines("KITCHFN", lines) == pytest.approx(6 / 7)
    assert similarity_to_lines("EXIT", []) == 0


def test_scores_reasons_and_rows_it_does_not_judge():
    says = SynthTurn("What does the sign say?", "HOTEL", correct="HOTEL")
    right, wrong = text_row(says), text_row(replace(says, answer="MUSEUM", correct="MUSEUM"))
    greek = text_row(replace(says, answer="ΑΓΟΡΑ", correct="ΑΓΟΡΑ"))
    silent, other = text_row(SynthTurn("What color is the sign?", "red")), text_row(says, kind="SynthColor")
    scores = score_ocr([right, wrong, greek, silent, other], Path(), lambda path: ["HOTEL", "12"])
    assert scores["ocr_worst"][0] == 1
    assert scores["ocr_worst"][1] < LIMIT
    assert scores["ocr_worst"][2:] == [None, None, None]
    assert scores["ocr_texts"] == [1, 1, 1, 0, 0]
    assert scores["ocr_reason"][:2] == [None, 'states "MUSEUM", read "HOTEL / 12"']
    assert "letters" in scores["ocr_reason"][2]
    unreadable = score_ocr([right, replace(right, image=None)], Path(), lambda path: None)
    assert unreadable["ocr_worst"] == [None, None]


def test_real_pictures_are_read_without_network(tmp_path, monkeypatch):
    def refuse(*_):
        raise AssertionError("the reader asked the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    read = rapid_reader()
    rows = [scene_row(tmp_path, number) for number in range(3)]
    unreadable = next(each for each in CORRUPTIONS if each.name == "unreadable text")
    wrong = next(each for each in CORRUPTIONS if each.name == "wrong text")
    for row in rows:
        unreadable.image(tmp_path / row.image, tmp_path / f"mirrored-{row.image}", random.Random(0))
    mirrored = [replace(row, image=f"mirrored-{row.image}") for row in rows]
    misquoted = [wrong.spoil(row, random.Random(0)) for row in rows]
    scores = score_ocr([*rows, *mirrored, *(row for row in misquoted if row)], tmp_path, read)["ocr_worst"]
    assert any(misquoted)
    assert all(score >= LIMIT for score in scores[:3])
    assert all(score < LIMIT for score in scores[3:])
    (tmp_path / "broken.png").write_bytes(b"no image")
    assert read(tmp_path / "broken.png") is None


def scene_row(folder: Path, number: int) -> Row:
    name = row_id("ocr", "", "SynthText", str(number))
    scene = make_scene(name, "SynthText", "train")
    scene.draw(256).save(folder / f"{number}.png")
    return Row(name, "SynthText", "", scene.description, f"{number}.png", tuple(scene.turns), "ok")


def test_without_the_reader_one_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "rapidocr", None)
    with pytest.raises(ModuleNotFoundError, match=r"Reading text in pictures needs rapidocr.*fusionvl\[ocr\]"):
        rapid_reader()


def test_corruptions_of_text_fit_text_kinds_only():
    says = text_row(SynthTurn("What does the sign say?", 'The sign says "HOTEL".'))
    for corruption in (each for each in CORRUPTIONS if "ocr" in each.noticed_by):
        assert corruption.spoil(says, random.Random(1)) is not None
        assert corruption.spoil(replace(says, kind="ConvShort"), random.Random(1)) is None
