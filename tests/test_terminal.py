"""What reaches the terminal: names of files as text, never as orders; and no library's own remarks."""

import io
import os
import subprocess
import sys

import pytest
from PIL import Image

from fusionvl import cli
from fusionvl.terminal import chat, shown

RED = "\x1b[31mred\x1b[0m"


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        (RED, "\\x1b[31mred\\x1b[0m"),
        ("a\x07b\x9bc\x7f\r", "a\\x07b\\x9bc\\x7f\\r"),
        ("gpj.\u202eexe", "gpj.\\u202eexe"),
        (os.fsdecode(b"caf\xe9.png"), "caf\\udce9.png"),
        ("two\nlines\tand ünïcode 🙂 \u200d", "two\nlines\tand ünïcode 🙂 \u200d"),
    ],
)
def test_what_a_terminal_would_obey_is_shown(text, escaped):
    assert shown(text) == escaped
    assert shown(text).encode()


@pytest.mark.parametrize(
    "arguments",
    [
        ["ask", f"{RED}.png", "what?"],
        ["info", f"/nowhere/{RED}"],
        ["ask", "a.png", "what?", f"--{RED}"],
        ["ask", "a.png", "what?", f"--dtype={RED}"],
        ["train", f"{RED}.yaml"],
        ["serve", f"/nowhere/{RED}"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_errors_show_names_escaped(capsys, arguments):
    try:
        code = cli.main(arguments)
    except SystemExit as ended:
        code = ended.code
    assert code == 2
    told = capsys.readouterr().err
    assert "\x1b" not in told
    assert "\\x1b[31mred" in told


def test_a_chat_shows_them_too(capsys, monkeypatch):
    lines = iter([f"/image {RED}.png", "hello", "/quit"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(lines))
    chat(lambda messages: iter([RED]), None)
    captured = capsys.readouterr()
    assert "\\x1b[31mred" in captured.err
    assert "\\x1b[31mred" in captured.out
    assert "\x1b" not in captured.out + captured.err


def picture_that_makes_pillow_warn(path):
    """EXIF that ends in the middle of a tag."""
    content = io.BytesIO()
    Image.new("RGB", (30, 20), "teal").save(content, "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01\x03\0\x01\0")
    path.write_bytes(content.getvalue())


def test_remarks_of_the_image_library_do_not_reach_the_terminal(tmp_path):
    picture_that_makes_pillow_warn(tmp_path / "a.jpg")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}

    def run(*command):
        return subprocess.run(
            [sys.executable, *command], capture_output=True, text=True, check=False, env=environment, cwd=tmp_path
        )

    bare = run("-c", "from fusionvl.processing import load_image; load_image('a.jpg')")
    assert "Corrupt EXIF data" in bare.stderr, "else this test shows nothing"
    asked = run("-m", "fusionvl", "ask", "a.jpg", "what is it?", "--max-new-tokens", "1")
    assert asked.returncode == 0
    assert "EXIF" not in asked.stderr
    assert "Warning" not in asked.stderr
