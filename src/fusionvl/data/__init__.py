"""Samples as they are on disk: questions, answers and undecoded images. Knows no tensors and no tokenizer."""

from fusionvl.data.sample import ImageRef, Message, Sample, Turn, to_messages

__all__ = ["ImageRef", "Message", "Sample", "Turn", "to_messages"]
