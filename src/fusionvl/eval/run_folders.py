"""Finds the scored tasks in folders, and tells whose they are. Knows records and results; knows no questions."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fusionvl.eval.results import RESULTS, Results, read_results
from fusionvl.eval.run_record import RECORD, read_record

_OF_THE_TASK = ("task", "source", "max_new_tokens", "judge")


@dataclass(frozen=True)
class ScoredTask:
    """One model's scores on one task.

    Attributes:
        folder: Where they lie.
        model: The model's name.
        asked_how: All settings that are not the task's: weights, dtype, latent tokens.
        results: What they add up to.
    """

    folder: Path
    model: str
    asked_how: dict[str, Any]
    results: Results


def scored_tasks(folder: Path) -> tuple[list[ScoredTask], list[Path]]:
    """The tasks scored in a folder or below it, and the folders of those that are not finished.

    Raises:
        ValueError: When there are none.
    """
    if not folder.is_dir():
        raise ValueError(f"There is no folder {folder}")
    found, unfinished = [], []
    for path in sorted(folder.rglob(RECORD)):
        own = path.parent
        if not (own / RESULTS).is_file():
            unfinished.append(own)
            continue
        record = read_record(own)
        how = {name: value for name, value in record["settings"].items() if name not in _OF_THE_TASK}
        found.append(ScoredTask(own, record.get("model", own.name), how, read_results(own)))
    if not found:
        some = f"; {len(unfinished)} are not finished, start their command again" if unfinished else ""
        raise ValueError(f"{folder} holds no finished scores of `fusionvl eval`{some}")
    return found, unfinished


def by_model(scored: Iterable[ScoredTask]) -> dict[str, dict[str, ScoredTask]]:
    """Scores by model and task; models of one name that were asked differently are told apart by how.

    Raises:
        ValueError: When one model has several scores of one task.
    """
    models: dict[tuple[str, str], list[ScoredTask]] = {}
    for one in scored:
        models.setdefault((one.model, json.dumps(one.asked_how, sort_keys=True)), []).append(one)
    table = {}
    for (name, _), own in models.items():
        namesakes = [others[0].asked_how for (other, _), others in models.items() if other == name]
        table[_label(name, own[0].asked_how, namesakes)] = _by_task(own)
    return table


def _by_task(scored: Sequence[ScoredTask]) -> dict[str, ScoredTask]:
    tasks: dict[str, ScoredTask] = {}
    for one in scored:
        name = one.results.task
        if name in tasks:
            raise ValueError(f"{one.model} was scored on {name} twice: give {one.folder} or {tasks[name].folder}")
        tasks[name] = one
    return tasks


def _label(name: str, own: dict[str, Any], namesakes: Sequence[dict[str, Any]]) -> str:
    differing = [key for key, value in own.items() if any(other.get(key) != value for other in namesakes)]
    return ", ".join([name, *(f"{key} {_short(own[key])}" for key in differing)])


def _short(value: object) -> str:
    return str(value)[:8]
