"""`score_to_kill.py FOLDER [DIES_AT]`: scores 120 questions, for a test to kill; writes a line per question asked.

With DIES_AT, it kills itself when so many bytes of answers were written, in the middle of a line.
"""

import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

from stand_ins import TASK, FakeAnswerer, questions, run

from fusionvl.run_folder import RowFile


class Slow(FakeAnswerer):
    def answer(self, batch, max_new_tokens):
        with (folder / "asked.log").open("a") as log:
            log.write("".join(f"{question.id}\n" for question in batch))
        time.sleep(0.01)
        return super().answer(batch, max_new_tokens)


class DyingFile:
    """A file that kills its process in the middle of what it writes."""

    def __init__(self, file):
        self.file, self.room = file, int(sys.argv[2])

    def write(self, data):
        written = self.file.write(data[: self.room])
        if len(data) > self.room:
            os.kill(os.getpid(), signal.SIGKILL)
        self.room -= written
        return written

    def __getattr__(self, name):
        return getattr(self.file, name)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    if len(sys.argv) > 2:
        enter = RowFile.__enter__
        RowFile.__enter__ = lambda self: setattr(self, "_file", DyingFile(self._file)) or enter(self)
    run(replace(TASK, questions=questions(30)), Slow(), folder, batch_size=4)
