"""Losses against numbers worked out by hand, and where their gradients go."""

import math

import pytest
import torch

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
        loss = next_token_loss(logits, torch.tensor([0, 1]))
        assert loss.item() == pytest.approx((math.log(2) + math.log(4 / 3)) / 2)
        assert next_token_loss(logits.bfloat16(), torch.tensor([0, 1])).dtype == torch.float32

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
        assert next_token_loss(selected, targets).item() == pytest.approx((sum(losses) / 6).item(), abs=1e-6)

    def test_nothing_to_predict(self):
        labels = torch.tensor([[4, -100, -100]])
        with pytest.raises(ValueError, match="No position carries a label"):
            select_labelled(torch.zeros(1, 3, 2), labels)
