"""The built-in benchmarks by name."""

from fusionvl.eval.task import Task
from fusionvl.eval.tasks import choice, easy_vqa, judged, open_answers, own, scenes, yes_no

_MODULES = (easy_vqa, scenes, yes_no, choice, open_answers, judged, own)

TASKS: dict[str, Task] = {task.name: task for module in _MODULES for task in module.TASKS}
"""All built-in benchmarks, in the order in which they are listed."""


def find_task(name: str) -> Task:
    """A benchmark.

    Raises:
        ValueError: When there is none of that name; lists those there are.
    """
    if name not in TASKS:
        raise ValueError(f"no built-in task is called {name!r}; there are {', '.join(TASKS)}")
    return TASKS[name]
