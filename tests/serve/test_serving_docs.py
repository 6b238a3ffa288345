"""docs/small_server.md, word for word: commands and Python run against a server.

The tables of docs/small_server.md are the code's.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fusionvl.serve.app import ROUTES
from fusionvl.serve.connection import ConnectionLimits
from fusionvl.serve.errors import STATUS_OF_CODE
from fusionvl.serve.protocol import MAX_CHOICES
from fusionvl.serve.settings import MIB, Limits

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "small_server.md").read_text()


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
    question, stream, state = blocks(PAGE, "", "curl")
    answer = json.loads(run(["bash", "-euc", question], environment))
    assert answer["choices"][0]["message"]["content"] == "triangle"
    events = run(["bash", "-euc", stream], environment).strip().split("\n\n")
    assert events[-1] == "data: [DONE]"
    told = [json.loads(event.removeprefix("data: ")) for event in events[:-1]]
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in told[:-1]) == "teal"
    assert told[-1]["usage"]["completion_tokens"] > 0
    printed = run(["bash", "-euc", state.replace("\ncurl", "\necho\ncurl")], environment)
    assert '"id":"nano"' in printed
    assert '{"status":"ok"}' in printed
    assert '"error"' not in printed


def test_the_python_works(environment):
    (script,) = blocks(PAGE, "python", "openai")
    assert run([sys.executable, "-c", script], environment) == "triangle\n"


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
    there = {(method, re.sub(r"{\w+}", "{}", route.path)) for route in ROUTES for method in route.methods - {"HEAD"}}
    assert there == told


def test_the_limits_are_those_of_the_table():
    table = PAGE.partition("## Limits")[2].partition("## Errors")[0]
    limits, connections = Limits(), ConnectionLimits()
    told = [
        f"| {limits.body_bytes // MIB} MiB |", f"| {limits.body_marks:,} |", f"| {limits.body_seconds:g} s |",
        f"| {limits.bodies_bytes // MIB} MiB |",
        f"| {limits.image_bytes // MIB} MiB, {limits.image_pixels // 10**6} million pixels |",
        f"| {limits.prompt_characters:,} characters,", f"| `n` | {MAX_CHOICES} |", f"| {limits.max_new_tokens} |",
        f"| {limits.answer_seconds:g} s |", f"| {limits.waiting} |", f"| {limits.fetches}, the others wait |",
        f"| {limits.fetch_seconds:g} s, {limits.fetch_redirects} redirects |", f"| {connections.most}, or two thirds",
        f"| {connections.head_seconds:g} s |", f"| {connections.stall_seconds:g} s |",
    ]  # fmt: skip
    assert [words for words in told if words not in table] == []
