"""Stage 0: an encoder from captioned pictures, by SigLIP's own objective (Zhai et al. 2023, arXiv 2303.15343).

    fusionvl train recipes/encoder.yaml --output runs/encoder

Every picture is compared with every caption of its step, and each pair is told by itself: they belong together, or do
not. The paper takes such an encoder from a hub; this makes one where there is none. The result is an ordinary SigLIP
folder, `model`, which a recipe's `model.vision` names. Started again, a run goes on at its last checkpoint. Knows one
process; knows no FUSION.
"""

import hashlib
import logging
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader
from transformers import AutoTokenizer, SiglipConfig, SiglipModel, SiglipProcessor, SiglipVisionConfig
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from fusionvl.data.extras import import_extra
from fusionvl.data.mixture import Mixture
from fusionvl.data.replacement import FaultPolicy
from fusionvl.engine.loading import in_one_sentence
from fusionvl.run_folder import check_place, claim, discard, forget_unfinished, write_whole, written_whole
from fusionvl.train.base_weights import quiet
from fusionvl.train.captioned_pictures import (
    CaptionCollator,
    Captioned,
    CaptionedPictures,
    Steps,
    caption_of,
    normalized,
    recolored,
)
from fusionvl.train.checkpoints import checkpoints, load_checkpoint, save_checkpoint, step_of
from fusionvl.train.config import dump_recipe
from fusionvl.train.dataset import open_data
from fusionvl.train.encoder_recipe import EncoderRecipe, FreshEncoder, HeldOutPictures
from fusionvl.train.geometry import SMALLEST_VOCABULARY, siglip_config_of
from fusionvl.train.metrics import StageLog, check_trackers
from fusionvl.train.optimizers import clip_gradients, make_optimizers, rate_factor, take_step
from fusionvl.train.processes import own_device, world_size
from fusionvl.train.scratch import train_tokenizer, waves_2d
from fusionvl.train.stage import computes_in_bfloat16
from fusionvl.train.stage_progress import StageProgress

logger = logging.getLogger(__name__)
STAGE = "0"
_START = "start"
_SCALE, _BIAS = math.log(10.0), -10.0  # where SigLIP starts: almost no pair belongs together
_WHOLE = 0.15  # share of the steps, at the end, that see whole pictures
_CAPTIONS = 20_000  # that a tokenizer is trained on
_PACKAGES = ("fusionvl", "torch", "transformers", "tokenizers")


def pretrain(recipe: EncoderRecipe, output: Path) -> Path:
    """Train an encoder as a recipe says, from its last checkpoint on where there is one.

    Args:
        recipe: The run.
        output: Its folder: recipe, versions, log, checkpoints, and `model`, the result.

    Returns:
        The folder of the trained SigLIP.

    Raises:
        ValueError: When data or the starting point cannot be used, the folder belongs to another recipe, or the loss
            stops being finite.
        CannotWriteError: When the disk is full, or the output cannot be a folder.
        ModuleNotFoundError: When a package for training is not installed.
    """
    if world_size() > 1:
        raise ValueError("Stage 0 trains in one process: start it without torchrun")
    import_extra("matplotlib", extra="train", needed_for="the plot of a training run")
    check_trackers(recipe.report_to)
    check_place(output)
    mixture = open_data(recipe.data, recipe.seed)
    held_out = [(each, open_data(each.data, recipe.seed)) for each in recipe.held_out]
    settings = {**asdict(recipe), "data_fingerprint": mixture.fingerprint}
    result, start = output / "model", output / _START
    is_begun = result.is_dir() or any(output.glob("stage-*/checkpoint-*")) or any(output.glob("stage-*/model"))
    claim(output, settings, packages=_PACKAGES, is_begun=is_begun)
    forget_unfinished(output)
    if not is_begun and start.is_dir():  # of a recipe that may have been another one
        discard(start)
    write_whole(output / "recipe.yaml", dump_recipe(recipe))
    if not result.is_dir():
        _Pretraining(recipe, mixture, held_out, output).run(result)
    return result


@dataclass
class _Pretraining:
    """A run with its data open.

    Attributes:
        recipe: The run.
        mixture: What is trained on.
        held_out: What is measured on.
        output: The run's folder.
    """

    recipe: EncoderRecipe
    mixture: Mixture
    held_out: list[tuple[HeldOutPictures, Mixture]]
    output: Path

    def run(self, result: Path) -> None:
        recipe, folder = self.recipe, self.output / f"stage-{STAGE}"
        folder.mkdir(exist_ok=True)
        model, processor = self._start()
        model = model.train().to(own_device())
        optimizers = make_optimizers(model.named_parameters(), lambda _: (STAGE, recipe.learning_rate), recipe)
        checkpoint = next(reversed(checkpoints(folder)), None)
        first_step = 0 if checkpoint is None else step_of(checkpoint)
        if checkpoint is not None:
            load_checkpoint(checkpoint, model, optimizers)
        collate = CaptionCollator(processor.tokenizer, model.config.text_config.max_position_embeddings)
        side = model.config.vision_config.image_size
        sets = [(each.name, _batch_of(mixture, each.pictures, side, collate)) for each, mixture in self.held_out]
        logger.info(
            "Stage 0: %d steps of %d pictures%s, %s parameters in the encoder and %s in the text tower",
            recipe.max_steps,
            recipe.batch_size,
            f", going on after {first_step}" if first_step else "",
            f"{num_parameters(model.vision_model):,}",
            f"{num_parameters(model.text_model):,}",
        )
        with StageLog(self.output, STAGE, first_step, recipe.report_to) as log:
            loop = _Loop(model, optimizers, recipe, sets, log, folder)
            loop.run(self._loader(folder, side, collate, first_step), first_step)
            log.draw()
        with written_whole(result) as unfinished:
            model.eval().save_pretrained(unfinished)
            processor.save_pretrained(unfinished)

    def _start(self) -> tuple[SiglipModel, SiglipProcessor]:
        """The starting point, which the folder keeps: a run that goes on has the same tokenizer."""
        start = self.output / _START
        if not start.is_dir():
            model, processor = starting_encoder(self.recipe, self.mixture)
            with written_whole(start) as unfinished:
                model.save_pretrained(unfinished)
                processor.save_pretrained(unfinished)
        return _open_siglip(str(start))

    def _loader(self, folder: Path, side: int, collate: CaptionCollator, first_step: int) -> DataLoader[Captioned]:
        recipe = self.recipe
        return DataLoader(
            CaptionedPictures(self.mixture, side, recipe.data.faults, folder / "quarantine.jsonl"),
            batch_sampler=Steps(recipe.max_steps, recipe.batch_size, first_step),
            collate_fn=collate,
            num_workers=recipe.data_workers,
            persistent_workers=recipe.data_workers > 0,
            pin_memory=own_device().type == "cuda",
            generator=torch.Generator(),  # without one of its own it draws from torch's
        )


@dataclass
class _Loop:
    """The steps of a run.

    Attributes:
        model: In its place, in training mode.
        optimizers: Of its weights.
        recipe: The run.
        held_out: Names and batches of pictures to measure on.
        log: Of the run.
        folder: Where checkpoints go.
    """

    model: SiglipModel
    optimizers: list[Optimizer]
    recipe: EncoderRecipe
    held_out: list[tuple[str, dict[str, Any]]]
    log: StageLog
    folder: Path

    def run(self, batches: DataLoader[Captioned], first_step: int) -> None:
        recipe, losses = self.recipe, []
        with StageProgress(STAGE, first_step, recipe.max_steps) as progress:
            for step, batch in enumerate(batches, first_step + 1):
                loss, norm = self._take(step, batch)
                losses.append(loss)
                progress.advance()
                if self._is_time(step, recipe.log_every):
                    rate = recipe.learning_rate * rate_factor(recipe, step - 1, recipe.max_steps)
                    values = {"contrastive_loss": sum(losses) / len(losses), "grad_norm": norm, "learning_rate": rate}
                    losses = []
                    self.log.add(step, values)
                    progress.show(step, values)
                if self._is_time(step, recipe.evaluate_every):
                    self._measure(step)
                if self._is_time(step, recipe.save_every):
                    save_checkpoint(self.folder, step, self.model, self.optimizers)
                    self.log.draw()

    def _is_time(self, step: int, every: int) -> bool:
        return step % every == 0 or step == self.recipe.max_steps

    def _take(self, step: int, batch: dict[str, Any]) -> tuple[float, float]:
        """Take a step; returns its loss and the gradient's norm."""
        recipe, device = self.recipe, own_device()
        draws = torch.Generator().manual_seed(_seed_of(recipe.seed, step))
        pixels = recolored(normalized(batch["pixel_values"].to(device)), recipe.recolored, draws)
        share = recipe.dropped_patches if step <= (1 - _WHOLE) * recipe.max_steps else 0.0
        kept = kept_patches(len(pixels), self.model.config.vision_config, share, draws)
        with torch.autocast(device.type, torch.bfloat16, enabled=computes_in_bfloat16(recipe.precision)):
            pictures = picture_features(self.model, pixels, None if kept is None else kept.to(device))
            texts = caption_features(self.model, batch["input_ids"].to(device))
        logits = pictures.float() @ texts.float().T * self.model.logit_scale.exp() + self.model.logit_bias
        loss = sigmoid_loss(logits, batch["caption"].to(device))
        loss.backward()
        value, norm = loss.item(), clip_gradients(self.model, recipe.max_grad_norm)
        if not (math.isfinite(value) and math.isfinite(norm)):
            raise ValueError(
                f"Stage 0, step {step}: the loss ({value}) or its gradient ({norm}) is not finite on these pictures: "
                f"{', '.join(batch['rows'])}"
            )
        take_step(self.optimizers, rate_factor(recipe, step - 1, recipe.max_steps))
        return value, norm

    def _measure(self, step: int) -> None:
        shares = {f"held_out_accuracy/{name}": found_captions(self.model, batch) for name, batch in self.held_out}
        if shares:
            self.log.add(step, shares)
            told = ", ".join(f"{100 * share:.1f} % ({name.partition('/')[2]})" for name, share in shares.items())
            logger.info("Step %d: pictures that find their caption among all: %s", step, told)


def sigmoid_loss(logits: torch.Tensor, caption: torch.Tensor) -> torch.Tensor:
    """SigLIP's loss: for each picture, the log-likelihoods of belonging with its caption and with none of the others.

    Args:
        logits: (B, U), of each picture with each of U different captions.
        caption: (B,), which of them is the picture's.

    Returns:
        The sum over captions, the mean over pictures.
    """
    belongs = nn.functional.one_hot(caption, logits.shape[1])
    return -nn.functional.logsigmoid((2 * belongs - 1) * logits).sum(-1).mean()


def picture_features(model: SiglipModel, pixels: torch.Tensor, kept: torch.Tensor | None = None) -> torch.Tensor:
    """What SigLIP makes of pictures, of length 1 each, (B, width).

    Args:
        model: The SigLIP.
        pixels: (B, 3, side, side), from -1 to 1.
        kept: (B, K), the patches that are looked at; all of them without.
    """
    vision = model.vision_model
    hidden = vision.embeddings(pixels)
    if kept is not None:
        hidden = hidden.gather(1, kept[..., None].expand(-1, -1, hidden.shape[-1]))
    hidden = vision.encoder(inputs_embeds=hidden).last_hidden_state
    return nn.functional.normalize(vision.head(vision.post_layernorm(hidden)), dim=-1)


def caption_features(model: SiglipModel, input_ids: torch.Tensor) -> torch.Tensor:
    """What SigLIP makes of captions, of length 1 each, (U, width)."""
    return nn.functional.normalize(model.get_text_features(input_ids).pooler_output, dim=-1)


def kept_patches(
    count: int, config: SiglipVisionConfig, dropped: float, generator: torch.Generator
) -> torch.Tensor | None:
    """Patches of so many pictures that stay when a share of them is dropped, (count, K); None: all."""
    patches = (config.image_size // config.patch_size) ** 2
    kept = max(1, round((1 - dropped) * patches))
    if kept == patches:
        return None
    return torch.rand((count, patches), generator=generator).argsort(dim=1)[:, :kept]


@torch.inference_mode()
def found_captions(model: SiglipModel, batch: dict[str, Any]) -> float:
    """The share of pictures that are closer to their own caption than to any other of the batch."""
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    texts = caption_features(model, batch["input_ids"].to(device))
    parts = batch["pixel_values"].split(256)
    pictures = torch.cat([picture_features(model, normalized(part.to(device))) for part in parts])
    model.train(was_training)
    found = (pictures @ texts.T).argmax(-1)
    return float((found.cpu() == batch["caption"]).float().mean())


def starting_encoder(recipe: EncoderRecipe, mixture: Mixture) -> tuple[SiglipModel, SiglipProcessor]:
    """What a run starts from, in float32.

    Raises:
        ValueError: When a field does not exist or a size cannot be, or the checkpoint is no SigLIP.
    """
    given = recipe.encoder
    if not isinstance(given, FreshEncoder):
        return _open_siglip(given.checkpoint)
    if given.vocab_size < SMALLEST_VOCABULARY:
        raise ValueError(
            f"encoder.vocab_size is {given.vocab_size}, and a tokenizer has at least {SMALLEST_VOCABULARY}"
        )
    captions = {caption_of(mixture.read(mixture.order.at(place))) for place in range(min(len(mixture), _CAPTIONS))}
    tokenizer = train_tokenizer(sorted(captions), given.vocab_size)
    tokenizer.padding_side = "right"
    with quiet():  # transformers warns of its own defaults for captions' marks
        config = siglip_config_of(given.vision, given.text, len(tokenizer))
    torch.manual_seed(recipe.seed)
    model = SiglipModel(config)
    side = config.vision_config.image_size
    with torch.no_grad():
        model.logit_scale.fill_(_SCALE)
        model.logit_bias.fill_(_BIAS)
        grid = side // config.vision_config.patch_size
        model.vision_model.embeddings.position_embedding.weight.copy_(waves_2d(grid, config.vision_config.hidden_size))
    image_processor = SiglipImageProcessorPil(size={"height": side, "width": side})
    return model, SiglipProcessor(image_processor, tokenizer)


def _open_siglip(source: str) -> tuple[SiglipModel, SiglipProcessor]:
    with in_one_sentence(source, "SigLIP"), quiet():
        config = SiglipConfig.from_pretrained(source)
        if config.model_type != "siglip":
            raise ValueError(f"{source} is a {config.model_type} model: stage 0 trains a whole SigLIP")
        model = SiglipModel.from_pretrained(source, dtype=torch.float32, use_safetensors=True)
        processor = SiglipProcessor(
            SiglipImageProcessorPil.from_pretrained(source), AutoTokenizer.from_pretrained(source)
        )
    return model, processor


def _batch_of(mixture: Mixture, count: int, side: int, collate: CaptionCollator) -> dict[str, Any]:
    """The first pictures of a mixture as one batch, each row of it at most once."""
    pictures = CaptionedPictures(mixture, side, FaultPolicy(on_corrupt="error"))
    return collate([pictures[position] for position in range(min(count, len(mixture)))])


def num_parameters(module: nn.Module) -> int:
    """How many weights a module has."""
    return sum(parameter.numel() for parameter in module.parameters())


def _seed_of(seed: int, step: int) -> int:
    return int.from_bytes(hashlib.sha256(f"recolored/{seed}/{step}".encode()).digest()[:8], "big") >> 1
