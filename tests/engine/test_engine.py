"""Questions in, answers out: one answer whichever way it is asked for, image work done once, failures in words."""

import pytest
import torch
from transformers import LogitsProcessor, StoppingCriteria

from fusionvl.engine import FusionEngine
from fusionvl.engine.engine import conversation

QUESTION = "What colour is the circle?"
NEW = 8


class TestAnswers:
    @pytest.mark.parametrize("early_guidance", ["masked", "released"])
    def test_ask_answer_and_stream_agree(self, make_engine, picture, early_guidance):
        engine = make_engine(early_guidance=early_guidance)
        text = engine.ask(picture, QUESTION, max_new_tokens=NEW)
        (answer,) = engine.answer([conversation(picture, QUESTION)], max_new_tokens=NEW)
        streamed = "".join(engine.stream(conversation(picture, QUESTION), max_new_tokens=NEW))
        assert text
        assert text == answer.text == streamed.strip()

    @pytest.mark.parametrize(
        "fusion",
        [
            {"early_guidance": "masked"},
            {"early_guidance": "released"},
            {"tile_tokens": True},
            {"tile_tokens": True, "num_interaction_layers": 0, "use_guidance": False},
        ],
    )
    def test_equals_the_model_without_any_cache(self, make_engine, picture, fusion):
        engine = make_engine(**fusion)
        inputs = engine.processor.apply_chat_template(
            conversation(picture, QUESTION), tokenize=True, return_dict=True, add_generation_prompt=True
        )
        sequences = engine.model.generate(**inputs, max_new_tokens=NEW)
        expected = engine.processor.tokenizer.decode(
            sequences[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True
        )
        for _ in range(2):  # the second time from the cache
            assert engine.ask(picture, QUESTION, max_new_tokens=NEW) == expected.strip()
        assert engine.cache.hits == 1

    def test_a_batch_equals_one_by_one(self, engine, picture, other_picture):
        conversations = [
            conversation(picture, QUESTION),
            conversation(None, "Is there a blue shape in the image, and how many cups are there?"),
            conversation(other_picture, "How many cups?"),
            [
                *conversation(picture, "How many cups?"),
                {"role": "assistant", "content": "two"},
                {"role": "user", "content": QUESTION},
            ],
        ]
        together = engine.answer(conversations, max_new_tokens=NEW)
        alone = [engine.answer([messages], max_new_tokens=NEW)[0] for messages in conversations]
        assert together == alone
        assert len({answer.text for answer in together}) == 4

    def test_counts_and_reason(self, engine, picture):
        (answer,) = engine.answer([conversation(picture, QUESTION)], max_new_tokens=3)
        inputs = engine.processor.apply_chat_template(
            conversation(picture, QUESTION), tokenize=True, return_dict=True, add_generation_prompt=True
        )
        assert answer.prompt_tokens == inputs["input_ids"].shape[1]
        assert (answer.answer_tokens, answer.finish_reason) == (3, "length")

    def test_the_end_of_the_turn_is_no_text(self, engine, picture):
        end = engine.processor.tokenizer.eos_token_id

        class EndAfterTwo(LogitsProcessor):
            steps = 0

            def __call__(self, input_ids, scores):
                self.steps += 1
                if self.steps == 3:
                    scores[:, end] = 1e9
                return scores

        free = engine.answer([conversation(picture, QUESTION)], max_new_tokens=2)[0]
        (answer,) = engine.answer(
            [conversation(picture, QUESTION)], max_new_tokens=NEW, logits_processor=[EndAfterTwo()]
        )
        assert (answer.text, answer.answer_tokens, answer.finish_reason) == (free.text, 3, "stop")
        streamed = "".join(
            engine.stream(conversation(picture, QUESTION), max_new_tokens=NEW, logits_processor=[EndAfterTwo()])
        )
        assert streamed.strip() == free.text

    def test_several_answers_a_question(self, engine, picture, other_picture):
        conversations = [conversation(picture, QUESTION), conversation(other_picture, "cups?")]
        answers = engine.answer(conversations, max_new_tokens=NEW, num_beams=3, num_return_sequences=2)
        assert len(answers) == 4
        lengths = [answer.prompt_tokens for answer in answers]
        assert lengths[0] == lengths[1]
        assert lengths[2] == lengths[3] != lengths[0]

    def test_number_of_latents(self, engine, picture):
        few, many = (
            engine.answer([conversation(picture, QUESTION)], num_latents=count, max_new_tokens=1)[0].prompt_tokens
            for count in (1, 16)
        )
        assert many - few == 15

    @pytest.mark.parametrize("fusion", [{"num_interaction_layers": 0}, {"use_guidance": False}])
    def test_ablated_models(self, make_engine, picture, fusion):
        engine = make_engine(**fusion)
        first = engine.ask(picture, QUESTION, max_new_tokens=NEW)
        assert engine.ask(picture, QUESTION, max_new_tokens=NEW) == first

    def test_latents_nobody_reads_are_refused(self, make_engine, picture):
        engine = make_engine(num_interaction_layers=0)
        with pytest.raises(ValueError, match=r"4 latent tokens .* no interaction layers"):
            engine.ask(picture, QUESTION, num_latents=4)

    def test_in_bfloat16(self, engine, picture):
        engine.model.to(torch.bfloat16)
        first = engine.ask(picture, QUESTION, max_new_tokens=NEW)
        assert engine.ask(picture, QUESTION, max_new_tokens=NEW) == first


class TestSharedWork:
    def test_a_second_question_encodes_no_tile(self, engine, picture, count_calls):
        tower = count_calls(engine.model.model.vision_tower.embeddings)
        first = engine.ask(picture, QUESTION, max_new_tokens=2)
        assert sorted(call[0][0] for call in tower) == [1, 4]
        tower.clear()
        other = engine.ask(picture.copy(), "How many cups are there?", max_new_tokens=NEW)
        assert tower == [], "neither tiles nor the base view's patches"
        assert (engine.cache.hits, engine.cache.misses) == (1, 1)
        assert other != first

    def test_released_encodes_the_base_view_again(self, make_engine, picture, count_calls):
        engine = make_engine(early_guidance="released")
        tower = count_calls(engine.model.model.vision_tower.embeddings)
        for question in (QUESTION, "How many cups are there?"):
            engine.ask(picture, question, max_new_tokens=2)
        assert [call[0][0] for call in tower] == [4, 1, 1]

    def test_another_image_is_another_image(self, engine, picture, other_picture):
        first = engine.ask(picture, QUESTION, max_new_tokens=NEW)
        assert engine.ask(other_picture, QUESTION, max_new_tokens=NEW) != first
        assert engine.ask(picture, QUESTION, max_new_tokens=NEW) == first
        assert (engine.cache.hits, engine.cache.misses) == (1, 2)

    def test_the_same_image_twice_in_a_batch(self, engine, picture, count_calls):
        tower = count_calls(engine.model.model.vision_tower.embeddings)
        engine.answer([conversation(picture, QUESTION)] * 3, max_new_tokens=1)
        assert sorted(call[0][0] for call in tower) == [1, 4]

    def test_without_a_cache(self, make_engine, picture):
        cached, bare = make_engine(), make_engine(cache_bytes=0)
        for _ in range(2):
            assert bare.ask(picture, QUESTION, max_new_tokens=NEW) == cached.ask(picture, QUESTION, max_new_tokens=NEW)
        assert (bare.cache.hits, bare.cache.num_bytes) == (0, 0)


class CountSteps(LogitsProcessor):
    """Counts the tokens that are chosen."""

    steps = 0

    def __call__(self, input_ids, scores):
        self.steps += 1
        return scores


class TestStream:
    """What it shares with `events` is tested there."""

    def test_comes_in_pieces(self, engine, picture):
        pieces = list(engine.stream(conversation(picture, QUESTION), max_new_tokens=20))
        assert len(pieces) > 1
        assert all(pieces)

    def test_closing_stops_the_work(self, engine, picture):
        counter = CountSteps()
        stream = engine.stream(conversation(picture, QUESTION), max_new_tokens=150, logits_processor=[counter])
        next(stream)
        steps = counter.steps
        stream.close()
        assert not list(stream)
        assert counter.steps == steps < 20

    @pytest.mark.parametrize(
        "settings",
        [
            {"repetition_penalty": 1.7},
            {"do_sample": True, "temperature": 2.0, "top_k": 30},
            {"eos_token_id": [7, 8, 9]},
            {"use_cache": False},
            {"cache_implementation": "static"},
        ],
    )
    def test_settings_of_generate_are_those_of_answer(self, engine, picture, settings):
        torch.manual_seed(1)
        (answer,) = engine.answer([conversation(picture, QUESTION)], max_new_tokens=20, **settings)
        torch.manual_seed(1)
        streamed = "".join(engine.stream(conversation(picture, QUESTION), max_new_tokens=20, **settings))
        assert streamed == answer.text

    def test_criteria_of_stopping(self, engine, picture):
        class AfterTwo(StoppingCriteria):
            calls = 0

            def __call__(self, input_ids, scores, **kwargs):
                self.calls += 1
                return torch.tensor([self.calls == 2])

        messages = conversation(picture, QUESTION)
        streamed = "".join(engine.stream(messages, max_new_tokens=NEW, stopping_criteria=[AfterTwo()]))
        assert streamed == engine.ask(picture, QUESTION, max_new_tokens=2)

    @pytest.mark.parametrize("wrap", [str, lambda text: [text]])
    def test_stop_strings(self, engine, picture, wrap):
        messages = conversation(picture, QUESTION)
        whole = "".join(engine.stream(messages, max_new_tokens=20))
        found = "".join(engine.stream(messages, max_new_tokens=20, stop_strings=wrap(whole[4:6])))
        assert found == whole.split(whole[4:6])[0].rstrip()

    @pytest.mark.parametrize("name", ["num_beams", "assistant_model", "streamer"])
    def test_settings_that_make_no_stream(self, engine, picture, name):
        with pytest.raises(ValueError, match=name):
            engine.stream(conversation(picture, QUESTION), **{name: 2})

    def test_unusable_settings_surface(self, engine, picture):
        with pytest.raises((ValueError, TypeError), match="no_such_setting"):
            list(engine.stream(conversation(picture, QUESTION), no_such_setting=1))

    def test_text_alone(self, engine):
        streamed = "".join(engine.stream(conversation(None, QUESTION), max_new_tokens=NEW))
        assert streamed.strip() == engine.ask(None, QUESTION, max_new_tokens=NEW)


class TestRefusals:
    @pytest.mark.parametrize("way", ["answer", "stream"])
    def test_context_too_long(self, engine, picture, way):
        messages = conversation(picture, "blue " * 300)
        with pytest.raises(ValueError, match=r"The conversation takes \d+ tokens, the context holds 256"):
            engine.stream(messages) if way == "stream" else engine.answer([messages])

    def test_the_context_bounds_the_answer(self, engine, picture):
        engine.model.generation_config.eos_token_id = None
        (answer,) = engine.answer([conversation(picture, QUESTION)], max_new_tokens=10_000)
        assert answer.prompt_tokens + answer.answer_tokens == 256

    def test_no_new_tokens(self, engine, picture):
        with pytest.raises(ValueError, match="max_new_tokens must be at least 1, not 0"):
            engine.ask(picture, QUESTION, max_new_tokens=0)

    def test_model_and_processor_of_different_models(self, engine, tiny):
        with pytest.raises(ValueError, match=r"image tokens of a picture 16 in the model, 36 in the processor"):
            FusionEngine(tiny.model(image_token_grid=4), engine.processor)
        with pytest.raises(ValueError, match=r"use of latent tokens False in the model, True"):
            FusionEngine(tiny.model(num_interaction_layers=0), engine.processor)

    @pytest.mark.parametrize("name", ["streamer", "return_dict_in_generate"])
    def test_settings_the_engine_keeps_for_itself(self, engine, picture, name):
        with pytest.raises(ValueError, match=name):
            engine.ask(picture, QUESTION, **{name: True})

    @pytest.mark.parametrize("latents", [3, 25])
    def test_impossible_latents(self, engine, picture, latents):
        with pytest.raises(ValueError, match=f"{latents}"):
            engine.ask(picture, QUESTION, num_latents=latents)

    def test_no_such_image(self, engine, tmp_path):
        with pytest.raises(ValueError, match=r"nothing\.jpg"):
            engine.ask(tmp_path / "nothing.jpg", QUESTION)

    def test_no_such_folder(self, tmp_path):
        with pytest.raises(ValueError, match="nowhere"):
            FusionEngine.from_pretrained(tmp_path / "nowhere")

    def test_an_empty_folder(self, tmp_path):
        with pytest.raises(ValueError, match=str(tmp_path)):
            FusionEngine.from_pretrained(tmp_path)


class TestFromPretrained:
    def test_a_saved_engine_answers_alike(self, engine, picture, tmp_path):
        engine.model.save_pretrained(tmp_path / "model")
        engine.processor.save_pretrained(tmp_path / "model")
        again = FusionEngine.from_pretrained(tmp_path / "model", device="cpu")
        assert not again.model.training
        for image in (picture, None):
            answer = again.answer([conversation(image, QUESTION)], max_new_tokens=NEW)
            assert answer == engine.answer([conversation(image, QUESTION)], max_new_tokens=NEW)

    def test_images_of_any_kind(self, engine, picture, tmp_path):
        picture.save(tmp_path / "picture.png")
        expected = engine.ask(picture, QUESTION, max_new_tokens=NEW)
        for image in (
            tmp_path / "picture.png",
            str(tmp_path / "picture.png"),
            (tmp_path / "picture.png").read_bytes(),
        ):
            assert engine.ask(image, QUESTION, max_new_tokens=NEW) == expected
