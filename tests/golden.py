"""What the released code computed (tests/reference), read for the tests that compare with it."""

import hashlib
import json

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from fusionvl.model import FusionForConditionalGeneration

CHECKPOINTS = ("llama-siglip", "llama-siglip2", "phi-siglip")
CASES = {
    "one_turn.latent4": 4,
    "one_turn.latent16": 16,
    "three_turns.latent4": 4,
    "three_turns.latent16": 16,
    "padded_batch.latent4": 4,
}
IMAGE_MARKER, LATENT_MARKER, QUESTION_END_LABEL = -200, -300, -400
PADDING = 3


class Golden:
    def __init__(self, folder, name):
        path = folder / "golden" / f"{name}.safetensors"
        self.tensors = load_file(path)
        with safe_open(path, "pt") as file:
            self.full_set = json.loads(file.metadata()["full_set"])
        self.model = FusionForConditionalGeneration.from_pretrained(folder / "checkpoints" / name).eval()
        self.pixels = read_pixels(folder / "golden", self.full_set["pixel_values_uint8"]).float() / 127.5 - 1

    def case(self, name):
        return {key[len(name) + 1 :]: value for key, value in self.tensors.items() if key.startswith(f"{name}.")}

    def inputs(self, name, side="right"):
        case = self.case(name)
        images = self.pixels[: case["input_ids"].shape[0]]
        layout = expand(self.model.config, case, CASES[name], side)
        return {**layout, "pixel_values": images, "guide_input_ids": case["instructs"]}


def read_pixels(folder, full):
    """The views that the released code saw, or no comparison at all."""
    count, views, channels, height, width = full["shape"]
    pictures = np.stack([np.array(Image.open(folder / f"views_{index}.png")) for index in range(count)])
    pixels = pictures.reshape(count, views, height, width, channels).transpose(0, 1, 4, 2, 3)
    assert hashlib.sha256(np.ascontiguousarray(pixels)).hexdigest() == full["sha256"]
    return torch.from_numpy(pixels)


def expand(config, case, num_latents, side="right"):
    """Markers of the released layout -> our expanded rows; padding is dropped and put back on the chosen side."""
    rows = []
    for row, ids in enumerate(case["input_ids"].tolist()):
        labels = case["labels"][row].tolist() if "labels" in case else [-100] * len(ids)
        ends = case["question_end"][row].tolist() if "question_end" in case else [x == -400 for x in labels]
        real = case["attention_mask"][row].tolist() if "attention_mask" in case else [1] * len(ids)
        first = True
        tokens = []
        for token, label, end, kept in zip(ids, labels, ends, real, strict=True):
            if not kept:
                continue
            if token in (IMAGE_MARKER, LATENT_MARKER):
                placeholder = (config.image_token_id, 1, -100) if first else (config.latent_token_id, 2, -100)
                tokens += [placeholder] * (config.num_image_tokens if first else num_latents)
                first = False
            else:
                tokens.append((token, 3 if end else 0, -100 if label == QUESTION_END_LABEL else label))
        rows.append(tokens)
    length = max(map(len, rows))

    def column(index, filler):
        values = [[token[index] for token in row] for row in rows]
        paddings = [[filler] * (length - len(row)) for row in rows]
        pairs = zip(values, paddings, strict=True)
        return torch.tensor([v + p if side == "right" else p + v for v, p in pairs])

    layout = {"input_ids": column(0, PADDING), "mm_token_type_ids": column(1, 0)}
    layout["attention_mask"] = (column(0, -1) != -1).long()
    return layout | ({"labels": column(2, -100)} if "labels" in case else {})
