"""What fewer bits change: greedy tokens and logits of the reference checkpoints, whole against int8 and int4.

    python benchmarks/quantization.py

The checkpoints are tiny and random: nothing in them was trained to bear rounding, so this is the hard case. Each row
is asked for NEW_TOKENS greedy tokens; counted is how many of them the narrow model chooses, too, when it is given the
whole model's tokens before each. Then the time of a token, with layers as wide as those of a decoder of a billion
weights. What fewer bits cost a trained model: `fusionvl eval easy-vqa --quantize int8`; time and memory at full size:
`python benchmarks/rehearsal.py --preset 3b --quantize int8`.
"""

import argparse
import dataclasses
import functools
import tempfile
from pathlib import Path

import torch
from geometry import PRESETS, Placement, build_fusion
from measure import interleaved, print_ratios
from options import DTYPES, progress
from subjects import ask, asked_anew, fusion_prompt

from fusionvl.engine.loading import load_config, load_model
from fusionvl.engine.quantization import BITS, load_on_cpu
from fusionvl.engine.sources import shipped_model
from fusionvl.model import FusionForConditionalGeneration
from fusionvl.model.token_layout import IMAGE, LATENT, QUESTION_END, TEXT

REFERENCE = Path(__file__).parents[1] / "tests" / "reference" / "checkpoints"
NUM_LATENTS, NEW_TOKENS = 16, 16
WIDE = dataclasses.replace(
    PRESETS["small"], decoder_width=2048, decoder_mlp=5632, decoder_heads=16, decoder_key_value_heads=16,
    decoder_layers=4, interaction_layers=1, vocabulary=1024,
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10, help="random questions about random pictures")
    parser.add_argument("--rounds", type=int, default=5, help="of the times")
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
    print_speed(options.rounds)


def print_speed(rounds: int) -> None:
    """The time of a prefill and of a token, against those of the whole weights in float32."""
    places = {name: Placement(torch.device("cpu"), dtype, "sdpa") for name, dtype in DTYPES.items()}
    whole = build_fusion(WIDE, "masked", places["float32"])
    with tempfile.TemporaryDirectory() as folder:
        whole.save_pretrained(folder)
        models = {bits: load_on_cpu(folder, whole.config, torch.float32, bits) for bits in BITS}
        models |= {"float32": whole, "bfloat16": load_model(folder, torch.bfloat16).eval()}
    jobs = {}
    for name, model in models.items():
        model.generation_config.eos_token_id = None  # answers are as long as asked for
        prompt = fusion_prompt(WIDE, places["bfloat16" if name == "bfloat16" else "float32"], turns=1, seed=0)
        jobs[name] = functools.partial(ask, asked_anew(model, prompt), NEW_TOKENS)
    results = interleaved(jobs, tuple(jobs), rounds, progress)
    for stage in ("first_token", "token"):
        times = {name: [getattr(run, stage) for run in runs] for name, runs in results.items()}
        pairs = {f"{name} / float32": (times[name], times["float32"]) for name in times if name != "float32"}
        print_ratios(stage.replace("_", " ").upper(), pairs)


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
