"""Operations by formula against what torch counts, and the peak that they are measured against."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from fusionvl.train.config import LearningRates
from fusionvl.train.freezing import freeze
from fusionvl.train.throughput import Throughput, matmul_peak, operations_of, operations_per_token

ALL, ONLY_DECODER = LearningRates(1e-3, 1e-3, 1e-3, 1e-3), LearningRates(0.0, 0.0, 0.0, 1e-3)


@pytest.fixture
def batch(tiny):
    return tiny.batch([tiny.row(number, num_latents=1) for number in range(3)], labels=True)


@pytest.mark.parametrize("rates", [ALL, ONLY_DECODER], ids=["all", "decoder"])
def test_the_formula_is_near_what_is_counted(tiny, batch, rates):
    """Guides and windows are left out of the formula; torch counts products, so attention is made of them here."""
    model = tiny.model().train()
    model.set_attn_implementation("eager")
    freeze(model, rates)
    with FlopCounterMode(display=False) as counter:
        model(**batch).loss.backward()
    expected = operations_of(batch, model.config, operations_per_token(model))
    assert expected == pytest.approx(counter.get_total_flops(), rel=0.1)


def test_what_is_frozen_costs_less(tiny):
    model = tiny.model()
    freeze(model, ALL)
    everything = operations_per_token(model)
    freeze(model, ONLY_DECODER)
    decoder = operations_per_token(model)
    assert decoder["vision_tower"] == everything["vision_tower"] // 2 == 2 * everything["vision_tower"] // 4
    assert decoder["decoder"] == everything["decoder"] * 4 // 6


def test_reports_begin_anew(tiny, batch):
    throughput = Throughput(tiny.model(), torch.device("cpu"), torch.float32)
    batch["attention_mask"][:] = 1
    batch["attention_mask"][0, -5:] = 0
    throughput.add(batch)
    report = throughput.report()
    assert report["padding"] == pytest.approx(5 / batch["attention_mask"].numel())
    assert report["tokens_per_second"] > 0
    assert report["matmul_share"] > 0
    batch["attention_mask"][:] = 1
    throughput.add(batch)
    assert throughput.report()["padding"] == 0


def test_a_peak_is_a_number_of_operations():
    assert 1e8 < matmul_peak(torch.device("cpu"), torch.float32) < 1e16
