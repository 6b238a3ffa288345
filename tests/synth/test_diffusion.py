import asyncio

import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast, T5Config, T5EncoderModel

from fusionvl.synth.pictures import DiffusionStep, Drawing, is_flat, load_pipeline, side_by_side
from fusionvl.synth.recipe import Diffusion
from fusionvl.synth.rows import Row, seed_of

diffusers = pytest.importorskip("diffusers")


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    """A FLUX pipeline of about a hundred thousand random parameters."""
    torch.manual_seed(0)
    words = {word: number for number, word in enumerate(["<pad>", "<eos>", "<unk>", "a", "red", "apple"])}
    base = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    base.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=base, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", model_max_length=16
    )
    text = {"vocab_size": len(words), "hidden_size": 32, "intermediate_size": 37, "num_hidden_layers": 2}
    clip = CLIPTextConfig(**text, num_attention_heads=4, max_position_embeddings=16, eos_token_id=1, pad_token_id=0)
    t5 = T5Config(vocab_size=len(words), d_model=32, d_kv=8, d_ff=37, num_layers=1, num_heads=4)
    folder = tmp_path_factory.mktemp("pipeline")
    diffusers.FluxPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        vae=diffusers.AutoencoderKL(
            latent_channels=1, block_out_channels=(4, 4, 4, 4), layers_per_block=1, norm_num_groups=1, sample_size=32,
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
            use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.0609, scaling_factor=1.5035,
        ),
        text_encoder=CLIPTextModel(clip),
        tokenizer=tokenizer,
        text_encoder_2=T5EncoderModel(t5),
        tokenizer_2=tokenizer,
        transformer=diffusers.FluxTransformer2DModel(
            patch_size=1, in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=16,
            num_attention_heads=2, joint_attention_dim=32, pooled_projection_dim=32, axes_dims_rope=(4, 4, 8),
            guidance_embeds=True,
        ),
    ).save_pretrained(folder)  # fmt: skip
    return str(folder)


def settings(pipeline, **fields):
    return Diffusion(pipeline, width=64, height=48, steps=2, dtype="float32", devices=["cpu"], **fields)


def row(description="A red apple."):
    return Row(id="a" * 32, kind="SynthColor", description=description)


def test_an_image_follows_from_prompt_and_seed(pipeline):
    draw = load_pipeline(settings(pipeline), "cpu")
    one, other, again = (draw([Drawing("a red apple", seed)])[0] for seed in (1, 2, 1))
    assert one.size == (64, 48)
    assert one.tobytes() == again.tobytes()
    assert one.tobytes() != other.tobytes()
    assert not is_flat(one)


@pytest.mark.slow
def test_a_row_is_drawn_in_a_worker_process(pipeline, tmp_path):
    """Slow, as the process has torch and diffusers to import."""
    step = DiffusionStep(tmp_path, settings(pipeline))
    try:
        made = asyncio.run(step.run(row("Left image: A red apple.\nRight image: A green apple."), 3))
    finally:
        step.close()
    assert made.status == "open"
    assert step.is_done(made)
    assert made.image == f"images/00003/{made.id}.jpg"
    assert made.seeds == {"image": seed_of(made.id, "image"), "image.1": seed_of(made.id, "image.1")}
    assert made.models == {"image": pipeline}
    with Image.open(tmp_path / made.image) as image:
        assert image.size == (64 + 2 + 64, 48)
        assert image.getpixel((65, 24)) == pytest.approx((255, 255, 255), abs=40)  # the gap, but for JPEG


class Painter:
    """Stands where worker processes do, with images of a test's choice."""

    def __init__(self, *images):
        self.images = list(images)
        self.requests = []

    async def __call__(self, request):
        self.requests.append(request)
        return self.images.pop(0)


def painted(tmp_path, *images):
    step = DiffusionStep(tmp_path, Diffusion("model", devices=[]))
    step._workers = Painter(*images)
    return asyncio.run(step.run(row(), 0)), step._workers.requests


def picture():
    image = Image.new("RGB", (8, 8), "black")
    image.putpixel((3, 3), (200, 0, 0))
    return image


def test_a_black_image_is_drawn_again_with_another_seed(tmp_path):
    made, requests = painted(tmp_path, Image.new("RGB", (8, 8)), picture())
    assert made.status == "open"
    assert made.image
    assert requests[0].seed != requests[1].seed == made.seeds["image"]
    assert made.attempts == 2


def test_two_black_images_reject_the_row(tmp_path):
    made, _ = painted(tmp_path, Image.new("RGB", (8, 8)), Image.new("RGB", (8, 8)))
    assert (made.status, made.reason) == ("rejected", "image: the image is of one colour, twice")
    assert not list(tmp_path.rglob("*.jpg"))


def test_one_image_is_left_as_it_is():
    image = picture()
    assert side_by_side([image]) is image


def test_a_pipeline_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match="none cannot be loaded as a text-to-image pipeline"):
        load_pipeline(settings(str(tmp_path / "none")), "cpu")
