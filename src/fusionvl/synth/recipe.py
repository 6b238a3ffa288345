"""What a synthesis run is: a typed recipe, read from YAML: which rows, and what carries out each step.

Unknown or mistyped keys are errors, with the file and the key. What a row depends on (`identity`) is told apart from
what only decides how fast it comes about. Opens no data and starts nothing.
"""

from dataclasses import Field, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal

from fusionvl.data.recipe_file import read_recipe
from fusionvl.synth.progress import FuseSettings
from fusionvl.synth.scenes.drawing import MAX_SIZE, MIN_SIZE
from fusionvl.synth.scenes.things import Split
from fusionvl.synth.text_client import OPERATIONAL, Endpoint, LocalModel


@dataclass
class Template:
    """Text from the procedural scene itself: exact, and free.

    Attributes:
        kind: Which backend.
    """

    kind: Literal["template"] = "template"


@dataclass
class Procedural:
    """Images of procedural scenes.

    Attributes:
        size: Pixels of a side.
        drawings: The folder that `scripts/fetch_drawings.py` made, for kinds that show what artists have drawn.
        artists: Whose drawings are taken; all that are there when empty.
        processes: How many draw at once.
        kind: Which backend.
    """

    size: int = 384
    drawings: str | None = None
    artists: list[str] = field(default_factory=list)
    processes: int = field(default=1, metadata=OPERATIONAL)
    kind: Literal["procedural"] = "procedural"

    def __post_init__(self) -> None:
        if not MIN_SIZE <= self.size <= MAX_SIZE:
            raise ValueError(f"images: size must be from {MIN_SIZE} to {MAX_SIZE} pixels, not {self.size}")
        if self.processes < 1:
            raise ValueError(f"images: processes must be at least 1, not {self.processes}")


@dataclass
class Diffusion:
    """Images from a text-to-image pipeline of diffusers, one process per device.

    Attributes:
        model: Hub name or folder. Mind its licence: that of FLUX.1-dev, for one, forbids commercial use.
        width: Pixels.
        height: Pixels.
        steps: Denoising steps; without, the pipeline's default.
        guidance: Guidance scale; without, the pipeline's default.
        dtype: What to compute in.
        devices: `cpu`, `cuda:0`, ...
        batch_size: Most images of a call.
        offload: Whether parts of the model wait in main memory, for GPUs that cannot hold all of it.
        kind: Which backend.
    """

    model: str
    width: int = 1024
    height: int = 1024
    steps: int | None = None
    guidance: float | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    devices: list[str] = field(default_factory=lambda: ["cuda:0"], metadata=OPERATIONAL)
    batch_size: int = field(default=1, metadata=OPERATIONAL)
    offload: bool = field(default=False, metadata=OPERATIONAL)
    kind: Literal["diffusion"] = "diffusion"


Text = Template | Endpoint | LocalModel
Images = Procedural | Diffusion


@dataclass
class SynthRecipe:
    """A whole run.

    Attributes:
        name: Names the run and its output folder.
        rows: How many rows of each kind.
        describe: What writes descriptions.
        questions: What writes questions and answers.
        images: What draws.
        captions: What rows start from: a `.txt` file, one a line, or `.jsonl` with the field `caption`. Not for
            procedural scenes.
        source: Names where captions come from; part of every row's id.
        split: Which combinations of attributes procedural scenes may hold: `train` and `held-out` share none.
        seed: Another one gives other rows.
        language: What language models write in, whatever language captions are in.
        prompts: A folder with prompts that replace ours of the same names.
        shard_size: About how many rows a file holds.
        concurrency: How many rows are worked on at once.
        fuse: When the run stops by itself.

    Raises:
        ValueError: When the steps do not fit together.
    """

    name: str
    rows: dict[str, int]
    describe: Text
    questions: Text
    images: Images
    captions: str | None = None
    source: str = "scenes"
    split: Split = "train"
    seed: int = 0
    language: str = "English"
    prompts: str | None = None
    shard_size: int = 1000
    concurrency: int = field(default=64, metadata=OPERATIONAL)
    fuse: FuseSettings = field(default_factory=FuseSettings, metadata=OPERATIONAL)

    def __post_init__(self) -> None:
        from_scenes = isinstance(self.describe, Template)
        if isinstance(self.images, Procedural) and not from_scenes:
            raise ValueError("images: only a scene can be drawn procedurally: set describe to {kind: template}")
        if isinstance(self.questions, Template) and not from_scenes:
            raise ValueError("questions: templates only know scenes: set describe to {kind: template} as well")
        if from_scenes and self.captions is not None:
            raise ValueError("captions: scenes start from no caption; leave it out, or describe with a language model")
        if not from_scenes and self.captions is None:
            raise ValueError("captions: name a file of captions for the language model to describe")
        if self.concurrency < 1:
            raise ValueError(f"concurrency must be at least 1, not {self.concurrency}")


def identity(settings: Any) -> dict[str, Any]:
    """What rows depend on: the fields of a recipe, or of a part of it, without those that are only operational."""
    return {entry.name: _plain(getattr(settings, entry.name)) for entry in fields(settings) if not _is_free(entry)}


def _is_free(entry: "Field[Any]") -> bool:
    return bool(entry.metadata.get("operational"))


def _plain(value: Any) -> Any:
    return identity(value) if is_dataclass(value) else value


def load_synth_recipe(path: str | Path, overrides: list[str] | None = None) -> SynthRecipe:
    """Read a recipe.

    Args:
        path: A YAML file.
        overrides: `key.of.field=value`, applied over the file.

    Raises:
        ValueError: When the file is missing, a key is unknown, a value is of the wrong type, or the steps do not fit
            together; names file and key.
    """
    return read_recipe(SynthRecipe, path, overrides)
