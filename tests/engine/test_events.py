"""Events of answers: the text of `answer`, whoever runs beside them; work shared and stopped; what tokens tell."""

import gc
import random
import threading

import pytest
import torch

from fusionvl.engine import FusionEngine
from fusionvl.engine.engine import Answer, ContextExceeded, conversation
from fusionvl.engine.events import Finish, Piece, SamplingSettings

QUESTIONS = ["What colour is the circle?", "How many cups are there?", "Is there a blue shape?", "cups", "Käse 🙂?"]
SAMPLING = {"temperature": 1.3, "top_p": 0.9, "max_new_tokens": 15}
SLIDING = {
    "mistral": {"sliding_window": 7},
    "phi3": {"sliding_window": 7},
    "qwen2": {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 2},
    "qwen3": {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 0},
}


@pytest.fixture
def endless(make_engine):
    """An engine whose answers end at their last token only."""
    return without_end(make_engine())


def without_end(engine):
    engine.model.generation_config.eos_token_id = None
    return engine


def ask(engine, messages, **settings):
    """All answers to a conversation, put together from their events."""
    events = list(engine.events(messages, SamplingSettings(**settings)))
    ends = sorted((event for event in events if isinstance(event, Finish)), key=lambda end: end.index)
    assert [end.index for end in ends] == list(range(settings.get("n", 1)))
    for end in ends:
        assert [event for event in events if event.index == end.index][-1] is end, "nothing is told after the end"
    return [Answer(text_of(events, end.index), end.reason, end.prompt_tokens, end.answer_tokens) for end in ends]


def text_of(events, index=0):
    return "".join(event.text for event in events if isinstance(event, Piece) and event.index == index)


def conversations(seed, pictures, count):
    """Conversations with and without pictures, of one or two turns, with settings."""
    drawn = random.Random(seed)
    for _ in range(count):
        messages = conversation(drawn.choice([None, *pictures]), drawn.choice(QUESTIONS))
        if drawn.random() < 0.3:
            messages += [
                {"role": "assistant", "content": "two"},
                {"role": "user", "content": drawn.choice(QUESTIONS)},
            ]
        yield messages, {"num_latents": drawn.choice([None, 1, 9]), "max_new_tokens": drawn.choice([1, 3, 8, 20])}


class TestSameAsAnswer:
    def test_greedy(self, make_engine, family, picture, other_picture):
        engine = without_end(make_engine(family=family))
        texts = set()
        for messages, settings in conversations(0, [picture, other_picture], 8):
            expected = engine.answer([messages], do_sample=False, **settings)
            assert ask(engine, messages, **settings) == expected
            texts.add(expected[0].text)
        assert len(texts) > 5

    @pytest.mark.parametrize(
        "fusion", [{"early_guidance": "released"}, {"num_interaction_layers": 0}, {"tile_tokens": True}]
    )
    def test_other_models(self, make_engine, picture, fusion):
        engine = without_end(make_engine(**fusion))
        for messages in (conversation(picture, QUESTIONS[0]), conversation(None, QUESTIONS[1])):
            assert ask(engine, messages, max_new_tokens=9, n=2) == 2 * engine.answer([messages], max_new_tokens=9)

    @pytest.mark.parametrize("family", SLIDING)
    def test_decoders_that_look_through_a_window(self, make_engine, picture, family):
        engine = without_end(make_engine(family=family, decoder=SLIDING[family]))
        messages = conversation(picture, QUESTIONS[0])
        (expected,) = engine.answer([messages], max_new_tokens=20)
        assert ask(engine, messages, max_new_tokens=20, n=3) == 3 * [expected]
        assert expected != without_end(make_engine(family=family)).answer([messages], max_new_tokens=20)[0]

    def test_the_end_of_the_turn(self, endless, picture):
        """Tokens that come are made the end; then every answer must stop where `answer` stops."""
        made = [conversation(picture, question) for question in QUESTIONS]
        tokens = endless.model.generate(**endless.encode(made[:2], None), max_new_tokens=12)[:, -12:]
        endless.model.generation_config.eos_token_id = [int(tokens[0, 3]), int(tokens[1, 5])]
        expected = [endless.answer([messages], max_new_tokens=12)[0] for messages in made]
        assert {"stop"} < {answer.finish_reason for answer in expected}
        assert [ask(endless, messages, max_new_tokens=12)[0] for messages in made] == expected

    def test_the_context_bounds_the_answer(self, endless, picture):
        (answer,) = ask(endless, conversation(picture, "cups"), max_new_tokens=10_000)
        assert answer.prompt_tokens + answer.answer_tokens == 256
        assert answer.finish_reason == "length"

    def test_penalties_of_the_checkpoint_count_and_its_sampling_does_not(self, endless, picture):
        messages = conversation(picture, QUESTIONS[0])
        (free,) = endless.answer([messages], max_new_tokens=30)
        endless.model.generation_config.update(repetition_penalty=3.0)
        (expected,) = endless.answer([messages], max_new_tokens=30)
        assert expected != free
        endless.model.generation_config.update(do_sample=True, temperature=5.0, top_k=40)
        assert ask(endless, messages, max_new_tokens=30) == [expected]
        assert endless.answer([messages], max_new_tokens=30) == [expected]
        assert "".join(endless.stream(messages, max_new_tokens=30)) == expected.text

    def test_in_bfloat16(self, endless, picture):
        endless.model.to(torch.bfloat16)
        answers = ask(endless, conversation(picture, "cups"), n=2, seed=0, top_logprobs=2, **SAMPLING)
        assert [answer.answer_tokens for answer in answers] == [15, 15]


class TestSampling:
    def test_an_answer_follows_its_seed_and_not_its_neighbours(self, endless, picture):
        messages = conversation(picture, QUESTIONS[0])
        together = ask(endless, messages, seed=3, n=4, **SAMPLING)
        assert together == [ask(endless, messages, seed=seed, **SAMPLING)[0] for seed in (3, 4, 5, 6)]
        assert together[:2] == ask(endless, messages, seed=3, n=2, **SAMPLING)
        assert len({answer.text for answer in together}) == 4

    def test_an_answer_does_not_depend_on_those_that_end_before_it(self, endless, picture):
        messages = conversation(picture, QUESTIONS[0])
        free = ask(endless, messages, seed=3, n=4, **SAMPLING)
        stop = free[1].text[3:5]
        found = ask(endless, messages, seed=3, n=4, stop=(stop,), **SAMPLING)
        assert found[1].answer_tokens < 15
        assert {answer.finish_reason for answer in found} == {"stop", "length"}
        for answer, whole in zip(found, free, strict=True):
            assert answer.text == whole.text.split(stop)[0].rstrip()

    def test_without_a_seed_every_answer_is_another(self, endless):
        messages = conversation(None, QUESTIONS[0])
        found = [answer.text for _ in range(2) for answer in ask(endless, messages, n=2, **SAMPLING)]
        assert len(set(found)) == 4

    @pytest.mark.parametrize("seed", [-(2**63), -1, 2**63 - 1])
    def test_any_seed(self, endless, seed):
        assert len(ask(endless, conversation(None, "cups"), seed=seed, n=2, temperature=1.0, max_new_tokens=2)) == 2

    def test_global_random_numbers_are_left_alone(self, endless):
        before = torch.random.get_rng_state()
        for seed in (None, 1):
            ask(endless, conversation(None, "cups"), seed=seed, n=2, **SAMPLING)
        assert torch.equal(torch.random.get_rng_state(), before)


class TestSharedWork:
    def test_several_answers_need_one_prefill(self, endless, picture, count_calls):
        tower = count_calls(endless.model.model.vision_tower.embeddings)
        steps = rows_and_tokens(endless)
        (answer, *_) = ask(endless, conversation(picture, "cups"), n=3, temperature=1.0, seed=1, max_new_tokens=4)
        assert sorted(call[0][0] for call in tower) == [1, 4], "tiles and base view"
        assert steps == [(1, answer.prompt_tokens), (3, 1), (3, 1), (3, 1)]

    def test_an_answer_that_has_ended_leaves_the_batch(self, endless, picture):
        messages = conversation(picture, QUESTIONS[0])
        settings = {"seed": 3, "n": 4, **SAMPLING}
        stop = ask(endless, messages, **settings)[1].text[3:5]
        steps = rows_and_tokens(endless)
        answers = ask(endless, messages, stop=(stop,), **settings)
        lengths = [answer.answer_tokens for answer in answers]
        assert [rows for rows, _ in steps[1:]] == [
            sum(length > step for length in lengths) for step in range(1, max(lengths))
        ]
        assert len(set(lengths)) > 1


class TestTold:
    def test_logprobs_are_the_models(self, endless, picture):
        messages = conversation(picture, QUESTIONS[0])
        events = list(endless.events(messages, SamplingSettings(max_new_tokens=10, top_logprobs=3)))
        logprobs = [entry for event in events[:-1] for entry in event.logprobs]
        inputs = endless.encode([messages], None)
        with torch.inference_mode():
            sequence = endless.model.generate(**inputs, max_new_tokens=10, do_sample=False)
            types = torch.nn.functional.pad(inputs["mm_token_type_ids"], (0, 10))
            whole = dict(inputs) | {
                "input_ids": sequence, "attention_mask": torch.ones_like(sequence), "mm_token_type_ids": types
            }  # fmt: skip
            expected = endless.model(**whole).logits[0, -11:-1].log_softmax(-1)
        assert [entry.logprob for entry in logprobs] == pytest.approx(
            expected.gather(1, sequence[0, -10:, None])[:, 0].tolist(), abs=1e-4
        )
        for entry, row in zip(logprobs, expected, strict=True):
            assert [value for _, _, value in entry.alternatives] == pytest.approx(
                row.topk(3).values.tolist(), abs=1e-4
            )
            assert entry.alternatives[0] == (entry.token, entry.token_bytes, entry.logprob)
        told = b"".join(entry.token_bytes for entry in logprobs).decode(errors="replace")
        assert told.strip() == text_of(events)

    def test_logprobs_are_those_before_temperature_and_top_p(self, endless):
        messages = conversation(None, QUESTIONS[0])
        greedy, sampled = (
            next(iter(endless.events(messages, SamplingSettings(top_logprobs=5, seed=0, **settings))))
            for settings in ({}, {"temperature": 3.0, "top_p": 0.5})
        )
        assert sampled.logprobs[0].alternatives == greedy.logprobs[0].alternatives

    def test_stop_texts(self, endless, picture):
        messages = conversation(picture, QUESTIONS[0])
        (free,) = ask(endless, messages, max_new_tokens=20)
        stop = free.text[5:8]
        (answer,) = ask(endless, messages, max_new_tokens=20, stop=(stop,))
        assert answer.text == free.text[: free.text.index(stop)].rstrip()
        assert answer.finish_reason == "stop"
        assert answer.answer_tokens < 20

    def test_pieces_come_with_their_tokens(self, endless, picture):
        steps = rows_and_tokens(endless)
        seen = [
            (event.index, len(steps))
            for event in endless.events(
                conversation(picture, "cups"), SamplingSettings(max_new_tokens=3, n=2, top_logprobs=0)
            )
            if isinstance(event, Piece) and event.logprobs
        ]
        assert seen == [(index, step) for step in (1, 2, 3) for index in (0, 1)]


class TestStopping:
    def test_closing_stops_the_work(self, endless, picture):
        steps = rows_and_tokens(endless)
        events = endless.events(conversation(picture, "cups"), SamplingSettings(max_new_tokens=100, top_logprobs=0))
        next(events), next(events)
        events.close()
        assert len(steps) == 2
        assert not list(events)

    def test_dropping_stops_the_work(self, endless, picture):
        steps = rows_and_tokens(endless)
        for _ in endless.events(conversation(picture, "cups"), SamplingSettings(max_new_tokens=100, top_logprobs=0)):
            break
        gc.collect()
        assert len(steps) == 1

    def test_nothing_is_computed_before_it_is_asked_for(self, endless, picture, count_calls):
        tower, steps = count_calls(endless.model.model.vision_tower.embeddings), rows_and_tokens(endless)
        endless.events(conversation(picture, "cups"), SamplingSettings())
        assert (tower, steps) == ([], [])

    def test_between_two_events_the_callers_thread_is_as_it_was(self, endless):
        assert not torch.is_inference_mode_enabled()
        for _ in endless.events(conversation(None, "cups"), SamplingSettings(max_new_tokens=3, top_logprobs=0)):
            assert not torch.is_inference_mode_enabled()
            assert torch.is_grad_enabled()


class TestFailures:
    @pytest.mark.parametrize(
        ("messages", "settings", "message"),
        [
            ([], {}, "the conversation is empty"),
            (conversation(None, "cups"), {"num_latents": 3}, "perfect square"),
            (conversation("nothing.jpg", "cups"), {}, r"nothing\.jpg"),
        ],
    )
    def test_what_is_impossible_is_told_at_once(self, endless, messages, settings, message):
        with pytest.raises(ValueError, match=message):
            endless.events(messages, SamplingSettings(**settings))

    def test_a_conversation_beyond_the_context(self, endless):
        with pytest.raises(ContextExceeded, match=r"The conversation takes \d+ tokens, the context holds 256"):
            endless.events(conversation(None, "blue " * 300), SamplingSettings())

    @pytest.mark.parametrize("at_step", [1, 3])
    def test_exceptions_surface_and_leave_nothing_behind(self, endless, picture, at_step):
        messages = conversation(picture, "cups")
        expected = ask(endless, messages, max_new_tokens=9)
        calls = []

        def fail(*_):
            calls.append(1)
            if len(calls) == at_step:
                raise RuntimeError("the machine is on fire")

        hook = endless.model.model.language_model.layers[1].register_forward_hook(fail)
        with pytest.raises(RuntimeError, match="on fire"):
            ask(endless, messages, max_new_tokens=9)
        hook.remove()
        assert ask(endless, messages, max_new_tokens=9) == expected


def test_threads_at_once(endless, picture, other_picture):
    """They share a model and a cache that holds one picture; each gets what it gets alone, told or in one batch."""
    asked = [
        (conversation(image, question), {"seed": seed, "n": seed + 1, **SAMPLING})
        for seed, (image, question) in enumerate([(picture, "cups"), (other_picture, "cups"), (None, "blue")])
    ]

    def answers(engine, messages, settings):
        return ask(engine, messages, **settings) + engine.answer([messages], max_new_tokens=8)

    expected = [answers(endless, *one) for one in asked]
    small = FusionEngine(endless.model, endless.processor, cache_bytes=endless.cache.num_bytes // 2)
    found, start = {}, threading.Barrier(3)

    def work(number):
        start.wait()
        found[number] = [answers(small, *one) for one in asked[number:] + asked[:number]]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: expected[number:] + expected[:number] for number in range(3)}
    assert 0 < small.cache.num_bytes <= small.cache.max_bytes


def rows_and_tokens(engine):
    """Record the batch of every forward pass of the decoder from now on: rows and tokens a row."""
    calls = []
    engine.model.model.language_model.register_forward_pre_hook(
        lambda _, __, kwargs: calls.append(tuple(kwargs["inputs_embeds"].shape[:2])), with_kwargs=True
    )
    return calls
