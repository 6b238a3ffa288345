"""Losses against numbers worked out by hand, and where their gradients go."""

import math

import pytest
import torch
from torch import nn

from fusionvl.model.losses import cosine_mapping_loss, next_token_loss, select_labelled


class TestCosineMappingLoss:
    # 1 - cos: 0 (parallel), 1 (orthogonal), 2 (opposite), 1 - 1/sqrt(2) (45 degrees)
    mapped = torch.tensor([[[3.0, 0.0], [0.0, 5.0]], [[-1.0, 0.0], [1.0, 1.0]]])
    target = torch.tensor([[[1.0, 0.0], [2.0, 0.0]], [[4.0, 0.0], [7.0, 0.0]]])

    @pytest.mark.parametrize(
        ("mask", "expected"),
        [
            (None, (0 + 1 + 2 + 1 - math.sqrt(0.5)) / 4),
            ([[1, 1], [1, 1]], (0 + 1 + 2 + 1 - math.sqrt(0.5)) / 4),
            ([[1, 1], [1, 0]], 1.0),  # one mean over all real positions, not a mean of rows' means (1.25)
            ([[0, 0], [0, 1]], 1 - math.sqrt(0.5)),
            ([[0, 0], [0, 0]], 0.0),
        ],
    )
    def test_by_hand(self, mask, expected):
        mask = None if mask is None else torch.tensor(mask)
        assert cosine_mapping_loss(self.mapped, self.target, mask, False).item() == pytest.approx(expected, abs=1e-6)

    def test_padding_may_hold_anything(self):
        mapped = self.mapped.clone()
        mapped[1, 1] = float("nan")
        mapped.requires_grad_()
        loss = cosine_mapping_loss(mapped, self.target, torch.tensor([[1, 1], [1, 0]]), False)
        assert loss.item() == pytest.approx(1.0)

    def test_low_precision_is_computed_in_float32(self):
        loss = cosine_mapping_loss(self.mapped.bfloat16(), self.target.bfloat16(), None, False)
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx((4 - math.sqrt(0.5)) / 4, abs=1e-6)

    @pytest.mark.parametrize("detach", [True, False])
    def test_where_gradients_go(self, detach):
        mapped, target = self.mapped.clone().requires_grad_(), self.target.clone().requires_grad_()
        cosine_mapping_loss(mapped, target, torch.tensor([[1, 1], [1, 0]]), detach).backward()
        assert mapped.grad[0, 1].abs().max() > 0
        assert mapped.grad[1, 1].abs().max() == 0
        if detach:
            assert target.grad is None
        else:
            assert target.grad[0, 1].abs().max() > 0
            assert target.grad[1, 1].abs().max() == 0


class TestNextTokenLoss:
    def test_by_hand(self):
        logits = torch.tensor([[0.0, 0.0], [0.0, math.log(3.0)]])
        loss = next_token_loss(nn.Identity(), logits, torch.tensor([0, 1]), 2)
        assert loss.item() == pytest.approx((math.log(2) + math.log(4 / 3)) / 2)
        assert next_token_loss(nn.Identity(), logits.bfloat16(), torch.tensor([0, 1]), 2).dtype == torch.float32

    def test_a_label_is_predicted_from_the_position_before(self):
        hidden = torch.arange(12.0).view(2, 3, 2)
        labels = torch.tensor([[9, -100, 5], [-100, 7, 8]])
        selected, targets = select_labelled(hidden, labels)
        # The label of a row's first position is predicted from nothing: it is left out.
        assert targets.tolist() == [5, 7, 8]
        assert selected.tolist() == [hidden[0, 1].tolist(), hidden[1, 0].tolist(), hidden[1, 1].tolist()]

    def test_equals_the_mean_over_all_answer_tokens_of_the_batch(self):
        generator = torch.Generator().manual_seed(0)
        logits = torch.randn(2, 6, 11, generator=generator)
        labels = torch.randint(0, 11, (2, 6), generator=generator)
        labels[0, :4], labels[1, 2] = -100, -100
        selected, targets = select_labelled(logits, labels)
        losses = [
            -logits[row, position - 1].log_softmax(-1)[labels[row, position]]
            for row in range(2)
            for position in range(1, 6)
            if labels[row, position] != -100
        ]
        assert len(losses) == 6
        assert next_token_loss(nn.Identity(), selected, targets, 11).item() == pytest.approx(
            (sum(losses) / 6).item(), abs=1e-6
        )

    def test_nothing_to_predict(self):
        labels = torch.tensor([[4, -100, -100]])
        with pytest.raises(ValueError, match="No position carries a label"):
            select_labelled(torch.zeros(1, 3, 2), labels)


class Scaled(nn.Module):
    """Not a plain linear layer, as adapters and quantised heads are."""

    def __init__(self, linear):
        super().__init__()
        self.linear = linear

    def forward(self, hidden):
        return 3 * self.linear(hidden)


class TestChunks:
    """A chunk of 4 positions and a vocabulary of 50: what is held whole elsewhere comes in pieces."""

    def head(self):
        torch.manual_seed(0)
        return nn.Linear(8, 50, bias=False)

    def positions(self, count):
        generator = torch.Generator().manual_seed(1)
        hidden = torch.randn(count, 8, generator=generator, requires_grad=True)
        return hidden, torch.randint(0, 50, (count,), generator=generator)

    @pytest.fixture
    def small_chunks(self, monkeypatch):
        monkeypatch.setattr("fusionvl.model.losses.MAX_LOGITS", 4 * 50)

    @pytest.mark.parametrize("count", [1, 4, 5, 22])
    @pytest.mark.parametrize("wrap", [lambda head: head, Scaled])
    def test_equal_to_all_logits_at_once(self, small_chunks, count, wrap):
        results = []
        for compute in (
            lambda head, hidden, targets: next_token_loss(head, hidden, targets, 50),
            lambda head, hidden, targets: nn.functional.cross_entropy(head(hidden), targets),
        ):
            linear, (hidden, targets) = self.head(), self.positions(count)
            loss = compute(wrap(linear), hidden, targets)
            loss.backward()
            results.append((loss, hidden.grad, linear.weight.grad))
        for ours, plain in zip(*results, strict=True):
            assert (ours - plain).abs().max() < 1e-6

    def test_no_more_logits_than_a_chunk_at_once(self, small_chunks, count_calls):
        head, (hidden, targets) = self.head(), self.positions(22)
        calls = count_calls(head)
        loss = next_token_loss(head, hidden, targets, 50)
        forward = len(calls)
        loss.backward()
        assert sum(shape[0] for (shape,) in calls[:forward]) == 22
        assert len(calls) == 2 * forward  # once more in the backward pass
        assert max(shape[0] for (shape,) in calls) <= 4

    def test_nothing_is_made_twice_where_one_chunk_holds_all(self, count_calls):
        head, (hidden, targets) = self.head(), self.positions(22)
        calls = count_calls(head)
        next_token_loss(head, hidden, targets, 50).backward()
        assert len(calls) == 1

    def test_under_autocast(self, small_chunks):
        head, (hidden, targets) = self.head(), self.positions(22)
        with torch.autocast("cpu", torch.bfloat16):
            loss = next_token_loss(head, hidden, targets, 50)
            plain = nn.functional.cross_entropy(head(hidden).float(), targets)
        loss.backward()
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(plain.item(), abs=1e-6)
        assert head.weight.grad.dtype == torch.float32

    def test_the_whole_model(self, tiny, monkeypatch):
        model = tiny.model().train()
        batch = tiny.batch([tiny.row(0, turns=2), tiny.row(1)], labels=True)
        gradients = []
        for limit in (2**25, 3 * 64):
            monkeypatch.setattr("fusionvl.model.losses.MAX_LOGITS", limit)
            model.zero_grad()
            model(**batch).loss.backward()
            gradients.append({name: parameter.grad.clone() for name, parameter in model.named_parameters()})
        for name, gradient in gradients[0].items():
            torch.testing.assert_close(gradients[1][name], gradient, atol=1e-6, rtol=1e-5, msg=name)
