"""One line of the files in which answers are kept as they come, so that a killed run of lmms-eval goes on.

lmms-eval's own response cache is filled when all answers are there; these files grow with every batch. Each process
appends to a file of its own and reads those of all, so a run may go on with another number of processes. Knows no
model and no lmms-eval.
"""

from dataclasses import dataclass
from pathlib import Path

from fusionvl.run_folder import read_rows

FINISHED = "finished"
"""Name of the folder, in that of a benchmark's scores."""


@dataclass(frozen=True)
class FinishedAnswer:
    """The answer to one request.

    Attributes:
        key: Of all that the answer depends on.
        task: The benchmark's name.
        doc_id: The question's number in it.
        image_id: Equal for equal images; empty without one.
        output: The model's words.
        output_tokens: How many tokens were generated for it.
        finish_reason: `stop` or `length`.
    """

    key: str
    task: str
    doc_id: int
    image_id: str
    output: str
    output_tokens: int
    finish_reason: str


def finished_file(folder: Path, rank: int) -> Path:
    """The file of a process."""
    return folder / f"finished-{rank}.jsonl"


def read_finished(folder: Path) -> list[FinishedAnswer]:
    """The answers of all processes; a line that is being written, or that a kill cut short, is left out.

    Raises:
        ValueError: When a line is no finished answer; with file and line.
    """
    paths = sorted(folder.glob("finished-*.jsonl"))
    return [answer for path in paths for answer in read_rows(path, lambda values: FinishedAnswer(**values))]
