# SPDX-License-Identifier: Apache-2.0
"""The page in a real Chromium over a real `foreseg view`, from opening it to its server's restart."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("cv2", reason="needs OpenCV: pip install 'foreseg[view]'")
pytest.importorskip("starlette", reason="needs Starlette: pip install 'foreseg[view]'")
pytest.importorskip("onnxruntime", reason="needs ONNX Runtime: pip install 'foreseg[cpu]'")
pytest.importorskip("playwright", reason="needs playwright: pip install 'foreseg[browser]'")

from playwright.sync_api import expect
from tests.support.browser import (
    WAIT_MS,
    ViewProcess,
    chromium,
    new_page,
    opened_browser,
    show_and_ask,
    write_clip,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(chromium() is None, reason="needs Chromium: apt install chromium"),
]
HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script> what will it hit?"
expect.set_options(timeout=WAIT_MS)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("view") / "clip.mp4"
    write_clip(path, seconds=20, size_wh=(320, 240))
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with opened_browser() as found:
        yield found


@pytest.fixture(scope="module")
def view(clip: Path) -> Iterator[ViewProcess]:
    started = ViewProcess(clip, "--reasoner", "tests.support.odd_reasoner:make")
    yield started
    assert started.stop() == 0


def drag(page: Any, start: tuple[float, float], end: tuple[float, float]) -> None:
    at = page.locator("#marks").bounding_box()
    page.mouse.move(at["x"] + start[0] * at["width"], at["y"] + start[1] * at["height"])
    page.mouse.down()
    page.mouse.move(at["x"] + end[0] * at["width"], at["y"] + end[1] * at["height"], steps=4)
    page.mouse.up()


def test_a_question_is_answered_and_hostile_words_stay_text(
    browser: Any, view: ViewProcess
) -> None:
    page, faults = new_page(browser)
    show_and_ask(page, view.url, HOSTILE)
    answer = page.locator("#answers li.one").filter(has_text=HOSTILE)
    expect(answer.locator(".asked-words")).to_have_text(HOSTILE)
    expect(answer.locator(".status")).to_have_text("OK")
    expect(answer.locator(".words")).to_have_text("the middle")
    expect(answer.locator(".stages li").nth(3)).to_have_class(re.compile("now|done"))  # the hop
    expect(page.locator("#objects li")).not_to_have_count(0)
    answer.locator("summary").click()
    expect(answer.locator("details .thought")).to_contain_text("I look at the middle.")
    answer.locator(".inset").click()
    expect(page.locator("#caption")).to_contain_text("frozen at frame")
    assert page.locator("#answers script, #answers img[src=x]").count() == 0
    page.reload()
    expect(answer.locator(".asked-words")).to_have_text(HOSTILE)
    assert faults == []
    page.close()


def test_a_question_under_way_shows_its_stage_and_is_cancelled(
    browser: Any, view: ViewProcess
) -> None:
    page, faults = new_page(browser)
    page.goto(view.url)
    page.locator("#period").select_option("2")
    page.get_by_role("textbox", name="Question").fill("a slow one")
    page.keyboard.press("Enter")
    under_way = page.locator("#queries li").filter(has_text="a slow one")
    expect(under_way.locator(".stages .now")).to_have_text("thinking")
    expect(under_way.locator(".thought")).to_have_text("I look at the middle.")
    under_way.get_by_role("button", name="Stop").click()
    expect(page.locator("#said")).to_have_text("cancelled")
    expect(under_way).to_have_count(0)
    assert faults == []
    page.close()


def test_a_box_is_drawn_and_both_tabs_see_the_object(browser: Any, view: ViewProcess) -> None:
    page, faults = new_page(browser)
    other, _ = new_page(browser)
    for tab in (page, other):
        tab.goto(view.url)
        expect(tab.locator("#caption")).to_contain_text("pictures/s")
    before = page.locator("#objects li").count()
    page.get_by_role("button", name="Freeze").click()
    drag(page, (0.1, 0.58), (0.24, 0.8))
    for tab in (page, other):
        expect(tab.locator("#objects li")).to_have_count(before + 1)
    expect(page.locator("#said")).to_contain_text("is tracked")
    name = page.locator("#said").text_content().split()[0]
    row = page.locator(f"#objects li[data-key='{name}']")
    # A second click on the same frozen frame refines what the box has made.
    at = page.locator("#marks").bounding_box()
    page.mouse.click(at["x"] + 0.17 * at["width"], at["y"] + 0.69 * at["height"])
    expect(page.locator("#said")).to_have_text(f"{name} is refined")
    row.get_by_role("button", name="Rename").click()
    page.get_by_label("New name of").fill("the box <b>")
    page.keyboard.press("Enter")
    seen = other.locator(f"#objects li[data-key='{name}']")
    expect(seen.locator(".name")).to_have_text("the box <b>")
    seen.get_by_role("button", name="Remove").click()
    expect(page.locator("#objects li")).to_have_count(before)
    assert faults == []
    page.close()
    other.close()


def test_the_last_seconds_and_a_filmstrip_are_saved(
    browser: Any, view: ViewProcess, tmp_path: Path
) -> None:
    page, faults = new_page(browser)
    show_and_ask(page, view.url, "what is there?")
    with page.expect_download() as strip:
        page.get_by_role("button", name="Save as a filmstrip").first.click()
    assert strip.value.suggested_filename.endswith(".jpg")
    with page.expect_download() as recording:
        page.get_by_role("button", name="Save as a recording").click()
    recording.value.save_as(tmp_path / "recording.zip")
    with zipfile.ZipFile(tmp_path / "recording.zip") as archive:
        assert {"tracks.jsonl", "answers.jsonl", "trace.jsonl"} <= set(archive.namelist())
    assert faults == []
    page.close()


def test_the_picture_is_pointed_at_by_keys_alone(browser: Any, view: ViewProcess) -> None:
    page, faults = new_page(browser)
    page.goto(view.url)
    expect(page.locator("#caption")).to_contain_text("pictures/s")
    before = page.locator("#objects li").count()
    page.locator("#freeze").focus()
    page.keyboard.press("Space")
    page.locator("#marks").focus()
    page.keyboard.press("b")
    expect(page.locator("#said")).to_have_text("point at the object first, then beside it")
    page.keyboard.press("Escape")
    page.keyboard.press("x")
    for _ in range(6):
        page.keyboard.press("Shift+ArrowRight")
        page.keyboard.press("Shift+ArrowDown")
    page.keyboard.press("x")
    expect(page.locator("#objects li")).to_have_count(before + 1)
    assert faults == []
    page.close()


def test_every_control_has_a_name_and_text_has_contrast(browser: Any, view: ViewProcess) -> None:
    for scheme in ("light", "dark"):
        page, _ = new_page(browser, color_scheme=scheme, viewport={"width": 390, "height": 800})
        page.goto(view.url)
        expect(page.locator("#source")).not_to_be_empty()
        for control in page.locator("button:visible, input:visible, select, textarea").all():
            named = control.evaluate(
                "e => (e.ariaLabel || e.labels?.[0]?.textContent || e.textContent).trim()"
            )
            assert named, control.evaluate("e => e.outerHTML")
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= 390, "a phone scrolls down only"
        for name in ("--ink", "--soft", "--bad", "--good", "--warn", "--main"):
            for ground in ("--paper", "--card"):
                assert contrast(page, name, ground) >= 4.5, f"{scheme}: {name} on {ground}"
        assert contrast(page, "--on-main", "--main") >= 4.5
        page.close()


def test_a_page_connects_again_when_its_server_is_back(browser: Any, clip: Path) -> None:
    view = ViewProcess(clip)
    page, faults = new_page(browser)
    page.goto(view.url)
    expect(page.locator("#caption")).to_contain_text("pictures/s")
    assert view.stop() == 0
    expect(page.locator("#link")).to_contain_text("connecting again")
    page.get_by_role("textbox", name="Question").fill("who is there?")
    page.keyboard.press("Enter")
    expect(page.locator("#said")).to_contain_text("foreseg does not answer")
    again = ViewProcess(clip, port=view.port)
    try:
        expect(page.locator("#link")).to_have_text("connected")
        expect(page.locator("#caption")).to_contain_text("frame")
        assert faults == []
    finally:
        page.close()
        assert again.stop() == 0


def contrast(page: Any, ink: str, ground: str) -> float:
    """The ratio of WCAG 2.1, section 1.4.3, of two of the page's colours."""

    def luminance(name: str) -> float:
        words = page.evaluate(
            "name => getComputedStyle(document.documentElement).getPropertyValue(name)", name
        ).strip()
        channels = [int(words[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        r, g, b = (c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    dark, light = sorted((luminance(ink), luminance(ground)))
    return (light + 0.05) / (dark + 0.05)
