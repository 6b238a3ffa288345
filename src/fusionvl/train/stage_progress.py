"""Progress on the screen: a bar with loss terms and the time left; plain lines where there is no terminal.

Knows numbers only.
"""

import logging
import time
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import timedelta
from typing import Self

from tqdm.auto import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from fusionvl.train.processes import is_first
from fusionvl.train.step_loss import TERMS

logger = logging.getLogger(__name__)
_SHOWN = ("loss", *TERMS, "contrastive_loss", "learning_rate", "tokens_per_second", "matmul_share", "padding")


class StageProgress:
    """Shows where a stage stands; a context manager.

    Args:
        stage: Its name.
        first_step: Steps done before.
        steps: All of them.
    """

    def __init__(self, stage: str, first_step: int, steps: int) -> None:
        self._stage, self._first_step, self._steps = stage, first_step, steps
        self._began = time.monotonic()
        self._bar = tqdm(
            total=steps,
            initial=first_step,
            desc=f"stage {stage}",
            unit="step",
            disable=None if is_first() else True,  # None: only where there is a terminal
            dynamic_ncols=True,
        )
        self._lines_above = ExitStack()

    def __enter__(self) -> Self:
        if not self._bar.disable:
            self._lines_above.enter_context(logging_redirect_tqdm())
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
        self._lines_above.close()

    def advance(self) -> None:
        """One step on."""
        self._bar.update()

    def show(self, step: int, values: Mapping[str, float]) -> None:
        """Show what was logged; without a terminal, as a line."""
        shown = {name: f"{values[name]:.3g}" for name in _SHOWN if name in values}
        self._bar.set_postfix(shown, refresh=False)
        if self._bar.disable:
            per_step = (time.monotonic() - self._began) / max(1, step - self._first_step)
            left = timedelta(seconds=round(per_step * (self._steps - step)))
            text = " ".join(f"{name}={value}" for name, value in shown.items())
            logger.info("stage %s step %d/%d %s, %s left", self._stage, step, self._steps, text, left)
