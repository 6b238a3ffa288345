import logging

import pytest

from fusionvl.eval.generation_settings import cut, engine_settings, stop_texts


@pytest.mark.parametrize(
    ("given", "settings"),
    [
        ({}, {"do_sample": False}),
        ({"temperature": 0, "top_p": 1.0, "num_beams": 1, "do_sample": False}, {"do_sample": False, "num_beams": 1}),
        ({"temperature": 0.2, "do_sample": False}, {"do_sample": False}),  # MM-Vet
        ({"temperature": 0.7}, {"do_sample": True, "temperature": 0.7}),
        ({"do_sample": True, "top_p": 0.9, "top_k": None}, {"do_sample": True, "top_p": 0.9}),
        ({"image_aspect_ratio": "original"}, {"do_sample": False}),
    ],
)
def test_greedy_unless_the_task_asks_for_sampling(given, settings, caplog):
    assert engine_settings(given) == {"max_new_tokens": 1024, **settings}
    assert caplog.messages == []


def test_bound_on_new_tokens():
    assert engine_settings({})["max_new_tokens"] == 1024
    assert engine_settings({"max_new_tokens": 16.0})["max_new_tokens"] == 16
    for wrong in (0, -1, 2.5):
        with pytest.raises(ValueError, match="max_new_tokens"):
            engine_settings({"max_new_tokens": wrong})


def test_an_answer_ends_at_the_first_stop_text():
    stops = stop_texts({"until": ["ASSISTANT:", "\n"]})
    assert cut("a circle \nASSISTANT: no", stops) == "a circle"
    assert cut("a circle", stops) == "a circle"
    assert cut("yes. no", stop_texts({"until": "."})) == "yes"


def test_the_stop_text_that_lmms_eval_fills_in_does_not_cut_paragraphs():
    assert stop_texts({"until": ["\n\n"]}) == []


def test_a_setting_without_a_meaning_here_is_warned_of(caplog):
    with caplog.at_level(logging.WARNING):
        engine_settings({"strange": 1})
    assert "strange" in caplog.text
