"""What a training run is: a typed recipe of stages. Every number is a named field; what cannot train is refused.

How a recipe is read from its file is in `recipe_loading.py`. Knows no tensors and opens no data.
"""

import math
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import yaml

from fusionvl.data.replacement import FaultPolicy

Precision = Literal["auto", "float32", "bfloat16"]
OptimizerName = Literal["adamw", "muon"]

_LARGEST_RATE = 100.0


def check_at_least(least: float, holder: Any, *names: str, within: str = "") -> None:
    """Refuse fields that are below a bound, or no finite number; None is no value.

    Args:
        least: The bound.
        holder: Whose fields they are.
        *names: Of the fields.
        within: What the fields' holder is called in a recipe, with a dot.

    Raises:
        ValueError: With the field, its value and the bound.
    """
    for name in names:
        value = getattr(holder, name)
        if value is not None and not (math.isfinite(value) and value >= least):
            raise ValueError(f"{within}{name} is {value}, and must be a finite number of at least {least}")


def check_schedule(holder: Any) -> None:
    """Refuse what cannot train of the fields that every optimizer's settings have.

    Raises:
        ValueError: With the field and its value.
    """
    check_at_least(0, holder, "warmup_ratio", "min_learning_rate_ratio", "weight_decay", "max_grad_norm")
    if not 0 <= holder.adam_beta2 < 1:
        raise ValueError(f"adam_beta2 is {holder.adam_beta2}, and must be from 0 to below 1")


def check_rate(what: str, rate: float) -> None:
    """Refuse a learning rate at which nothing is trained.

    Raises:
        ValueError: With the rate and the bound.
    """
    if rate > _LARGEST_RATE:
        raise ValueError(f"{what} {rate}, and nothing is trained at more than {_LARGEST_RATE}")


@dataclass
class LearningRates:
    """Peak learning rate of each part; 0 freezes the part.

    Attributes:
        vision_tower: The vision encoder.
        mapping: `vision_to_text` and `text_to_vision`.
        interaction_layers: The interaction layers.
        decoder: The language model and its head.
    """

    vision_tower: float
    mapping: float
    interaction_layers: float
    decoder: float


@dataclass
class MixtureData:
    """What a mixture names: CSV, LLaVA JSON, parquet, tar shards, easy-VQA; by file or written out in the recipe.

    Attributes:
        path: The mixture file, `datasets: [{json_path, sampling_strategy}]`, or one data file or folder alone;
            relative to the working directory.
        datasets: What would stand in such a file; either this or `path`.
        image_folder: For entries of the mixture without one of their own.
        mirror: Whether images are mirrored at random; only for data without left, right and writing.
        faults: What to do with corrupt and over-long samples.
    """

    path: str | None = None
    datasets: list[dict[str, Any]] | None = None
    image_folder: str | None = None
    mirror: bool = False
    faults: FaultPolicy = field(default_factory=FaultPolicy)

    def __post_init__(self) -> None:
        if (self.path is None) == (self.datasets is None):
            raise ValueError("data: give a mixture file as 'path', or its entries as 'datasets'")


@dataclass
class HeldOut:
    """Questions that are asked while training, about data that is not trained on.

    Attributes:
        data: Where they come from; the first question of each sample is asked. Either this or `share`.
        share: Of the pictures of the stages' own data, about so many are held out of all stages, and asked about. What
            is in a picture decides on which side it is.
        questions: How many of them; an answer counts when it is exactly the given one.
        shown: How many of them are written down with the model's answer.
        max_new_tokens: Bound on each answer.
    """

    data: MixtureData | None = None
    share: float | None = None
    questions: int = 256
    shown: int = 8
    max_new_tokens: int = 32

    def __post_init__(self) -> None:
        if (self.data is None) == (self.share is None):
            raise ValueError("held_out: give either 'data', or the 'share' of the stages' pictures to hold out")
        if self.share is not None and not 0 < self.share < 1:
            raise ValueError(f"held_out.share is {self.share}, and must be between 0 and 1")
        check_at_least(1, self, "questions", "max_new_tokens", within="held_out.")
        check_at_least(0, self, "shown", within="held_out.")


@dataclass
class Lora:
    """Low-rank adapters: the weights under them are frozen, adapters learn at the rate of their part.

    All projections of the decoder get them, and nothing else of the decoder is trained. Parts without adapters are
    trained in full, or frozen, as their learning rates say.

    Attributes:
        rank: Width of an adapter.
        alpha: What an adapter computes is scaled by `alpha / rank`.
        dropout: Share of an adapter's inputs that are dropped.
        mapping: Whether `vision_to_text` and `text_to_vision` get adapters instead of being trained in full.
        interaction_layers: Whether the interaction layers do.
        base: How the decoder's projections are held under their adapters; `nf4` is QLoRA.
    """

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    mapping: bool = False
    interaction_layers: bool = False
    base: Literal["float32", "bfloat16", "nf4"] = "float32"

    def __post_init__(self) -> None:
        check_at_least(1, self, "rank", within="lora.")
        check_at_least(0, self, "alpha", "dropout", within="lora.")
        if self.dropout >= 1:
            raise ValueError(f"lora.dropout is {self.dropout}, a share of the inputs: it must be below 1")

    @property
    def parts(self) -> list[str]:
        """The parts that get adapters."""
        return ["decoder", *["mapping"] * self.mapping, *["interaction_layers"] * self.interaction_layers]


@dataclass
class StageConfig:
    """One training stage (paper, section 4): what it sees, how long, and how fast each part learns.

    Attributes:
        name: The stage's name: 1, 1.5 or 2.
        data: Where samples come from.
        max_steps: Optimizer steps; either this or `epochs`.
        epochs: Passes over the data, the last step filled up from the next pass.
        batch_size: Rows of a forward pass on one device.
        gradient_accumulation: Forward passes of an optimizer step; several processes share them.
        learning_rates: Peak learning rate of each part.
        num_latents: Counts of latent tokens, one drawn for each optimizer step.
        optimizer: `adamw`, or `muon` for matrices and AdamW for the rest; rates and decay mean the same for both.
        warmup_ratio: Share of the steps in which the learning rate rises.
        min_learning_rate_ratio: Share of the peak that the cosine falls to.
        weight_decay: For matrices; biases, norms and embeddings have none.
        adam_beta2: Decay of AdamW's second moment; 0.999 is usual, less follows quick changes better.
        max_grad_norm: Gradients are clipped to this norm.
        max_length: Most tokens of a row; conversations are cut at whole turns.
        lora: Adapters to train in place of the decoder; None trains all of every part.
    """

    name: str
    data: MixtureData
    batch_size: int
    learning_rates: LearningRates
    num_latents: list[int]
    max_steps: int | None = None
    epochs: float | None = None
    gradient_accumulation: int = 1
    optimizer: OptimizerName = "adamw"
    warmup_ratio: float = 0.03
    min_learning_rate_ratio: float = 0.0
    weight_decay: float = 0.0
    adam_beta2: float = 0.999
    max_grad_norm: float = 1.0
    max_length: int = 4096
    lora: Lora | None = None

    def __post_init__(self) -> None:
        try:
            self._check()
        except ValueError as error:
            raise ValueError(f"Stage {self.name}: {error}") from error

    def _check(self) -> None:
        if (self.max_steps is None) == (self.epochs is None):
            raise ValueError("give either max_steps or epochs: how long it is trained")
        check_at_least(1, self, "max_steps", "batch_size", "gradient_accumulation", "max_length")
        check_at_least(0, self, "epochs")
        check_schedule(self)
        if not self.num_latents or min(self.num_latents) < 0:
            raise ValueError(f"num_latents is {self.num_latents}: give counts to draw from, [0] for none")
        if 0 in self.num_latents and len(set(self.num_latents)) > 1:
            raise ValueError(
                f"num_latents {self.num_latents} mixes 0, which leaves the interaction layers out, with other counts; "
                f"processes that train together must all run all layers"
            )
        rates = vars(self.learning_rates)
        check_at_least(0, self.learning_rates, *rates, within="learning_rates.")
        check_rate("learning_rates hold", max(rates.values()))
        if not any(rates.values()):
            raise ValueError("learning_rates are all 0: nothing would be trained")
        frozen = [part for part in self.lora.parts if not rates[part]] if self.lora else []
        if frozen:
            raise ValueError(
                f"adapters learn at the rate of their part, and that of {' and '.join(frozen)} is 0: set "
                f"learning_rates.{frozen[0]}, or leave its adapters out"
            )

    @property
    def rows_of_a_step(self) -> int:
        """Rows of an optimizer step, of all processes together."""
        return self.batch_size * self.gradient_accumulation

    def steps(self, rows: int) -> int:
        """Optimizer steps over data of so many rows."""
        if self.max_steps is not None:
            return self.max_steps
        assert self.epochs is not None  # one of the two is given
        return max(1, math.ceil(self.epochs * rows / self.rows_of_a_step))

    def passes_of_each(self, processes: int) -> int:
        """Forward passes of an optimizer step in each of several processes.

        Raises:
            ValueError: When they cannot be shared evenly.
        """
        if self.gradient_accumulation % processes:
            raise ValueError(
                f"Stage {self.name}: {processes} processes cannot share the {self.gradient_accumulation} forward "
                f"passes of an optimizer step (gradient_accumulation) evenly: start another number of processes, or "
                f"change gradient_accumulation and, for the same global batch, batch_size"
            )
        return self.gradient_accumulation // processes


@dataclass
class ModelFromScratch:
    """A small model with a fresh decoder, and a tokenizer trained on text of the stages' data.

    Attributes:
        vision: Fields of a `SiglipVisionConfig` for a fresh encoder; or one that is trained, as in `ModelFromParts`.
        decoder: Fields of the decoder's config, `model_type` among them; vocabulary and special ids are filled in.
        fusion: Fields of `FusionConfig`.
        vocab_size: Size of the tokenizer's vocabulary.
        tokenizer_data: What the tokenizer is trained on in place of the stages' data, so that runs on other data can
            start from the same weights.
        attention: Attention implementation to train with; on a CPU small models are faster with `eager` in bfloat16
            and with `sdpa` in float32 (docs/performance.md).
        kind: Which starting point.
    """

    vision: str | dict[str, Any]
    decoder: dict[str, Any]
    fusion: dict[str, Any]
    vocab_size: int
    tokenizer_data: MixtureData | None = None
    attention: str = "eager"
    kind: Literal["scratch"] = "scratch"


@dataclass
class ModelFromParts:
    """A base language model and a SigLIP encoder, joined by fresh mapping MLPs and interaction layers.

    Attributes:
        decoder: The base language model: hub name, folder, or `package:NAME` for the folder of a Python package.
        vision: A SigLIP or SigLIP2 model (whole, or its vision part alone) or a FUSION, whose encoder is taken, by hub
            name, folder or `package:NAME/FOLDER`; or the fields of a `SiglipVisionConfig` for fresh weights.
        chat_template: The one the language model was trained with: `llama_3`, `phi_3`, `chatml`, or jinja text.
        fusion: Fields of `FusionConfig`.
        gguf_file: Name of a GGUF file in `decoder` to take language model and tokenizer from.
        attention: Attention implementation to train with.
        kind: Which starting point.
    """

    decoder: str
    vision: str | dict[str, Any]
    chat_template: str
    fusion: dict[str, Any] = field(default_factory=dict)
    gguf_file: str | None = None
    attention: str = "sdpa"
    kind: Literal["parts"] = "parts"


@dataclass
class ModelFromCheckpoint:
    """A whole FUSION, ours or released: to go on from an earlier stage, or to be taught something of one's own.

    Attributes:
        checkpoint: Hub name, folder or `package:NAME/FOLDER`; the shipped model is `package:fusionvl/assets/nano`.
        attention: Attention implementation to train with.
        kind: Which starting point.
    """

    checkpoint: str
    attention: str = "sdpa"
    kind: Literal["checkpoint"] = "checkpoint"


@dataclass
class Recipe:
    """A whole run: a starting point and the stages that follow.

    Attributes:
        name: Names the run and its output folder.
        model: The starting point.
        stages: In order; each starts from the one before.
        seed: Decides weights, order, latent counts and augmentation.
        precision: `auto` takes bfloat16 where the device computes in it.
        save_dtype: In what the final weights are stored.
        save_every: Steps between checkpoints.
        evaluate_every: Steps between measurements on held-out images.
        log_every: Steps between log lines.
        held_out: What to ask at these measurements; without it nothing is asked.
        report_to: Trackers that get the log besides `metrics.jsonl`: tensorboard, wandb, mlflow, ...
        data_workers: Processes that prepare batches.
        gradient_checkpointing: Whether the backward pass computes activations again instead of keeping them.
        compile: Whether the decoder's layers go through `torch.compile`; see docs/training.md for what it is worth.
    """

    name: str
    model: ModelFromScratch | ModelFromParts | ModelFromCheckpoint
    stages: list[StageConfig]
    seed: int = 0
    precision: Precision = "auto"
    save_dtype: Literal["float32", "bfloat16"] = "bfloat16"
    save_every: int = 200
    evaluate_every: int = 200
    log_every: int = 20
    held_out: HeldOut | None = None
    report_to: list[str] = field(default_factory=lambda: ["tensorboard"])
    data_workers: int = 1
    gradient_checkpointing: bool = False
    compile: bool = False

    def __post_init__(self) -> None:
        names = [stage.name for stage in self.stages]
        if not names:
            raise ValueError("stages is empty: there is nothing to train")
        check_at_least(1, self, "save_every", "evaluate_every", "log_every")
        check_at_least(0, self, "data_workers")
        if len(names) != len(set(names)):
            raise ValueError(f"Every stage of a recipe needs a name of its own, not {names}")
        if self.save_every % self.log_every:
            raise ValueError(
                f"save_every ({self.save_every}) must be a multiple of log_every ({self.log_every}): a log line is a "
                "mean since the line before, and a resumed run could not take it"
            )

    def select_stages(self, name: str) -> list[StageConfig]:
        """The stages to run: the one of this name, or all of them for `all`.

        Raises:
            ValueError: When the recipe has no such stage.
        """
        selected = [stage for stage in self.stages if name in ("all", stage.name)]
        if not selected and name != "all":
            raise ValueError(f"Recipe {self.name} has no stage {name}, only {[stage.name for stage in self.stages]}")
        return selected


def dump_recipe(recipe: Any) -> str:
    """A recipe, a dataclass, with every default filled in, as YAML."""
    return yaml.safe_dump(asdict(recipe), sort_keys=False)
