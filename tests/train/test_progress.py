"""Progress on the screen, where there is a terminal and where there is none."""

import logging
import os
import pty
import subprocess
import sys
import termios

from fusionvl.train.config import dump_recipe
from fusionvl.train.run import train


def test_lines_without_a_terminal(tmp_path, recipe, caplog):
    caplog.set_level(logging.INFO, logger="fusionvl")
    train(recipe, tmp_path / "out", "1")
    lines = [record.getMessage() for record in caplog.records if "step 3/4" in record.getMessage()]
    assert len(lines) == 1
    for shown in ("stage 1", "lm_loss=", "text_mapping_loss=", "vision_mapping_loss=", "left"):
        assert shown in lines[0]


def test_a_bar_in_a_terminal(tmp_path, recipe):
    path = tmp_path / "tiny.yaml"
    path.write_text(dump_recipe(recipe))
    screen, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (25, 160))
    command = [sys.executable, "-m", "fusionvl", "train", str(path), "--output", str(tmp_path / "out"), "--stage", "1"]
    done = subprocess.run(command, stderr=terminal, stdout=subprocess.PIPE, text=True, check=True)
    os.close(terminal)
    shown = b""
    while chunk := _read(screen):
        shown += chunk
    text = shown.decode()
    assert "stage 1: 100%" in text
    assert "4/4" in text
    assert "lm_loss=" in text
    assert "step 3/4" not in text, "the bar stands for the lines"
    assert "The trained model is in" in done.stdout


def _read(screen):
    try:
        return os.read(screen, 65536)
    except OSError:  # the other end is closed
        return b""
