"""Next tokens: greedy, or drawn as often as they are likely, from a nucleus, by a seed; impossible settings."""

from collections import Counter

import pytest
import torch

from fusionvl.engine.events import SamplingSettings
from fusionvl.engine.sampling import FIRST_CANDIDATES, Sampler, log_probabilities

LOGITS = torch.tensor([0.1, 0.5, 0.15, 0.25]).log()


def draws(count, logits=LOGITS, **settings):
    """So many tokens for each row of logits; one row may be given without its dimension."""
    rows = logits if logits.ndim == 2 else logits[None]
    sampler = Sampler(SamplingSettings(n=len(rows), **settings))
    tokens = torch.stack([sampler.choose(rows, range(len(rows))) for _ in range(count)], dim=1).tolist()
    return tokens if logits.ndim == 2 else tokens[0]


def shares(tokens):
    return {token: count / len(tokens) for token, count in Counter(tokens).items()}


def nucleus(logits, top_p):
    """The fewest most likely tokens that hold the share, by a sort in double precision."""
    probabilities, tokens = logits.double().softmax(-1).sort(descending=True)
    return set(tokens[: int((probabilities.cumsum(-1) < top_p).sum()) + 1].tolist())


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


@pytest.mark.parametrize("top_p", [1.0, 0.9])
@pytest.mark.parametrize("temperature", [1e-307, 1e-308, 5e-324])
@pytest.mark.parametrize("logits", [LOGITS, torch.tensor([1.0, 30.0, 2.0, -torch.inf])])
def test_the_least_temperatures_take_the_most_likely(temperature, logits, top_p):
    assert set(draws(5, logits, temperature=temperature, top_p=top_p, seed=0)) == {1}


@pytest.mark.parametrize(
    ("top_p", "expected"), [(1e-300, {1}), (0.4, {1}), (0.6, {1, 3}), (0.8, {1, 2, 3}), (1.0, {0, 1, 2, 3})]
)
def test_nucleus(top_p, expected):
    found = shares(draws(2000, temperature=1.0, top_p=top_p, seed=0))
    total = sum(float(LOGITS[token].exp()) for token in expected)
    assert found == {token: pytest.approx(float(LOGITS[token].exp()) / total, abs=0.04) for token in expected}


@pytest.mark.parametrize("top_p", [0.3, 0.9, 0.999999])
def test_a_nucleus_of_any_width(top_p):
    """Of logits from nearly flat to steep, side by side, in a vocabulary of many times the first candidates."""
    size = 40 * FIRST_CANDIDATES
    steepness = torch.tensor([[0.1], [1.0], [3.0], [9.0]])
    logits = steepness * torch.randn(4, size, generator=torch.Generator().manual_seed(0))
    expected = [nucleus(row, top_p) for row in logits]
    found = [set(tokens) for tokens in draws(300, logits, temperature=1.0, top_p=top_p, seed=0)]
    assert all(tokens <= allowed for tokens, allowed in zip(found, expected, strict=True))
    assert len(found[0]) > 280, "hardly one twice"
    assert len(expected[0]) > 10 * FIRST_CANDIDATES > 10 * len(expected[3])


@pytest.mark.parametrize("top_p", [1.0, 0.95])
def test_what_is_impossible_is_never_drawn(top_p):
    logits = torch.full((600,), -torch.inf)
    logits[[0, 300, 599]] = torch.tensor([-torch.inf, 0.0, 0.0])
    assert set(draws(300, logits, temperature=1.0, top_p=top_p, seed=0)) == {300, 599}


def test_seeds():
    first, again, other = (draws(30, temperature=1.0, seed=seed) for seed in (7, 7, 8))
    assert first == again != other
    assert draws(30, temperature=1.0) != draws(30, temperature=1.0), "without a seed every answer has its own"


@pytest.mark.parametrize("top_p", [1.0, 0.99])
def test_an_answer_has_the_next_seed_and_depends_on_no_neighbour(top_p):
    logits = torch.randn(3, 5000) * torch.tensor([[0.1], [1.0], [5.0]])
    together = draws(20, logits, temperature=1.0, top_p=top_p, seed=2**63 - 2)
    for row, seed in enumerate([2**63 - 2, 2**63 - 1, 0]):
        assert draws(20, logits[row], temperature=1.0, top_p=top_p, seed=seed) == together[row]
    some = Sampler(SamplingSettings(n=3, temperature=1.0, top_p=top_p, seed=2**63 - 2))
    assert [some.choose(logits[[0, 2]], [0, 2]).tolist() for _ in range(20)] == [
        [together[0][step], together[2][step]] for step in range(20)
    ]


def test_log_probabilities():
    rows = torch.stack([LOGITS + 3, LOGITS.flip(0)])
    (likeliest, first), (value, second) = log_probabilities(rows, torch.tensor([2, 0]), 3)
    assert likeliest == pytest.approx(float(LOGITS[2]), abs=1e-6)
    assert value == pytest.approx(float(LOGITS[3]), abs=1e-6)
    assert [token for token, _ in first] == [1, 3, 2]
    assert [token for token, _ in second] == [2, 0, 1]
    assert [value for _, value in first] == pytest.approx([float(LOGITS[token]) for token in (1, 3, 2)], abs=1e-6)
    assert log_probabilities(rows, torch.tensor([2, 0]), 0) == [(likeliest, []), (value, [])]
    assert [token for token, _ in log_probabilities(rows, torch.tensor([2, 0]), 20)[0][1]] == [1, 3, 2, 0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens must be at least 1, not 0"),
        ({"n": 0}, "n must be at least 1, not 0"),
        ({"temperature": float("nan")}, "temperature must be a finite number"),
        ({"temperature": float("inf")}, "temperature must be a finite number"),
        ({"temperature": -1}, "temperature must be a finite number"),
        ({"top_p": 0}, "top_p must be above 0"),
        ({"top_p": 1.1}, "top_p must be above 0"),
        ({"top_logprobs": -1}, "top_logprobs must be at least 0"),
        ({"seed": 2**63}, "seed must be a whole number of 64 bits"),
        ({"stop": "END"}, "stop must be texts"),
        ({"stop": ("END", "")}, "stop must be texts"),
    ],
)
def test_impossible_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        SamplingSettings(**settings)
