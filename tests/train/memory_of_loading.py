"""Run by `torchrun` in test_distributed.py: how much memory a process needs to load its share of a model.

usage: memory_of_loading.py FOLDER. Each process writes its peak, in shares of all weights, to a file of its own.
"""

import sys
import threading
from pathlib import Path

import torch
from transformers import LlamaConfig, SiglipVisionConfig

from fusionvl.model import FusionConfig, FusionForConditionalGeneration
from fusionvl.train.config import LearningRates
from fusionvl.train.processes import is_first, meet, part, rank, wait, world_size
from fusionvl.train.stage_model import load_for_training

MEBIBYTES = 400  # of weights: far more than libraries need on the way


def write_model(folder):
    """Many layers of some width: a single one is little beside the whole."""
    text = LlamaConfig(vocab_size=512, hidden_size=1024, intermediate_size=4096, num_hidden_layers=6)
    vision = SiglipVisionConfig(hidden_size=64, intermediate_size=64, num_hidden_layers=3, num_attention_heads=2)
    config = FusionConfig(vision_config=vision, text_config=text, num_interaction_layers=1)
    torch.set_default_dtype(torch.bfloat16)  # half the file; it is read as float32 nevertheless
    FusionForConditionalGeneration(config).save_pretrained(folder)
    torch.set_default_dtype(torch.float32)


class PeakOfOwnMemory:
    """The growth of a process's own memory within a block; mapped files, which all processes share, are left out."""

    def __enter__(self):
        self._before, self.bytes, self._is_over = self._now(), 0, threading.Event()
        self._watch = threading.Thread(target=self._look)
        self._watch.start()
        return self

    def __exit__(self, *_):
        self._is_over.set()
        self._watch.join()

    def _look(self):
        while not self._is_over.wait(0.002):
            self.bytes = max(self.bytes, self._now() - self._before)

    @staticmethod
    def _now():
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))


def main(folder):
    meet()
    start = folder / f"start-{world_size()}"
    if is_first() and not start.exists():
        write_model(start)
    wait()
    rates = LearningRates(1e-3, 1e-3, 1e-3, 1e-3)
    with PeakOfOwnMemory() as most:
        model = load_for_training(start, rates, attention="eager")
    weights = sum(parameter.numel() for parameter in model.parameters()) * 4
    assert weights > MEBIBYTES * 2**20
    peak = most.bytes / weights
    print(f"peak of process {rank()} of {world_size()}: {peak:.2f} of {weights / 1e6:.0f} MB of weights")
    (folder / f"peak-{rank()}-of-{world_size()}").write_text(str(peak))
    part()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
