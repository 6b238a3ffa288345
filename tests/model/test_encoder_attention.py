"""FUSION's attention in the encoder: torch's output, and gradients as near to float32 as torch's own in bfloat16."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from fusionvl.model import encoder_attention
from fusionvl.model.encoder_attention import attend

NAMES = ("output", "queries", "keys", "values")


@pytest.fixture(autouse=True, params=["with AMX", "in float32"])
def way(monkeypatch, request):
    """The rule is about speed; what is computed holds on every CPU."""
    monkeypatch.setattr(encoder_attention, "_has_amx", lambda: request.param == "with AMX")
    monkeypatch.setattr(encoder_attention, "_is_faster_in_float32", lambda: request.param == "in float32")
    return request.param


@pytest.fixture
def inputs():
    """Queries, keys, values and the gradient of the output."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(3, 2, tokens, 16, generator=generator) for tokens in (30, 37, 37, 30)]


def guide_padding():
    """(3, 1, 1, 37): the second image has two padded guide tokens, the third one five."""
    bias = torch.zeros(3, 1, 1, 37)
    bias[1, ..., -2:] = bias[2, ..., -5:] = torch.finfo(torch.bfloat16).min
    return bias


def run(inputs, bias, ours, dtype=torch.bfloat16, scaling=0.25):
    """Output (N, T, H, c) and the gradients of queries, keys and values."""
    *leaves, gradient = (tensor.to(dtype, copy=True).requires_grad_() for tensor in inputs)
    bias = None if bias is None else bias.to(dtype)
    if ours:
        output, _ = attend(torch.nn.Module(), *leaves, bias, scaling=scaling, dropout=0.0, is_causal=False)
    else:
        output = scaled_dot_product_attention(*leaves, attn_mask=bias, scale=scaling).transpose(1, 2)
    output.backward(gradient.transpose(1, 2))
    return [output.detach(), *(leaf.grad for leaf in leaves)]


def error(results, exact):
    return [((a.float() - b).norm() / b.norm()).item() for a, b in zip(results, exact, strict=True)]


@pytest.mark.parametrize("bias", [None, guide_padding()], ids=["all real", "guide padding"])
@pytest.mark.parametrize("held", [1, 2**21], ids=["head by head", "at once"])
def test_output_and_gradients_are_near_float32(monkeypatch, inputs, bias, held, way):
    monkeypatch.setattr(encoder_attention, "MAX_WEIGHTS", held)
    exact = run(inputs, bias, ours=False, dtype=torch.float32)
    ours, torchs = run(inputs, bias, ours=True), run(inputs, bias, ours=False)
    assert torch.equal(ours[0], torchs[0]) == (way == "with AMX")
    most = 2.5 if way == "with AMX" else 1.0  # scores are rounded to bfloat16, as in transformers' eager attention
    for name, mine, others in zip(NAMES, error(ours, exact), error(torchs, exact), strict=True):
        assert mine <= most * others < 0.02, name


def test_an_image_has_the_gradients_it_has_alone(inputs):
    together = run(inputs, guide_padding(), ours=True)
    for image in range(3):
        alone = run([tensor[[image]] for tensor in inputs], guide_padding()[[image]], ours=True)
        for name, a, b in zip(NAMES[1:], together[1:], alone[1:], strict=True):
            assert error([b], [a[[image]].float()])[0] < 0.01, name


def test_hidden_keys_get_no_gradient(inputs):
    _, _, of_keys, of_values = run(inputs, guide_padding(), ours=True)
    assert all(not gradient[2, :, -5:].any() and gradient[2, :, :-5].all() for gradient in (of_keys, of_values))


def test_what_needs_no_way_around_is_torchs_alone(monkeypatch, inputs, way):
    seen = []
    monkeypatch.setattr(encoder_attention, "sdpa_attention_forward", lambda _, *tensors, **__: seen.append(tensors))
    *inputs, _ = inputs
    short = [tensor.bfloat16() for tensor in inputs]
    learning = [tensor.clone().requires_grad_() for tensor in short]
    for tensors, dropout, is_causal in (
        (short, 0.0, False),
        ([tensor.requires_grad_() for tensor in inputs], 0.0, False),  # float32
        (learning, 0.1, False),
        (learning, 0.0, True),
    ):
        attend(torch.nn.Module(), *tensors, None, scaling=0.25, dropout=dropout, is_causal=is_causal)
        assert all(a is b for a, b in zip(seen.pop(), tensors, strict=False))
    with torch.no_grad():
        attend(torch.nn.Module(), *learning, None, scaling=0.25, dropout=0.0, is_causal=False)
    assert all(a is b for a, b in zip(seen.pop(), learning, strict=False))


def test_many_queries_are_answered_in_float32_where_that_is_faster(inputs, way):
    many = [tensor.repeat(1, 1, 5, 1) for tensor in inputs[:3]]
    with torch.autocast("cpu", torch.bfloat16):
        output, _ = attend(
            torch.nn.Module(), *(t.bfloat16() for t in many), None, scaling=0.25, dropout=0.0, is_causal=False
        )
    wide = scaled_dot_product_attention(*(t.bfloat16().float() for t in many), scale=0.25).transpose(1, 2)
    assert torch.equal(output, wide.bfloat16()) == (way == "in float32")
