# SPDX-License-Identifier: Apache-2.0
"""A real Chromium, and `foreseg view` as a process: what a user has before them.

Run as a program it takes the pictures of docs/view.md: `python -m tests.support.browser docs/images`.
"""

from __future__ import annotations

import io
import itertools
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from foreseg.media.sinks import OverlayVideoWriter

ROOT = Path(__file__).resolve().parents[2]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WAIT_MS = 240_000  # the machine may be busy; nothing is expected to take so long
PLOT_MS = 5_000  # of health in the pictures
ROOTS = ("runtime", "simulation", ".")  # the last for reasoners of tests
# The command as its entry point makes it, also where the package is not installed anew.
COMMAND = (
    "import sys; sys.path[:0] = {roots!r}\n"
    "{first}\n"
    "import argparse; from foreseg_view.command import add_command\n"
    "from foreseg import cli\n"
    "parser = cli.Parser(prog='foreseg'); add_command(parser.add_subparsers())\n"
    "arguments = parser.parse_args(sys.argv[1:])\n"
    "with cli.ended_as_by_ctrl_c(): sys.exit(cli._run(arguments.handler, arguments))\n"
)


def chromium() -> str | None:
    """Where the browser is, or None."""
    return next((path for name in BROWSERS if (path := shutil.which(name))), None)


def write_clip(path: Path, *, seconds: float, size_wh: tuple[int, int], seed: int = 3) -> None:
    """A simulated scene as a video: a ball that rolls towards things."""
    from foreseg_simulation.foresight import SceneConfig
    from foreseg_simulation.scenes import make_scene

    scene = make_scene("hit", seed, SceneConfig(size_wh=size_wh, rate_hz=15))
    with OverlayVideoWriter(path, 15) as video:
        for frame in itertools.islice(scene.frames(), round(15 * seconds)):
            video.write(frame.image)


class ViewProcess:
    """`foreseg view` of a source; `url` once it serves."""

    def __init__(self, source: Path | str, *words: str, port: int = 0, first: str = "") -> None:
        code = COMMAND.format(roots=[str(ROOT / root) for root in ROOTS], first=first)
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, "view", str(source), "--port", str(port), *words],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        said = self.process.stdout.readline()
        assert said.startswith("open http://"), said
        self.url = said.split()[1]
        self.port = int(self.url.rpartition(":")[2].partition("/")[0])

    def stop(self) -> int:
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(WAIT_MS / 1000)
        if self.process.stdout is not None:
            self.process.stdout.close()
        return code


@contextmanager
def opened_browser() -> Iterator[Any]:
    """Playwright's browser over the installed Chromium."""
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=WAIT_MS)
    with sync_playwright() as playwright:
        # In a container Chromium cannot make its own; it opens nothing but our page.
        browser = playwright.chromium.launch(
            executable_path=chromium(), args=["--no-sandbox", "--disable-gpu"], timeout=WAIT_MS
        )
        yield browser
        browser.close()


def new_page(browser: Any, **options: Any) -> tuple[Any, list[str]]:
    """A page of its own, and what goes wrong in it."""
    page = browser.new_page(**options)
    page.set_default_timeout(WAIT_MS)
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("dialog", lambda dialog: (faults.append(f"dialog {dialog.message}"), dialog.dismiss()))
    return page, faults


def drag(page: Any, start: tuple[float, float], end: tuple[float, float]) -> None:
    """A box on the picture; places as parts of its size."""
    at = page.locator("#marks").bounding_box()
    page.mouse.move(at["x"] + start[0] * at["width"], at["y"] + start[1] * at["height"])
    page.mouse.down()
    page.mouse.move(at["x"] + end[0] * at["width"], at["y"] + end[1] * at["height"], steps=4)
    page.mouse.up()


def show_and_ask(page: Any, url: str, question: str) -> None:
    """Open the page and ask, as a user would."""
    from playwright.sync_api import expect

    page.goto(url)
    expect(page.locator("#caption")).to_contain_text("pictures/s")
    ask(page, question)
    expect(page.locator("#answers li.one")).not_to_have_count(0)


def ask(page: Any, question: str) -> None:
    """Type it, and press the button."""
    page.get_by_role("textbox", name="Question").fill(question)
    page.get_by_role("button", name="Ask", exact=True).click()


def take_pictures(folder: Path) -> None:
    """The screenshots of the documentation: wide in light and dark, and a phone."""
    from playwright.sync_api import expect

    with tempfile.TemporaryDirectory() as scratch, opened_browser() as browser:
        clip = Path(scratch) / "clip.mp4"
        write_clip(clip, seconds=20, size_wh=(640, 480))
        view = ViewProcess(clip, "--reasoner", "kinematic")
        try:
            page, _ = new_page(browser, viewport={"width": 1360, "height": 900})
            show_and_ask(page, view.url, "Which object will the ball hit next?")
            while not page.locator("#answers .OK").count():  # asked where nothing will be hit
                num_answers = page.locator("#answers li.one").count()
                ask(page, "Which object will the ball hit next?")
                expect(page.locator("#answers li.one")).to_have_count(num_answers + 1)
            num_answers = page.locator("#answers li.one").count()
            page.locator("#answers summary").first.click()
            page.get_by_role("button", name="Freeze").click()
            drag(page, (0.1, 0.58), (0.24, 0.8))
            expect(page.locator("#said")).to_contain_text("is tracked")
            ask(page, "What will leave the view next?")
            expect(page.locator("#answers li.one")).to_have_count(num_answers + 1)
            page.get_by_role("button", name="Back to live").click()
            expect(page.locator("#caption")).to_contain_text("pictures/s")
            page.wait_for_timeout(PLOT_MS)
            for scheme in ("light", "dark"):
                page.emulate_media(color_scheme=scheme)
                save_picture(page, folder / f"view_{scheme}.png", full_page=True)
            phone = {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark"}
            page, _ = new_page(browser, has_touch=True, is_mobile=True, **phone)
            page.goto(view.url)
            expect(page.locator("#caption")).to_contain_text("pictures/s")
            expect(page.locator("#answers li.one")).to_have_count(num_answers + 1)
            save_picture(page, folder / "view_phone.png")
        finally:
            view.stop()


def save_picture(page: Any, path: Path, **options: Any) -> None:
    """A screenshot in 256 colours."""
    from PIL import Image

    picture = Image.open(io.BytesIO(page.screenshot(**options))).convert("RGB")
    picture.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)


if __name__ == "__main__":
    take_pictures(Path(sys.argv[1]))
