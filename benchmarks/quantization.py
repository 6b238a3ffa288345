"""What fewer bits change: greedy tokens and logits of the reference checkpoints, whole against int8 and int4.

    python benchmarks/quantization.py

The checkpoints are tiny and random: nothing in them was trained to bear rounding, so this is the hard case. Each row
is asked for NEW_TOKENS greedy tokens; counted is how many of them the narrow model chooses, too, when it is given the
whole model's tokens before each. What fewer bits cost a trained model: `fusionvl eval easy-vqa --quantize int8`; time
and memory at full size: `python benchmarks/rehearsal.py --preset 3b --quantize int8`.
"""

import argparse
from pathlib import Path

import torch

from fusionvl.engine.loading import load_config, load_model
from fusionvl.engine.quantization import BITS, load_on_cpu
from fusionvl.engine.sources import shipped_model
from fusionvl.model import FusionForConditionalGeneration
from fusionvl.model.token_layout import IMAGE, LATENT, QUESTION_END, TEXT

REFERENCE = Path(__file__).parents[1] / "tests" / "reference" / "checkpoints"
NUM_LATENTS, NEW_TOKENS = 16, 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10, help="random questions about random pictures")
    options = parser.parse_args()
    print(f"{'checkpoint':<16}{'bits':<10}{'tokens equal':>14}{'logits, relative error':>26}")
    folders = [*sorted(REFERENCE.iterdir()), shipped_model()]
    for folder in folders:
        whole = load_model(str(folder), torch.float32).eval()
        rows = [random_row(whole, seed) for seed in range(options.rows)]
        expected = [greedy(whole, row) for row in rows]
        forms = {"bfloat16": load_model(str(folder), torch.bfloat16).eval()}
        config = load_config(str(folder))
        forms |= {bits: load_on_cpu(str(folder), config, torch.float32, bits) for bits in BITS}
        for name, narrow in forms.items():
            equal, error = compare(narrow, rows, expected)
            print(f"{folder.name:<16}{name:<10}{equal:>8} of {options.rows * NEW_TOKENS}{error:>26.4f}")


def random_row(model: FusionForConditionalGeneration, seed: int) -> dict[str, torch.Tensor]:
    """A question about a picture, as the processor lays it out; all of it random."""
    config, generator = model.config, torch.Generator().manual_seed(seed)
    kinds = [TEXT, *[IMAGE] * config.num_image_tokens, *[LATENT] * NUM_LATENTS, *[TEXT] * 9, QUESTION_END]
    types = torch.tensor([kinds])
    ids = torch.randint(3, min(250, config.text_config.vocab_size), types.shape, generator=generator)
    side = config.vision_config.image_size
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "mm_token_type_ids": types,
        "pixel_values": torch.rand(1, 5, 3, side, side, generator=generator) * 2 - 1,
        "guide_input_ids": ids[:, -10:-1],
    }


@torch.inference_mode()
def greedy(model: FusionForConditionalGeneration, row: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """The row with the model's own tokens behind it, and the logits (NEW_TOKENS, V) that chose them."""
    ids = model.generate(**row, max_new_tokens=NEW_TOKENS, min_new_tokens=NEW_TOKENS, do_sample=False)
    return ids, forced(model, row, ids)


@torch.inference_mode()
def forced(model: FusionForConditionalGeneration, row: dict[str, torch.Tensor], ids: torch.Tensor) -> torch.Tensor:
    """Logits (NEW_TOKENS, V) of a model that is given the tokens of another."""
    behind = (0, ids.shape[1] - row["input_ids"].shape[1])
    inputs = {**row, "input_ids": ids, "attention_mask": torch.ones_like(ids)}
    inputs["mm_token_type_ids"] = torch.nn.functional.pad(row["mm_token_type_ids"], behind)
    inputs["pixel_values"] = row["pixel_values"].to(model.dtype)
    return model(**inputs, logits_to_keep=NEW_TOKENS + 1).logits[0, :-1].float()


def compare(
    model: FusionForConditionalGeneration,
    rows: list[dict[str, torch.Tensor]],
    expected: list[tuple[torch.Tensor, torch.Tensor]],
) -> tuple[int, float]:
    """How many tokens are chosen alike, and the relative error of all logits."""
    found = [forced(model, row, ids) for row, (ids, _) in zip(rows, expected, strict=True)]
    logits = [logits for _, logits in expected]
    equal = sum(int((a.argmax(-1) == b.argmax(-1)).sum()) for a, b in zip(found, logits, strict=True))
    difference = torch.cat(found) - torch.cat(logits)
    return equal, float(difference.norm() / torch.cat(logits).norm())


if __name__ == "__main__":
    main()
