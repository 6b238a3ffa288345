"""The reader of signs: what a row states, how near that is to what is read, and real pictures read offline."""

import asyncio
import random
import socket
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fusionvl.synth.corruptions import CORRUPTIONS
from fusionvl.synth.filters.filter import Scores
from fusionvl.synth.filters.ocr import (
    Reader,
    edit_distance,
    rapid_reader,
    score_ocr,
    similarity_to_lines,
    stated_texts,
)
from fusionvl.synth.rows import Row, SynthTurn, row_id
from fusionvl.synth.scene_sample import scene_sample
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


@settings(deadline=None)
@given(st.text("AB1", max_size=5), st.text("AB1", max_size=5))
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


def read_scores_of(rows: list[Row], folder: Path, read: Reader) -> list[Scores]:
    return [asyncio.run(score_ocr(row, folder, read)) for row in rows]


def test_scores_reasons_and_rows_it_does_not_judge(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "sign.png")
    says = SynthTurn("What does the sign say?", "HOTEL", correct="HOTEL")
    right, wrong = text_row(says), text_row(replace(says, answer="MUSEUM", correct="MUSEUM"))
    greek = text_row(replace(says, answer="ΑΓΟΡΑ", correct="ΑΓΟΡΑ"))
    silent, other = text_row(SynthTurn("What color is the sign?", "red")), text_row(says, kind="SynthColor")
    gone, none = replace(right, image="gone.png"), replace(right, image=None)
    rows = [right, wrong, greek, silent, other, gone, none]
    scores = read_scores_of(rows, tmp_path, lambda image: ["HOTEL", "12"])
    assert scores[0]["ocr_worst"] == 1
    assert scores[1]["ocr_worst"] < LIMIT
    assert [each["ocr_worst"] for each in scores[2:]] == [None] * 5
    assert [each["ocr_texts"] for each in scores] == [1, 1, 1, 0, 0, 1, 1]
    assert [each["ocr_reason"] for each in scores[:2]] == [None, 'states "MUSEUM", read "HOTEL / 12"']
    assert "letters" in scores[2]["ocr_reason"]


def test_real_pictures_are_read_without_network(tmp_path, monkeypatch):
    def refuse(*_):
        raise AssertionError("the reader asked the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    rows = [scene_row(tmp_path, number) for number in range(3)]
    unreadable = next(each for each in CORRUPTIONS if each.name == "unreadable text")
    wrong = next(each for each in CORRUPTIONS if each.name == "wrong text")
    for row in rows:
        unreadable.image(tmp_path / row.image, tmp_path / f"mirrored-{row.image}", random.Random(0))
    mirrored = [replace(row, image=f"mirrored-{row.image}") for row in rows]
    misquoted = [changed for row in rows if (changed := wrong.spoil(row, random.Random(0)))]
    assert misquoted
    scores = read_scores_of([*rows, *mirrored, *misquoted], tmp_path, rapid_reader())
    assert all(each["ocr_worst"] >= LIMIT for each in scores[:3])
    assert all(each["ocr_worst"] < LIMIT for each in scores[3:])


def scene_row(folder: Path, number: int) -> Row:
    scene = scene_sample("SynthText", number)
    scene.draw(256).save(folder / f"{number}.png")
    name = row_id("ocr", "", "SynthText", str(number))
    return Row(name, "SynthText", "", scene.description, f"{number}.png", scene.turns, "ok")


def test_without_the_reader_one_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "rapidocr", None)
    with pytest.raises(ModuleNotFoundError, match=r"Reading text in pictures needs rapidocr.*fusionvl\[ocr\]"):
        rapid_reader()


def test_corruptions_of_text_fit_text_kinds_only():
    says = text_row(SynthTurn("What does the sign say?", 'The sign says "HOTEL".'))
    for corruption in (each for each in CORRUPTIONS if "ocr" in each.noticed_by):
        assert corruption.spoil(says, random.Random(1)) is not None
        assert corruption.spoil(replace(says, kind="ConvShort"), random.Random(1)) is None
