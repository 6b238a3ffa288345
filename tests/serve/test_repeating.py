"""Answers that are asked again when their process dies: nothing is lost, told twice or mixed."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusionvl.engine.generation_request import Failure, Finish, Piece, SamplingSettings, TokenLogprob
from fusionvl.serve.errors import ApiError
from fusionvl.serve.repeating import ATTEMPTS, ReplicaLost, repeated, repeated_call

FINISH = Finish("stop", 7, 3, False, 0.0, 0.1, 0.2)
DIE = "die"
ONE = (SamplingSettings(),)


def asks(*scripts):
    """An `Ask` that obeys one script for each attempt, and the settings it was asked with."""
    seen = []

    async def ask(settings, seconds):
        script = scripts[len(seen)]
        seen.append(tuple(settings))
        for step in script:
            if step == DIE:
                raise ReplicaLost("it died")
            yield step

    return ask, seen


def collect(ask, settings=ONE):
    async def run():
        return [event async for event in repeated(ask, settings, 10.0)]

    return asyncio.run(run())


def texts(events, index=0):
    return [event.text for number, event in events if number == index and isinstance(event, Piece)]


def test_what_was_told_is_skipped():
    ask, seen = asks(
        [(0, Piece("one ")), (0, Piece("two ")), DIE], [(0, Piece("one two th")), (0, Piece("ree")), (0, FINISH)]
    )
    events = collect(ask)
    assert texts(events) == ["one ", "two ", "th", "ree"]
    assert events[-1] == (0, FINISH)
    assert len(seen) == 2


def test_only_open_answers_are_asked_again():
    first, second = SamplingSettings(seed=1), SamplingSettings(seed=2)
    ask, seen = asks([(0, Piece("a")), (1, Piece("b")), (0, FINISH), DIE], [(0, Piece("bc")), (0, FINISH)])
    events = collect(ask, (first, second))
    assert (texts(events, 0), texts(events, 1)) == (["a"], ["b", "c"])
    assert seen == [(first, second), (second,)]


@pytest.mark.parametrize(
    "again",
    [
        [(0, Piece("one other"))],
        [(0, Piece("one")), (0, FINISH)],  # ends before what was told
    ],
)
def test_a_different_answer_is_an_error_and_never_mixed(again):
    ask, _ = asks([(0, Piece("one two")), DIE], again)
    told = []

    async def run():
        async for _, event in repeated(ask, ONE, 10.0):
            told.append(event.text)

    with pytest.raises(ApiError) as caught:
        asyncio.run(run())
    assert caught.value.code == "worker_crashed"
    assert told == ["one two"]


def test_attempts_are_bounded():
    ask, seen = asks(*([[DIE]] * (ATTEMPTS + 1)))
    with pytest.raises(ApiError) as caught:
        collect(ask)
    assert caught.value.code == "worker_crashed"
    assert len(seen) == ATTEMPTS


def test_what_is_drawn_is_drawn_once():
    ask, seen = asks([DIE], [(0, FINISH), (1, FINISH), (2, FINISH)])
    collect(ask, (SamplingSettings(temperature=1.0), SamplingSettings(temperature=1.0, seed=5), SamplingSettings()))
    assert seen[0] == seen[1]
    assert seen[0][0].seed is not None
    assert [settings.seed for settings in seen[0][1:]] == [5, None], "greedy answers need no seed"


def test_failures_pass_and_end_the_answer():
    failure = Failure("The model stumbled", is_users=False)
    ask, seen = asks([(0, Piece("a")), (0, failure)])
    assert collect(ask)[-1] == (0, failure)
    assert len(seen) == 1


def test_other_errors_pass():
    ask, seen = asks([ApiError("queue_full", "later")])

    async def refusing(settings, seconds):
        async for step in ask(settings, seconds):
            raise step
            yield

    with pytest.raises(ApiError) as caught:
        collect(refusing)
    assert caught.value.code == "queue_full"
    assert len(seen) == 1


def test_calls_are_repeated_and_bounded():
    left = [ReplicaLost(), ReplicaLost()]

    async def call():
        if left:
            raise left.pop()
        return "done"

    assert asyncio.run(repeated_call(call)) == "done"
    left[:] = [ReplicaLost()] * ATTEMPTS
    with pytest.raises(ApiError) as caught:
        asyncio.run(repeated_call(call))
    assert caught.value.code == "worker_crashed"


WORDS = ["a", "bc", "déf ", "", "日本", " x"]


def cut(tokens, sizes):
    """Pieces of so many tokens each; a piece's text is its tokens' text."""
    pieces, rest = [], list(tokens)
    for size in [*sizes, len(rest)]:
        taken, rest = rest[:size], rest[size:]
        logprobs = tuple(TokenLogprob(token, token.encode(), -1.0) for token in taken)
        pieces.append((0, Piece("".join(taken), logprobs)))
    return pieces


SIZES = st.lists(st.integers(0, 3), max_size=6)


@settings(deadline=None)
@given(st.lists(st.sampled_from(WORDS), max_size=12), st.lists(SIZES, min_size=ATTEMPTS, max_size=ATTEMPTS), st.data())
def test_wherever_it_dies_the_answer_is_whole(tokens, sizes, data):
    """Text and log probabilities, cut differently each time."""
    scripts = []
    for attempt, size in enumerate(sizes):
        pieces = cut(tokens, size)
        is_last = attempt == ATTEMPTS - 1
        scripts.append([*pieces, (0, FINISH)] if is_last else [*pieces[: data.draw(st.integers(0, len(pieces)))], DIE])
    ask, _ = asks(*scripts)
    events = collect(ask)
    assert "".join(texts(events)) == "".join(tokens)
    told = [token.token for _, event in events if isinstance(event, Piece) for token in event.logprobs]
    assert told == tokens
    assert events[-1] == (0, FINISH)
