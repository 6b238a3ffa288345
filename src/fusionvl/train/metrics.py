"""The run's log: `metrics.jsonl`, a line for each measurement, and the plot of it.

Every line names stage and step. Knows numbers only; progress on the screen is in `progress.py`.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from fusionvl.data.extras import import_extra
from fusionvl.train.disk import write_text, writing

LOSS_TERMS = ("lm_loss", "text_mapping_loss", "vision_mapping_loss")
PANELS = {"loss": LOSS_TERMS, "held-out accuracy": ("held_out_accuracy",), "gradient norm": ("grad_norm",)}


def append_line(path: Path, line: dict[str, Any]) -> None:
    """Append one line to a JSONL file.

    Raises:
        CannotWriteError: When the disk is full.
    """
    with writing(path), path.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(line, ensure_ascii=False) + "\n")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """All whole lines of a JSONL file; none if it is not there. A last line that a kill cut short is left out."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def forget_after(path: Path, stage: str, step: int) -> None:
    """Drop what a JSONL file says of a stage's steps that will be run again."""
    kept = [line for line in read_lines(path) if line["stage"] != stage or line["step"] <= step]
    write_text(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in kept))


class MetricsFile(TrainerCallback):
    """Appends every log line to the run's `metrics.jsonl`, and draws the plot beside it at every checkpoint."""

    def __init__(self, path: Path, stage: str) -> None:
        self.path = path
        self.stage = stage

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: object,
    ) -> None:
        """Write the step with what was logged."""
        if state.is_world_process_zero:
            append_line(self.path, {"stage": self.stage, "step": state.global_step, **(logs or {})})

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Draw the run so far."""
        if state.is_world_process_zero:
            plot_metrics(self.path)


def plot_metrics(path: Path) -> None:
    """Draw a `metrics.jsonl` as a PNG beside it: loss terms, held-out accuracy, gradient norm over all stages.

    Raises:
        ModuleNotFoundError: When matplotlib is not installed.
    """
    figures = import_extra("matplotlib.figure", extra="train", needed_for="the plot of a training run")
    lines = read_lines(path)
    panels = [title for title, names in PANELS.items() if any(name in line for line in lines for name in names)]
    if not panels:
        return
    figure = figures.Figure(figsize=(11, 2.2 * len(panels) + 0.6), layout="constrained")
    for axes, title in zip(figure.subplots(len(panels), sharex=True, squeeze=False)[:, 0], panels, strict=True):
        _draw_panel(axes, lines, PANELS[title])
        axes.set_ylabel(title)
        if title != "held-out accuracy":
            axes.set_yscale("log")
    axes.set_xlabel("optimizer steps")
    figure.savefig(path.with_suffix(".png"), dpi=110)


def _draw_panel(axes: Any, lines: list[dict[str, Any]], names: tuple[str, ...]) -> None:
    position, borders = _positions(lines)
    drawn = {
        key for line in lines for key in line if key in names or key.startswith(tuple(f"{name}/" for name in names))
    }
    for name in sorted(drawn):
        points = [(position(line), line[name]) for line in lines if name in line]
        axes.plot([x for x, _ in points], [y for _, y in points], label=name, linewidth=1)
    for stage, border in borders.items():
        axes.axvline(border, color="0.8", linewidth=0.8)
        upright = {"rotation": 90, "va": "top", "fontsize": "small"}  # names of short stages must not overlap
        axes.text(border, 0.98, f"stage {stage}", transform=axes.get_xaxis_transform(), color="0.4", **upright)
    if len(drawn) > 1:
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize="small")  # beside the lines, not on them


def _positions(lines: list[dict[str, Any]]) -> tuple[Callable[[dict[str, Any]], int], dict[str, int]]:
    """Where a line stands among the steps of all stages, and where each stage begins."""
    lengths: dict[str, int] = {}
    for line in lines:
        lengths[line["stage"]] = max(lengths.get(line["stage"], 0), line["step"])
    borders: dict[str, int] = {}
    for stage in lengths:
        borders[stage] = sum(lengths[earlier] for earlier in borders)
    return lambda line: borders[line["stage"]] + line["step"], borders
