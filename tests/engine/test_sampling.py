"""Next tokens: greedy, or drawn as often as they are likely, from a nucleus, by a seed."""

from collections import Counter

import pytest
import torch

from fusionvl.engine.generation_request import SamplingSettings
from fusionvl.engine.sampling import Sampler, choose_tokens, log_probabilities

LOGITS = torch.tensor([0.1, 0.5, 0.15, 0.25]).log()


def draws(count, **settings):
    sampler = Sampler(SamplingSettings(**settings))
    return [sampler.choose(LOGITS) for _ in range(count)]


def shares(tokens):
    return {token: count / len(tokens) for token, count in Counter(tokens).items()}


def test_greedy_takes_the_most_likely():
    assert set(draws(5)) == {1}


def test_drawn_as_often_as_likely():
    found = shares(draws(4000, temperature=1.0, seed=0))
    assert found == {token: pytest.approx(float(LOGITS[token].exp()), abs=0.03) for token in range(4)}


def test_temperature():
    hot, cold = (shares(draws(2000, temperature=value, seed=0)) for value in (3.0, 0.3))
    expected = (LOGITS / 3.0).softmax(0)
    assert hot == {token: pytest.approx(float(expected[token]), abs=0.04) for token in range(4)}
    assert cold[1] > 0.85


@pytest.mark.parametrize("temperature", [1e-307, 1e-308, 5e-324])
@pytest.mark.parametrize("logits", [LOGITS, torch.tensor([1.0, 30.0, 2.0, -torch.inf])])
def test_the_least_temperatures_take_the_most_likely(temperature, logits):
    sampler = Sampler(SamplingSettings(temperature=temperature, seed=0))
    assert {sampler.choose(logits) for _ in range(5)} == {1}


@pytest.mark.parametrize(("top_p", "nucleus"), [(0.4, {1}), (0.6, {1, 3}), (0.8, {1, 2, 3}), (1.0, {0, 1, 2, 3})])
def test_nucleus(top_p, nucleus):
    found = shares(draws(2000, temperature=1.0, top_p=top_p, seed=0))
    total = sum(float(LOGITS[token].exp()) for token in nucleus)
    assert found == {token: pytest.approx(float(LOGITS[token].exp()) / total, abs=0.04) for token in nucleus}


def test_seeds():
    first, again, other = (draws(30, temperature=1.0, seed=seed) for seed in (7, 7, 8))
    assert first == again != other
    assert draws(30, temperature=1.0) != draws(30, temperature=1.0), "without a seed every answer has its own"


def test_a_row_does_not_depend_on_its_neighbours():
    def samplers():
        return [Sampler(SamplingSettings(temperature=1.0, seed=seed)) for seed in range(3)]

    logits = torch.randn(3, 50)
    together, alone = samplers(), samplers()
    for _ in range(10):
        found = choose_tokens(logits, [together[0], Sampler(SamplingSettings()), together[2]])
        assert found[1] == int(logits[1].argmax())
        assert (found[0], found[2]) == (alone[0].choose(logits[0]), alone[2].choose(logits[2]))


def test_log_probabilities():
    rows = torch.stack([LOGITS + 3, LOGITS, LOGITS.flip(0), LOGITS])
    wide, none, flipped, all_of_them = log_probabilities(rows, [2, 1, 0, 3], [3, None, 0, 20])
    assert none is None
    assert wide[0] == pytest.approx(float(LOGITS[2]), abs=1e-6)
    assert [token for token, _ in wide[1]] == [1, 3, 2]
    assert [value for _, value in wide[1]] == pytest.approx([float(LOGITS[token]) for token in (1, 3, 2)], abs=1e-6)
    assert flipped == (pytest.approx(float(LOGITS[3]), abs=1e-6), [])
    assert [token for token, _ in all_of_them[1]] == [1, 3, 2, 0]
    assert log_probabilities(rows[:2], [0, 0], [None, None]) == [None, None]
