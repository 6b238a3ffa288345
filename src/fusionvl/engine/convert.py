"""Saves a released checkpoint in our layout, once, so that later loading needs no conversion.

Knows two folders; the layouts themselves are `model/released.py`'s and `processing/released.py`'s.
"""

import os
import shutil
from pathlib import Path

from fusionvl.engine.loading import load_model, load_processor


def convert(source: str, target: Path, vision_heads: int | None = None, *, with_processor: bool = True) -> None:
    """Read `source` (hub name or folder) and write `target`.

    Args:
        source: A checkpoint in either layout.
        target: The folder to write; it appears whole or not at all.
        vision_heads: Attention heads of a vision tower whose name is not known.
        with_processor: Whether to save tokenizer, chat template and image settings, too.

    Raises:
        ValueError: When the target exists, or the source cannot be read; with the reason.
    """
    if target.exists():
        raise ValueError(f"{target} exists already: remove it or choose another folder")
    # First the small part: a missing tokenizer is found before gigabytes are read.
    processor = load_processor(source) if with_processor else None
    model = load_model(source, "auto", vision_heads)
    unfinished = target.with_name(target.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    model.save_pretrained(unfinished)
    if processor is not None:
        processor.save_pretrained(unfinished)
    os.replace(unfinished, target)
