"""The built-in benchmarks by name."""

from fusionvl.eval.task import Task
from fusionvl.eval.tasks import easy_vqa, own, yes_no

TASKS: dict[str, Task] = {task.name: task for module in (easy_vqa, own, yes_no) for task in module.TASKS}
"""All built-in benchmarks, in the order in which they are listed."""


def find_task(name: str) -> Task:
    """A benchmark.

    Raises:
        ValueError: When there is none of that name; lists those there are.
    """
    if name not in TASKS:
        raise ValueError(f"no built-in task is called {name!r}; there are {', '.join(TASKS)}")
    return TASKS[name]
