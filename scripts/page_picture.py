"""Makes docs/page.png: the page of `fusionvl serve` with a conversation in which the shipped model is right.

    python scripts/page_picture.py docs/page.png

Fails, and writes nothing, when an answer is not the one given below. Needs the extra `dev` and Chromium.
"""

import argparse
import contextlib
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

from playwright.sync_api import Page, expect, sync_playwright

PICTURE = Path(__file__).parents[1] / "examples" / "triangle.png"  # one teal triangle, nothing else
RIGHT = {  # easy-VQA's own wordings; the answers are the picture's, not the model's
    "what shape is in the image?": "triangle",
    "what color is the shape?": "teal",
    "is there a teal triangle in the image?": "yes",
    "does the image contain a circle?": "no",
}
LOOKED_AT = "what color is the shape?"
SIZE = {"width": 1200, "height": 960}


@contextlib.contextmanager
def serving() -> Iterator[str]:
    """A server with the shipped model, on a free port; yields its address."""
    command = [sys.executable, "-m", "fusionvl", "serve", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            line = server.stdout.readline() if server.stdout else ""
            if " at http" not in line:
                raise ValueError(f"`fusionvl serve` printed no address but {line!r}: run it by hand to see why")
            url = line.split()[-1]
            for _ in range(300):  # until the model is loaded: else the first answer would seem as slow as that
                with contextlib.suppress(HTTPError), urlopen(f"{url}/health"):
                    break
                time.sleep(0.2)
            yield url
        finally:
            server.terminate()


def talk(page: Page) -> None:
    """Ask every question of RIGHT in one conversation, then show where the model looked for one of them."""
    expect(page.get_by_label("Model")).not_to_have_value("")
    page.locator("#file").set_input_files(PICTURE)
    expect(page.locator("#shown")).to_be_visible()
    for count, (question, answer) in enumerate(RIGHT.items(), start=1):
        page.get_by_label("Question").fill(question)
        page.get_by_role("button", name="Ask").click()
        expect(page.locator(".figures")).to_contain_text(["tokens read"] * count, timeout=60_000)
        expect(page.locator(".answer").last).to_have_text(answer)
    exchange = page.locator(".exchange").filter(has=page.get_by_text(LOOKED_AT, exact=True))
    exchange.get_by_role("button", name="Where did it look?").click()
    expect(page.locator("#overlay")).to_be_visible()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Make the picture of the page that the README shows.")
    parser.add_argument("target", type=Path, help="PNG to write, such as docs/page.png")
    arguments = parser.parse_args()
    chromium = shutil.which("chromium")
    if chromium is None:
        parser.error("Chromium is not installed (Debian: apt-get install chromium)")
    with serving() as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport=SIZE, color_scheme="light")
        page.goto(url)
        talk(page)
        page.screenshot(path=arguments.target)
        browser.close()
    print(f"{arguments.target}: {arguments.target.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
