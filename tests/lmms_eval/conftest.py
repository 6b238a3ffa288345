"""Tests with lmms-eval, which has an environment of its own.

`scripts/set_up_lmms_eval.sh VENV` makes it. The ordinary test run does not collect them. LMMS_EVAL_REQUIRED=1, which
CI sets when it runs them, makes a missing lmms-eval an error.
"""

import importlib.metadata
import os

import pytest

if not any(importlib.metadata.distributions(name="lmms-eval")):  # a module of that name may be this very folder
    if os.environ.get("LMMS_EVAL_REQUIRED"):
        raise ModuleNotFoundError(
            "lmms-eval is not installed here: run scripts/set_up_lmms_eval.sh and use its python"
        )
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session")
def engine():
    from fusionvl.engine import FusionEngine

    return FusionEngine.from_pretrained()


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """Without a network and with one thread; data sets of the hub are found in the working folder."""
    # PYTHONPATH: metadata of an older build in src would hide the installed entry point.
    for name in ("OPENAI_API_KEY", "API_TYPE", "PYTHONPATH"):
        monkeypatch.delenv(name, raising=False)
    settings = {"HF_HUB_OFFLINE": "1", "HF_HOME": tmp_path / "hf", "OMP_NUM_THREADS": 1}
    for name, value in {**settings, "TOKENIZERS_PARALLELISM": "false"}.items():
        monkeypatch.setenv(name, str(value))
