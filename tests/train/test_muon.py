"""Muon: updates are near orthogonal and as torch's, whatever the shapes and the precision."""

import pytest
import torch
from torch import nn

from fusionvl.train import muon
from fusionvl.train.muon import Muon, orthogonal


@pytest.fixture(params=[True, False], ids=["bfloat16", "float32"])
def in_bfloat16(request, monkeypatch) -> bool:
    monkeypatch.setattr(muon, "multiplies_in_bfloat16", lambda device: request.param)
    return request.param


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 16, 48), (1, 48, 16)])
def test_singular_values_become_one_and_vectors_stay(in_bfloat16, shape):
    torch.manual_seed(0)
    matrices = torch.randn(shape) * 5
    made = orthogonal(matrices)
    assert made.shape == shape
    assert made.dtype == matrices.dtype
    assert torch.linalg.svdvals(matrices).amax() > 20
    values = torch.linalg.svdvals(made)
    assert values.max() < 1.3
    # The least singular value of a square matrix may be too small for five rounds.
    assert values[..., :-1].min() > 0.5
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    turned = left.mT @ made @ right.mT
    beside = turned - torch.diag_embed(torch.diagonal(turned, dim1=-2, dim2=-1))
    assert beside.abs().max() < (0.05 if in_bfloat16 else 1e-4)


def test_a_matrix_of_zeros_stays(in_bfloat16):
    assert torch.equal(orthogonal(torch.zeros(1, 4, 8)), torch.zeros(1, 4, 8))


def test_steps_are_those_of_torchs_but_for_rounding(in_bfloat16):
    torch.manual_seed(0)
    shapes = ((12, 12), (12, 40), (40, 12), (12, 12))
    ours = [nn.Parameter(torch.randn(shape)) for shape in shapes]
    torchs = [nn.Parameter(parameter.detach().clone()) for parameter in ours]
    start = [parameter.detach().clone() for parameter in ours]

    def groups(parameters):  # two of one shape in groups of different rates
        return [{"params": parameters[:3], "lr": 0.02}, {"params": parameters[3:], "lr": 0.05, "weight_decay": 0.0}]

    optimizer = Muon(groups(ours))
    other = torch.optim.Muon(groups(torchs), adjust_lr_fn="match_rms_adamw")
    for _ in range(4):
        for mine, its in zip(ours, torchs, strict=True):
            its.grad = torch.randn(its.shape)
            mine.grad = its.grad.clone()
        optimizer.step()
        other.step()
    for mine, its, first in zip(ours, torchs, start, strict=True):
        assert (mine - its).norm() < 0.05 * (its - first).norm()


def test_what_has_no_gradient_stays():
    still, moved = nn.Parameter(torch.ones(4, 4)), nn.Parameter(torch.ones(4, 4))
    optimizer = Muon([still, moved])
    moved.grad = torch.eye(4)
    optimizer.step()
    assert torch.equal(still, torch.ones(4, 4))
    assert not optimizer.state[still]
    assert not torch.equal(moved, torch.ones(4, 4))
