"""Tests of our own by what they are called in commands."""

from pathlib import Path

from fusionvl.eval.paper_tasks import PAPER_TASKS
from fusionvl.eval.task import Task
from fusionvl.eval.tasks import easy_vqa_test, held_out_scenes, question_file

OWN = {
    "easy-vqa": ("easy-VQA, test", "the Python package easy-vqa: pip install 'fusionvl[easy-vqa]'"),
    "scenes": ("Generated scenes, held out", f"--data, {held_out_scenes.SOURCE}"),
    "FILE.jsonl": ("Own questions", "lines of id, image, question, answer or answers and, where not exact, metric"),
}
"""What `fusionvl eval tasks` lists beside the benchmarks: name -> title, where the questions come from."""


def own_task(name: str, data: Path | None = None) -> Task:
    """A test of our own, its questions read.

    Args:
        name: `easy-vqa`, `scenes`, or a file of questions.
        data: Folder of the scenes.

    Raises:
        ValueError: When there is none of that name, or its questions cannot be read.
    """
    if name.endswith(".jsonl"):
        return question_file.question_file(Path(name))
    if name.replace("_", "-") == "easy-vqa":
        return easy_vqa_test.easy_vqa_test()
    if name != "scenes":
        known = ", ".join([*OWN, *PAPER_TASKS])
        raise ValueError(f"no test is called {name!r}; there are {known}")
    if data is None:
        raise ValueError(f"scenes: give --data, {held_out_scenes.SOURCE}")
    return held_out_scenes.held_out_scenes(data)
