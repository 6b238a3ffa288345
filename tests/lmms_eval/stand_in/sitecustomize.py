"""Python imports this as it starts where the folder is in PYTHONPATH: the engine then answers what a file tells it to.

The file holds a list of (words of the question, answer); the words must fit exactly one question.
"""

import json
import os
from pathlib import Path

from fusionvl.engine.engine import Answer, FusionEngine

ANSWERS = json.loads(Path(os.environ["STAND_IN_ANSWERS"]).read_text())


def answer(engine, conversations, **settings):
    texts = ["".join(part.get("text", "") for part in messages[-1]["content"]) for messages in conversations]
    return [Answer(said(text), "stop", 1, 1) for text in texts]


def said(text):
    [known] = [answer for words, answer in ANSWERS if words.lower() in text.lower()]
    return known


FusionEngine.answer = answer
