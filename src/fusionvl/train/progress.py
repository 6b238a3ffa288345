"""Progress on the screen: a bar with loss terms and the time left; plain lines where there is no terminal.

Knows the trainer's log only.
"""

import logging
import time
from contextlib import ExitStack
from datetime import timedelta

from tqdm.auto import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from fusionvl.train.metrics import LOSS_TERMS

logger = logging.getLogger(__name__)


class Progress(TrainerCallback):
    """Shows where a stage stands.

    Args:
        stage: Its name.
    """

    def __init__(self, stage: str) -> None:
        self.stage = stage

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Start the bar where the run stands."""
        self.first_step, self.began = state.global_step, time.monotonic()
        self.bar = tqdm(
            total=state.max_steps,
            initial=state.global_step,
            desc=f"stage {self.stage}",
            unit="step",
            disable=None if state.is_world_process_zero else True,  # None: only where there is a terminal
            dynamic_ncols=True,
        )
        self.lines_above = ExitStack()
        if not self.bar.disable:
            self.lines_above.enter_context(logging_redirect_tqdm())

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """One step on."""
        self.bar.update()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: object,
    ) -> None:
        """Show the loss terms; without a terminal, a line."""
        if logs is None or "loss" not in logs or not state.is_world_process_zero:
            return
        shown = ("loss", *LOSS_TERMS, "learning_rate")
        terms = {name: f"{logs[name]:.3g}" for name in shown if name in logs}
        self.bar.set_postfix(terms, refresh=False)
        if self.bar.disable:
            per_step = (time.monotonic() - self.began) / max(1, state.global_step - self.first_step)
            left = timedelta(seconds=round(per_step * (state.max_steps - state.global_step)))
            text = " ".join(f"{name}={value}" for name, value in terms.items())
            logger.info("stage %s step %d/%d %s, %s left", self.stage, state.global_step, state.max_steps, text, left)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Close the bar."""
        self.bar.close()
        self.lines_above.close()
