"""A server with a scripted engine that many tests share, and pictures to send."""

import base64
import io
import sys
from pathlib import Path

import openai
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))

from running_server import running

from fusionvl.engine import FusionEngine


@pytest.fixture(scope="module")
def server():
    """One with every default."""
    with running() as server:
        yield server


@pytest.fixture(scope="session")
def shipped_server():
    """One with the shipped model, as `fusionvl serve` starts it."""
    with running("nano", FusionEngine.from_pretrained) as server:
        yield server


@pytest.fixture
def client(server):
    """The official client."""
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="session")
def png():
    """A picture of 30 x 20 pixels as bytes."""
    file = io.BytesIO()
    Image.new("RGB", (30, 20), "teal").save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="session")
def data_uri(png):
    """The same as a data URI."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
