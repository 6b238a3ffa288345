"""The loss of a step is that of all its rows, whatever passes they are divided into."""

import copy

import pytest
import torch

from fusionvl.train.step_loss import TERMS, combined, counts_of, shares_of


@pytest.fixture
def rows(tiny):
    """Rows with pictures, with and without guide padding, and answers of very different lengths."""
    return [tiny.row(number, turns=1 + number % 3, guide_length=3 + number) for number in range(4)]


def step_of(model, batches):
    """Loss, terms and gradients of a step of these passes."""
    model = copy.deepcopy(model)
    counts = [counts_of(batch) for batch in batches]
    loss, terms = 0.0, torch.zeros(len(TERMS), dtype=torch.float64)
    for batch, shares in zip(batches, shares_of(counts, torch.stack(counts).sum(0)), strict=True):
        outputs = model(**batch)
        part = combined(outputs, shares, model.config.mapping_loss_weight)
        part.backward()
        loss += part.item()
        terms += shares * torch.stack([outputs[term].detach().double() for term in TERMS])
    return loss, terms, {name: parameter.grad for name, parameter in model.named_parameters()}


def test_any_division_into_passes_gives_the_same_loss_and_gradients(tiny, rows):
    model = tiny.model()
    whole = step_of(model, [tiny.batch(rows, labels=True)])
    for division in ([1, 3], [3, 1], [2, 2], [1, 1, 1, 1]):
        batches, rest = [], list(rows)
        for size in division:
            batches.append(tiny.batch(rest[:size], labels=True))
            rest = rest[size:]
        loss, terms, gradients = step_of(model, batches)
        assert loss == pytest.approx(whole[0], rel=1e-6)
        torch.testing.assert_close(terms, whole[1], rtol=1e-6, atol=0)
        torch.testing.assert_close(gradients, whole[2], rtol=1e-4, atol=1e-6)
    means = [model(**tiny.batch([row], labels=True)).loss.item() for row in rows]
    assert abs(sum(means) / len(means) - whole[0]) > 1e-3, "a mean of means is something else"


def test_one_pass_is_the_models_own_loss(tiny, rows):
    model, batch = tiny.model(), tiny.batch(rows, labels=True)
    assert step_of(model, [batch])[0] == pytest.approx(model(**batch).loss.item(), rel=1e-6)


def test_a_blank_picture_weighs_nothing(tiny, rows):
    alone, picture = tiny.batch([tiny.row(5, image=False)], labels=True), tiny.batch([tiny.row(6)])
    of_picture = ("pixel_values", "guide_input_ids", "guide_attention_mask")
    blank = alone | {name: picture[name] for name in of_picture} | {"blank_image": True}
    assert counts_of(blank).tolist() == [counts_of(alone)[0], 0, 0]
    model, with_pictures = tiny.model(), tiny.batch(rows, labels=True)
    loss, terms, gradients = step_of(model, [with_pictures, blank])
    expected = step_of(model, [with_pictures, alone])
    assert loss == pytest.approx(expected[0], rel=1e-6)
    torch.testing.assert_close(terms, expected[1], rtol=1e-6, atol=0)
    torch.testing.assert_close(gradients, expected[2], rtol=1e-4, atol=1e-6)
    assert all(gradient is not None for gradient in step_of(model, [blank])[2].values()), "all layers run"
