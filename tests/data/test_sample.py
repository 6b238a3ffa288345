"""Samples: what is accepted, what is refused and how it is said, and the messages made from them."""

import dataclasses
import pickle
from pathlib import Path

import pytest

from fusionvl.data import Sample, Turn, to_messages

TURN = Turn(question="How many cups?", answer="Two.")


def make(**changes):
    return Sample(**{"id": "7", "turns": (TURN,), "image": Path("cups.png"), "source": "kitchen", **changes})


def test_turn_keeps_its_text_as_given():
    turn = Turn(question=" How many? ", answer="Two.\n")
    assert (turn.question, turn.answer) == (" How many? ", "Two.\n")


@pytest.mark.parametrize("blank", ["", " ", "\n\t"])
@pytest.mark.parametrize("name", ["question", "answer"])
def test_turn_refuses_blank_text(name, blank):
    with pytest.raises(ValueError, match=f"empty {name}"):
        Turn(**{"question": "q", "answer": "a", name: blank})


def test_turn_refuses_other_types():
    with pytest.raises(ValueError, match="answer must be text, got int"):
        Turn(question="How many?", answer=2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"turns": ()}, "sample '7': no turns"),
        ({"turns": [TURN]}, "sample '7': turns must be a tuple"),
        ({"turns": (("q", "a"),)}, "sample '7': turns must be a tuple"),
        ({"image": "cups.png"}, "sample '7': image must be a pathlib.Path, bytes or None, got str"),
        ({"image": b""}, "sample '7': empty image reference"),
        ({"image": Path("")}, "sample '7': empty image reference"),
        ({"id": ""}, "id must be non-empty text, got '' .source 'kitchen'."),
        ({"id": 7}, "id must be non-empty text, got 7"),
        ({"source": ""}, "sample '7': source must be non-empty"),
    ],
)
def test_sample_refuses_faulty_parts(changes, message):
    with pytest.raises(ValueError, match=message):
        make(**changes)


@pytest.mark.parametrize("image", [Path("cups.png"), b"\x89PNG", None])
def test_sample_takes_path_bytes_or_no_image(image):
    assert make(image=image).image == image


def test_samples_are_values():
    sample = make()
    assert sample == make()
    assert hash(sample) == hash(make())
    assert pickle.loads(pickle.dumps(sample)) == sample  # what data loader workers do
    with pytest.raises(dataclasses.FrozenInstanceError):
        sample.id = "8"


def test_repr_does_not_print_image_bytes():
    assert "PNG" not in repr(make(image=b"\x89PNG" * 1000))


def test_messages_put_the_image_before_the_first_question_only():
    sample = make(turns=(TURN, Turn(question="And plates?", answer="None.")))
    assert to_messages(sample) == [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "How many cups?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "Two."}]},
        {"role": "user", "content": [{"type": "text", "text": "And plates?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "None."}]},
    ]


def test_messages_of_text_only_have_no_image():
    assert to_messages(make(image=None))[0] == {
        "role": "user",
        "content": [{"type": "text", "text": "How many cups?"}],
    }
