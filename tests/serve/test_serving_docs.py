"""docs/serving.md and the README's quick start, word for word: their commands and their Python run against a server.

The tables of docs/serving.md are the code's.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fusionvl.serve.errors import STATUS_OF_CODE

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "serving.md").read_text()
README = (ROOT / "README.md").read_text()


def blocks(page, language, word):
    """The blocks of a page that hold a word."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    return [block for own, block in found if own == language and word in block]


@pytest.fixture
def environment(shipped_server):
    return {**os.environ, "URL": shipped_server.url}


def run(command, environment):
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, check=True)
    return done.stdout


def test_the_commands_work(environment):
    """Each block is one script; what `curl` prints is looked at line by line."""
    files, stream, state = blocks(PAGE, "", "curl")
    printed = run(["bash", "-euc", files.replace("\ncurl", "\necho\ncurl")], environment).split("\n")
    answer, listed, file, deleted = (json.loads(line) for line in printed if line)
    assert answer["choices"][0]["message"]["content"] == "triangle"
    assert listed["data"] == [file]
    assert deleted["deleted"]
    events = run(["bash", "-euc", stream], environment).strip().split("\n\n")
    assert events[-1] == "data: [DONE]"
    told = [json.loads(event.removeprefix("data: ")) for event in events[:-1]]
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in told[:-1]) == "teal"
    assert told[-1]["usage"]["completion_tokens"] > 0
    printed = run(["bash", "-euc", state.replace("\ncurl", "\necho\ncurl")], environment)
    assert '"id":"nano"' in printed
    assert '{"status":"ready"}' in printed
    assert "fusionvl_answer_tokens_total" in printed
    assert '"error"' not in printed


def test_the_command_of_the_readme_works(environment):
    (command,) = blocks(README, "", "curl")
    answer = json.loads(run(["bash", "-euc", command], environment))
    assert answer["choices"][0]["message"]["content"] == "triangle"


@pytest.mark.parametrize(
    ("page", "answer"), [(PAGE, "triangle\n"), (README, "teal\n")], ids=["serving.md", "README.md"]
)
def test_the_python_works(environment, page, answer):
    (script,) = blocks(page, "python", "openai")
    assert run([sys.executable, "-c", script], environment) == answer


def test_every_code_is_in_the_table_with_its_status():
    table = PAGE.partition("## Errors")[2].partition("##")[0]
    told = {
        code: int(status)
        for codes, status in re.findall(r"^\| (`.*?`) \| (\d+) \|", table, re.MULTILINE)
        for code in re.findall(r"`(\w+)`", codes)
    }
    assert told == STATUS_OF_CODE


def test_every_endpoint_is_in_the_table():
    table = PAGE.partition("## Endpoints")[2].partition("**Chat")[0]
    told = {(method, re.sub(r"{\w+}", "{}", path)) for method, path in re.findall(r"`([A-Z]+) (/\S*?)`", table)}
    from fusionvl.serve.app import router

    there = {(method, re.sub(r"{\w+}", "{}", route.path)) for route in router.routes for method in route.methods}
    assert there <= told
    assert told - there == {("GET", "/openapi.json")}
