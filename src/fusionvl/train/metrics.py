"""A stage's log: rows of `metrics.jsonl` and `samples.jsonl`, trackers, and the plot of a whole run.

Every row names stage and step. The first process of a run writes, the others do nothing. Knows numbers only; progress
on the screen is in `stage_progress.py`.
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, Self

from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker, get_available_trackers

from fusionvl.data.extras import import_extra
from fusionvl.run_folder import RowFile, read_rows, write_rows
from fusionvl.train.processes import is_first
from fusionvl.train.step_loss import TERMS

METRICS, SAMPLES = "metrics.jsonl", "samples.jsonl"
TIMED = ("tokens_per_second", "matmul_share")
"""What a log row says about time; everything else is the same in every run of a recipe."""
_PANELS = {
    "loss": (*TERMS, "contrastive_loss"),
    "held-out accuracy": ("held_out_accuracy",),
    "gradient norm": ("grad_norm",),
}


def check_trackers(names: Sequence[str]) -> None:
    """Refuse trackers that are unknown or not installed.

    Raises:
        ValueError: With the name and those that there are.
        ModuleNotFoundError: When tensorboard is not installed.
    """
    if "tensorboard" in names:
        import_extra("tensorboard", extra="train", needed_for="report_to: [tensorboard]")
    there = [str(name) for name in get_available_trackers()]
    for name in names:
        if name not in there:
            reason = "is not installed" if name in LOGGER_TYPE_TO_CLASS else "is no tracker that accelerate knows"
            raise ValueError(f"report_to: {name} {reason}; there are: {', '.join(there) or 'none'}")


class StageLog:
    """The log of one stage of a run; a context manager.

    Args:
        output: The run's folder.
        stage: The stage's name.
        first_step: What was logged after it is forgotten: those steps are done again.
        trackers: Names of trackers that get the numbers, too.

    Raises:
        ValueError: When another process writes the log.
        CannotWriteError: When the disk is full.
    """

    def __init__(self, output: Path, stage: str, first_step: int, trackers: Sequence[str]) -> None:
        self._output = output
        self._stage = stage
        self._files: dict[str, RowFile] = {}
        self._trackers: list[GeneralTracker] = []
        if not is_first():
            return
        for name in (METRICS, SAMPLES):
            _forget_after(output / name, stage, first_step)
            self._files[name] = RowFile(output / name)
        for name in trackers:
            tracker_class = LOGGER_TYPE_TO_CLASS[name]
            folder = [output / f"stage-{stage}"] if tracker_class.requires_logging_directory else []
            self._trackers.append(tracker_class(name if folder else f"{output.name}-{stage}", *folder))
            self._trackers[-1].start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            file.close()
        for tracker in self._trackers:
            tracker.finish()

    def add(self, step: int, values: Mapping[str, Any], samples: Sequence[Mapping[str, Any]] = ()) -> None:
        """Keep what was measured at a step, and answers of the model that show it.

        Raises:
            CannotWriteError: When the disk is full.
        """
        if not self._files:
            return
        where = {"stage": self._stage, "step": step}
        self._files[METRICS].append({**where, **values})
        self._files[SAMPLES].append(*({**where, **sample} for sample in samples))
        for tracker in self._trackers:
            tracker.log(dict(values), step=step)

    def draw(self) -> None:
        """Draw the run so far."""
        if self._files:
            plot_metrics(self._output / METRICS)


def _forget_after(path: Path, stage: str, step: int) -> None:
    """Drop what a log says of a stage's steps that will be run again."""
    if path.exists():
        write_rows(path, [row for row in read_rows(path, dict) if row["stage"] != stage or row["step"] <= step])


def plot_metrics(path: Path) -> None:
    """Draw a `metrics.jsonl` as a PNG beside it: loss terms, held-out accuracy, gradient norm over all stages.

    Raises:
        ModuleNotFoundError: When matplotlib is not installed.
    """
    figures = import_extra("matplotlib.figure", extra="train", needed_for="the plot of a training run")
    rows = list(read_rows(path, dict))
    logged = {key.partition("/")[0] for row in rows for key in row}
    panels = [title for title, names in _PANELS.items() if logged.intersection(names)]
    if not panels:
        return
    figure = figures.Figure(figsize=(11, 2.2 * len(panels) + 0.6), layout="constrained")
    for axes, title in zip(figure.subplots(len(panels), sharex=True, squeeze=False)[:, 0], panels, strict=True):
        _draw_panel(axes, rows, _PANELS[title])
        axes.set_ylabel(title)
        if title != "held-out accuracy":
            axes.set_yscale("log")
    axes.set_xlabel("optimizer steps")
    figure.savefig(path.with_suffix(".png"), dpi=110)


def _draw_panel(axes: Any, rows: list[dict[str, Any]], names: tuple[str, ...]) -> None:
    begins = _begins_of_stages(rows)
    drawn = sorted({key for row in rows for key in row if key.partition("/")[0] in names})  # of each data set, too
    for name in drawn:
        points = [(begins[row["stage"]] + row["step"], row[name]) for row in rows if name in row]
        axes.plot(*zip(*points, strict=True), label=name, linewidth=1)
    for stage, begin in begins.items():
        axes.axvline(begin, color="0.8", linewidth=0.8)
        upright = {"rotation": 90, "va": "top", "fontsize": "small"}  # names of short stages must not overlap
        axes.text(begin, 0.98, f"stage {stage}", transform=axes.get_xaxis_transform(), color="0.4", **upright)
    if len(drawn) > 1:
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize="small")  # beside the lines, not on them


def _begins_of_stages(rows: list[dict[str, Any]]) -> dict[str, int]:
    """Where each stage begins among the steps of all."""
    lengths: dict[str, int] = {}
    for row in rows:
        lengths[row["stage"]] = max(lengths.get(row["stage"], 0), row["step"])
    return dict(zip(lengths, accumulate(lengths.values(), initial=0), strict=False))  # the last end begins nothing
