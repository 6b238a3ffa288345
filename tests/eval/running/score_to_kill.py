"""`score_to_kill.py FOLDER [DIES_AT]`: scores 120 questions, for a test to kill; writes a line per question asked.

With DIES_AT, it kills itself when so many bytes of samples were written, in the middle of a line.
"""

import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

from stand_ins import TASK, FakeAnswerer, questions

from fusionvl.eval import sample_file
from fusionvl.eval.runner import run_task


class Slow(FakeAnswerer):
    def answer(self, batch, max_new_tokens):
        with (folder / "asked.log").open("a") as log:
            log.write("".join(f"{question.id}\n" for question in batch))
        time.sleep(0.01)
        return super().answer(batch, max_new_tokens)


class DyingFile(sample_file.SampleFile):
    written = 0

    def append(self, samples):
        data = b"".join(map(sample_file._to_line, samples))
        if DyingFile.written + len(data) > dies_at:
            self._file.write(data[: dies_at - DyingFile.written])
            self._file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        DyingFile.written += len(data)
        self._file.write(data)
        self._file.flush()


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    if len(sys.argv) > 2:
        dies_at = int(sys.argv[2])
        import fusionvl.eval.runner

        fusionvl.eval.runner.SampleFile = DyingFile
    task = replace(TASK, load=lambda _: questions(30))
    run_task(task, Slow(), folder, batch_size=4, show_progress=False)
