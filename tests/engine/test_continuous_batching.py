"""Many answers at once: the same as alone, in fair order, unwanted ones dropped, failures told, nobody stalled."""

import random
import threading
import time

import pytest
import torch

from fusionvl.engine.continuous_batching import ContinuousBatching, QueueFull
from fusionvl.engine.engine import conversation
from fusionvl.engine.generation_request import Failure, SamplingSettings
from fusionvl.engine.listening import Collected

QUESTIONS = ["What colour is the circle?", "How many cups are there?", "Is there a blue shape?", "cups", "Käse 🙂?"]
WAIT = 60  # seconds, for what takes milliseconds


@pytest.fixture
def endless(make_engine):
    """An engine whose answers end at their last token only."""
    return without_end(make_engine())


def without_end(engine):
    engine.model.generation_config.eos_token_id = None
    return engine


@pytest.fixture
def start():
    """Starts batchings and closes them after the test."""
    started = []

    def build(engine, **options):
        started.append(ContinuousBatching(engine, **options))
        return started[-1]

    yield build
    for batching in started:
        batching.close(drain=False)


class Gate(Collected):
    """A listener that holds the batching thread at its first event until it is opened."""

    def __init__(self):
        super().__init__()
        self.reached, self.opened = threading.Event(), threading.Event()

    def __call__(self, event):
        self.reached.set()
        assert self.opened.wait(WAIT)
        super().__call__(event)


def submit(batching, messages, listener=None, deadline=None, **settings):
    listener = listener or Collected()
    ticket = batching.submit(messages, SamplingSettings(**settings), listener, deadline)
    return ticket, listener


def held(batching, **settings):
    """An answer that holds the batching thread at its first token until its gate is opened."""
    settings = {"max_new_tokens": 200, "top_logprobs": 0} | settings  # with them every token is an event
    ticket, gate = submit(batching, conversation(None, "cups"), Gate(), **settings)
    assert gate.reached.wait(WAIT)
    return ticket, gate


def requests(seed, pictures, count=14):
    """Conversations with and without pictures, of one or two turns, with settings."""
    drawn = random.Random(seed)
    made = []
    for _ in range(count):
        messages = conversation(drawn.choice([None, *pictures]), drawn.choice(QUESTIONS))
        if drawn.random() < 0.3:
            messages += [
                {"role": "assistant", "content": "two"},
                {"role": "user", "content": drawn.choice(QUESTIONS)},
            ]
        made.append(
            (messages, {"num_latents": drawn.choice([None, 1, 9]), "max_new_tokens": drawn.choice([1, 3, 8, 20])})
        )
    return made


class TestSameAsAlone:
    @pytest.mark.parametrize("seed", [0, 1])
    def test_greedy(self, make_engine, family, picture, other_picture, start, seed):
        engine = without_end(make_engine(family=family))
        made = requests(seed, [picture, other_picture])
        expected = [engine.answer([messages], do_sample=False, **settings)[0] for messages, settings in made]
        batching = start(engine, max_batch=5, max_stall=0)
        drawn, found = random.Random(seed), []
        for messages, settings in made:
            found.append(submit(batching, messages, **settings)[1])
            if drawn.random() < 0.4:
                found[drawn.randrange(len(found))].wait(WAIT)
        assert [listener.answer() for listener in found] == expected
        assert len({answer.text for answer in expected}) > 8

    @pytest.mark.parametrize("fusion", [{"early_guidance": "released"}, {"num_interaction_layers": 0}])
    def test_other_models(self, make_engine, picture, other_picture, start, fusion):
        engine = without_end(make_engine(**fusion))
        made = [conversation(image, question) for image in (picture, other_picture, None) for question in QUESTIONS]
        expected = [engine.answer([messages], max_new_tokens=9)[0] for messages in made]
        batching = start(engine, max_batch=4)
        found = [submit(batching, messages, max_new_tokens=9)[1] for messages in made]
        assert [listener.answer() for listener in found] == expected

    def test_the_end_of_the_turn(self, endless, picture, start):
        """Tokens that come are made the end; then every answer must stop where `answer` stops."""
        made = [conversation(picture, question) for question in QUESTIONS]
        tokens = endless.model.generate(**endless.encode(made[:2], None), max_new_tokens=12)[:, -12:]
        endless.model.generation_config.eos_token_id = [int(tokens[0, 3]), int(tokens[1, 5])]
        expected = [endless.answer([messages], max_new_tokens=12)[0] for messages in made]
        assert "stop" in {answer.finish_reason for answer in expected}
        batching = start(endless)
        found = [submit(batching, messages, max_new_tokens=12)[1] for messages in made]
        assert [listener.answer() for listener in found] == expected

    def test_the_context_bounds_the_answer(self, endless, picture, start):
        answer = start(endless).answer(conversation(picture, "cups"), SamplingSettings(max_new_tokens=10_000))
        assert answer.prompt_tokens + answer.answer_tokens == 256
        assert answer == endless.answer([conversation(picture, "cups")], max_new_tokens=10_000)[0]

    def test_sampling_follows_the_seed_and_not_the_neighbours(self, endless, picture, start):
        sampling = {"temperature": 1.3, "top_p": 0.9, "max_new_tokens": 15}
        alone = start(endless, max_batch=1)
        expected = [
            alone.answer(conversation(picture, QUESTIONS[0]), SamplingSettings(seed=seed, **sampling))
            for seed in range(4)
        ]
        assert len({answer.text for answer in expected}) == 4
        batching = start(endless)
        _, gate = held(batching, temperature=1.0, seed=3)
        found = [submit(batching, conversation(picture, QUESTIONS[0]), seed=seed, **sampling)[1] for seed in range(4)]
        gate.opened.set()
        assert [listener.answer() for listener in found] == expected

    def test_two_batchings_and_plain_answers_at_once(self, endless, picture, start):
        """Their threads share a model; interruptions of one's prefill must not be taken for the other's."""
        made = [conversation(picture, question) for question in QUESTIONS]
        expected = [endless.answer([messages], max_new_tokens=12)[0] for messages in made]
        batchings = [start(endless, max_stall=0), start(endless, max_stall=0)]
        found = [submit(batching, messages, max_new_tokens=12)[1] for messages in made for batching in batchings]
        assert [endless.answer([messages], max_new_tokens=12)[0] for messages in made] == expected
        assert [listener.answer() for listener in found] == [answer for answer in expected for _ in batchings]


class TestEvents:
    def test_pieces_are_the_answer_and_logprobs_are_the_models(self, endless, picture, start):
        messages = conversation(picture, QUESTIONS[0])
        _, listener = submit(start(endless), messages, max_new_tokens=10, top_logprobs=3)
        answer = listener.answer()
        logprobs = [logprob for piece in listener.pieces for logprob in piece.logprobs]
        assert len(logprobs) == 10
        inputs = endless.encode([messages], None)
        with torch.inference_mode():
            sequence = endless.model.generate(**inputs, max_new_tokens=10, do_sample=False)
            tokens = sequence[0, -10:]
            types = torch.nn.functional.pad(inputs["mm_token_type_ids"], (0, 10))
            whole = dict(inputs) | {
                "input_ids": sequence, "attention_mask": torch.ones_like(sequence), "mm_token_type_ids": types
            }  # fmt: skip
            expected = endless.model(**whole).logits[0, -11:-1].log_softmax(-1)
        assert [entry.logprob for entry in logprobs] == pytest.approx(
            expected.gather(1, tokens[:, None])[:, 0].tolist(), abs=1e-4
        )
        for entry, row in zip(logprobs, expected, strict=True):
            assert [value for _, _, value in entry.alternatives] == pytest.approx(
                row.topk(3).values.tolist(), abs=1e-4
            )
            assert entry.alternatives[0] == (entry.token, entry.token_bytes, entry.logprob)
        assert b"".join(entry.token_bytes for entry in logprobs).decode(errors="replace").strip() == answer.text

    def test_stop_texts(self, endless, picture, start):
        messages = conversation(picture, QUESTIONS[0])
        batching = start(endless)
        free = batching.answer(messages, SamplingSettings(max_new_tokens=20))
        stop = free.text[5:8]
        answer = batching.answer(messages, SamplingSettings(max_new_tokens=20, stop=(stop,)))
        assert answer.text == free.text[: free.text.index(stop)].rstrip()
        assert answer.finish_reason == "stop"
        assert answer.answer_tokens < 20

    def test_times_and_counts(self, endless, picture, start):
        batching = start(endless)
        found = []
        for _ in range(2):
            _, listener = submit(batching, conversation(picture, "cups"), max_new_tokens=7)
            found.append(listener.wait(WAIT))
        assert [end.image_was_cached for end in found] == [False, True]
        for end in found:
            assert 0 <= end.queue_seconds <= end.first_token_seconds <= end.total_seconds
            assert (end.reason, end.answer_tokens) == ("length", 7)
        _, listener = submit(batching, conversation(None, "cups"), max_new_tokens=1)
        assert not listener.wait(WAIT).image_was_cached
        stats = batching.stats()
        assert (stats.waiting, stats.running, stats.admitted, stats.answer_tokens) == (0, 0, 3, 15)
        assert (stats.cache_hits, stats.cache_misses, stats.steps) == (1, 1, 12)
        assert stats.prompt_tokens == sum(end.prompt_tokens for end in (*found, listener.end))
        assert stats.prefill_seconds > 0 < stats.step_seconds

    def test_a_listener_that_raises_harms_nobody_else(self, endless, start, caplog):
        def broken(event):
            raise KeyError("mine")

        batching = start(endless)
        batching.submit(conversation(None, "cups"), SamplingSettings(), broken)
        assert batching.answer(conversation(None, "cups"), SamplingSettings(max_new_tokens=5)).answer_tokens == 5
        assert "its answer is dropped" in caplog.text
        assert batching.stats().running == 0


class TestOrder:
    def test_first_come_first_served(self, endless, picture, start):
        batching = start(endless, max_batch=1)
        _, gate = held(batching, max_new_tokens=2)
        listeners = [
            submit(batching, conversation(image, str(number)), max_new_tokens=2)[1]
            for number, image in enumerate([picture, None, picture, None])
        ]
        gate.opened.set()
        for listener in listeners:
            listener.wait(WAIT)
        firsts = [listener.moments[0] for listener in listeners]
        assert firsts == sorted(firsts)

    def test_a_burst_of_newcomers_does_not_starve_the_running(self, endless, picture, start):
        """With `max_stall=0` a running answer gets a token after every layer of the others' prefills."""
        batching = start(endless, max_stall=0)
        _, gate = held(batching)
        found = [submit(batching, conversation(picture, question), max_new_tokens=2)[1] for question in QUESTIONS]
        wait_for(lambda: batching.stats().waiting == 5)
        gate.opened.set()
        for listener in found:
            listener.wait(WAIT)
        layers = 4 + 4  # of a second question about a picture: half of the encoder, and the decoder
        assert batching.stats().steps >= len(QUESTIONS) * (layers - 2)

    def test_a_patient_batch_steps_between_prefills_all_the_same(self, endless, picture, start):
        batching = start(endless, max_stall=1000)
        _, gate = held(batching)
        found = [submit(batching, conversation(picture, question), max_new_tokens=50)[1] for question in QUESTIONS]
        gate.opened.set()
        for listener in found:
            assert listener.wait(WAIT).reason == "length"
        assert 49 <= batching.stats().steps <= 100, "the newcomers ran together, some steps apart"

    def test_no_more_than_the_batch_holds(self, endless, start):
        sizes = []
        batching = start(endless, max_batch=3)
        endless.model.model.language_model.register_forward_pre_hook(
            lambda _, args, kwargs: sizes.append(kwargs["inputs_embeds"].shape[0]), with_kwargs=True
        )
        _, gate = held(batching, max_new_tokens=9)
        found = [submit(batching, conversation(None, question), max_new_tokens=9)[1] for question in QUESTIONS * 2]
        gate.opened.set()
        for listener in found:
            listener.wait(WAIT)
        assert max(sizes) == 3


class TestLeaving:
    def test_cancelling_a_running_answer(self, endless, start):
        batching = start(endless)
        ticket, gate = held(batching)
        _, other = submit(batching, conversation(None, QUESTIONS[0]), max_new_tokens=6)
        ticket.cancel()
        ticket.cancel()
        gate.opened.set()
        end = gate.wait(WAIT)
        assert (end.reason, end.answer_tokens) == ("cancelled", 1)
        assert other.answer() == endless.answer([conversation(None, QUESTIONS[0])], max_new_tokens=6)[0]
        ticket.cancel()

    def test_cancelling_a_waiting_request(self, endless, start, count_calls):
        batching = start(endless, max_batch=1)
        _, gate = held(batching, max_new_tokens=3)
        ticket, listener = submit(batching, conversation(None, QUESTIONS[0]))
        ticket.cancel()
        gate.opened.set()
        end = listener.wait(WAIT)
        assert (end.reason, end.answer_tokens, end.first_token_seconds) == ("cancelled", 0, None)
        assert batching.stats().admitted == 1

    def test_cancelling_during_the_prefill(self, endless, picture, start):
        batching, inside, go_on = start(endless), threading.Event(), threading.Event()

        def pause(*_):
            inside.set()
            assert go_on.wait(WAIT)

        hook = endless.model.model.vision_tower.embeddings.register_forward_hook(pause)
        ticket, listener = submit(batching, conversation(picture, "cups"))
        assert inside.wait(WAIT)
        ticket.cancel()
        hook.remove()
        go_on.set()
        end = listener.wait(WAIT)
        assert (end.reason, end.answer_tokens) == ("cancelled", 0)
        assert batching.answer(conversation(picture, "cups"), SamplingSettings(max_new_tokens=3)).answer_tokens == 3

    def test_deadlines(self, endless, start):
        batching = start(endless, max_batch=1)
        _, running = submit(batching, conversation(None, "cups"), Gate(), time.monotonic() + 0.05, max_new_tokens=200)
        assert running.reached.wait(WAIT)
        _, waiting = submit(batching, conversation(None, "cups"), None, time.monotonic() + 0.05)
        time.sleep(0.06)
        running.opened.set()
        for listener in (running, waiting):
            end = listener.wait(WAIT)
            assert isinstance(end, Failure)
            assert (end.is_late, end.is_users) == (True, False)
            assert "deadline" in end.message
        with pytest.raises(TimeoutError, match="deadline"):
            batching.answer(conversation(None, "cups"), deadline=time.monotonic() - 1)


class TestFailures:
    def test_what_can_be_known_at_once(self, endless, start):
        batching = start(endless)
        with pytest.raises(ValueError, match="the conversation is empty"):
            submit(batching, [])
        with pytest.raises(ValueError, match="perfect square"):
            submit(batching, conversation(None, "cups"), num_latents=3)

    def test_a_full_line(self, endless, start):
        batching = start(endless, max_batch=1, max_waiting=2)
        _, gate = held(batching, max_new_tokens=3)
        found = [submit(batching, conversation(None, "cups"), max_new_tokens=3)[1] for _ in range(2)]
        with pytest.raises(QueueFull, match="2 requests wait already"):
            submit(batching, conversation(None, "cups"))
        gate.opened.set()
        assert {listener.wait(WAIT).reason for listener in found} == {"length"}
        assert batching.answer(conversation(None, "cups"), SamplingSettings(max_new_tokens=2)).answer_tokens == 2

    def test_how_long_the_thread_gave_no_sign(self, endless, start):
        batching = start(endless)
        assert batching.silent_seconds == 0
        _, gate = held(batching, max_new_tokens=30)
        time.sleep(0.2)
        assert batching.silent_seconds >= 0.2
        gate.opened.set()
        gate.wait(WAIT)
        while batching.silent_seconds:
            time.sleep(0.01)

    def test_a_request_that_turns_out_impossible_fails_alone(self, endless, tmp_path, start):
        batching = start(endless)
        _, good = submit(batching, conversation(None, QUESTIONS[0]), max_new_tokens=12)
        for messages, message in (
            (conversation(tmp_path / "nothing.jpg", "cups"), "nothing.jpg"),
            (conversation(None, "blue " * 300), "the context holds 256"),
        ):
            with pytest.raises(ValueError, match=message):
                batching.answer(messages)
        _, long = submit(batching, conversation(None, "blue " * 300))
        assert long.wait(WAIT).is_too_long
        assert good.answer() == endless.answer([conversation(None, QUESTIONS[0])], max_new_tokens=12)[0]

    def test_a_failed_prefill_is_that_requests(self, endless, picture, start):
        batching = start(endless)
        _, gate = held(batching, max_new_tokens=30)
        endless.image_features = lambda _: 1 / 0
        _, listener = submit(batching, conversation(picture, "cups"))
        gate.opened.set()
        end = listener.wait(WAIT)
        assert end == Failure("The prefill failed: ZeroDivisionError: division by zero", is_users=False)
        assert gate.wait(WAIT).answer_tokens == 30

    def test_a_failed_preparation_is_that_requests(self, endless, start, monkeypatch):
        batching = start(endless)
        monkeypatch.setattr(endless, "encode", lambda *_: [].pop())
        _, listener = submit(batching, conversation(None, "cups"))
        end = listener.wait(WAIT)
        assert end == Failure("The preparation failed: IndexError: pop from empty list", is_users=False)

    @pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
    def test_a_fault_of_the_loop_itself_is_told_to_everybody(self, endless, start, monkeypatch):
        batching = start(endless, max_batch=1)
        _, gate = held(batching)
        _, waiting = submit(batching, conversation(None, "cups"))
        monkeypatch.setattr(batching._line, "take_unwanted", lambda: [].pop())
        gate.opened.set()
        for listener in (gate, waiting):
            assert "closed before the answer was complete" in listener.wait(WAIT).message
        wait_for(lambda: not batching.is_open)
        with pytest.raises(RuntimeError, match="closed"):
            submit(batching, conversation(None, "cups"))

    def test_a_failed_step_fails_the_running_and_the_loop_goes_on(self, endless, start, caplog):
        batching = start(endless)
        _, gate = held(batching)
        _, other = submit(batching, conversation(None, "cups"), max_new_tokens=100)
        calls = []

        def fail(*_):
            calls.append(1)
            if len(calls) == 20:
                raise RuntimeError("the machine is on fire")

        hook = endless.model.model.language_model.layers[1].register_forward_hook(fail)
        gate.opened.set()
        for listener in (gate, other):
            end = listener.wait(WAIT)
            assert end == Failure("A decoding step failed: RuntimeError: the machine is on fire", is_users=False)
        hook.remove()
        expected = endless.answer([conversation(None, "cups")], max_new_tokens=9)[0]
        assert batching.answer(conversation(None, "cups"), SamplingSettings(max_new_tokens=9)) == expected
        assert "2 running answers end with it" in caplog.text

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"max_new_tokens": 0}, "max_new_tokens must be at least 1"),
            ({"temperature": float("nan")}, "temperature must be a finite number"),
            ({"temperature": -1}, "temperature must be a finite number"),
            ({"top_p": 0}, "top_p must be above 0"),
            ({"top_logprobs": -1}, "top_logprobs must be at least 0"),
            ({"seed": 2**63}, "seed must be a whole number of 64 bits"),
            ({"stop": "END"}, "stop must be texts"),
            ({"stop": ("END", "")}, "stop must be texts"),
        ],
    )
    def test_impossible_settings(self, settings, message):
        with pytest.raises(ValueError, match=message):
            SamplingSettings(**settings)

    def test_a_prompt_that_would_change_the_rotary_embedding_of_others(self, make_engine, start):
        rope = {
            "rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": 40,
            "short_factor": [1.0] * 4, "long_factor": [2.0] * 4,
        }  # fmt: skip
        decoder = {"rope_parameters": rope, "original_max_position_embeddings": 40}
        engine = without_end(make_engine(family="phi3", decoder=decoder))
        batching = start(engine)
        answer = batching.answer(conversation(None, "cups"), SamplingSettings(max_new_tokens=100))
        assert answer.prompt_tokens + answer.answer_tokens == 40
        with pytest.raises(ValueError, match="rotary embedding allows 40"):
            batching.answer(conversation(None, "cups " * 30))

    def test_in_bfloat16(self, endless, picture, start):
        endless.model.to(torch.bfloat16)
        batching = start(endless)
        found = [submit(batching, conversation(picture, question), max_new_tokens=9)[1] for question in QUESTIONS]
        assert [listener.answer().answer_tokens for listener in found] == [9] * 5

    @pytest.mark.parametrize("bounds", [{"max_batch": 0}, {"max_waiting": 0}, {"max_stall": -1}])
    def test_impossible_bounds(self, endless, bounds):
        with pytest.raises(ValueError, match=f"{next(iter(bounds))} must be at least"):
            ContinuousBatching(endless, **bounds)


class TestClosing:
    def test_draining_answers_all(self, endless, picture):
        with ContinuousBatching(endless, max_batch=2) as batching:
            found = [submit(batching, conversation(picture, question), max_new_tokens=9)[1] for question in QUESTIONS]
        assert [listener.end.reason for listener in found] == ["length"] * 5
        assert not batching.is_open
        with pytest.raises(RuntimeError, match="closed"):
            submit(batching, conversation(None, "cups"))

    def test_not_draining_tells_everybody(self, endless, picture, start):
        batching = start(endless, max_batch=1)
        _, gate = held(batching)
        _, waiting = submit(batching, conversation(picture, "cups"))
        closing = threading.Thread(target=batching.close, args=(False,))
        closing.start()
        wait_for(lambda: batching._is_aborted)
        gate.opened.set()
        closing.join(WAIT)
        assert not closing.is_alive()
        for listener in (gate, waiting):
            assert isinstance(listener.end, Failure)
            assert "closed before the answer was complete" in listener.end.message

    def test_nothing_stays_behind(self, endless):
        before, hooks = set(threading.enumerate()), count_hooks(endless.model)
        batching = ContinuousBatching(endless)
        assert count_hooks(endless.model) > hooks
        batching.answer(conversation(None, "cups"), SamplingSettings(max_new_tokens=3))
        batching.close(drain=True)
        batching.close(drain=False)
        wait_for(lambda: set(threading.enumerate()) == before)
        assert count_hooks(endless.model) == hooks
        assert batching.stats().slot_bytes == 0, "memory of rows"


def count_hooks(model):
    return sum(len(module._forward_hooks) for module in model.modules())


def wait_for(condition):
    end = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)
