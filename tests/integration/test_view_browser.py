# SPDX-License-Identifier: Apache-2.0
"""The page in a real Chromium over a real `foreseg view`, from opening it to its server's restart."""

from __future__ import annotations

import json
import re
import time
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
    drag,
    new_page,
    opened_browser,
    show_and_ask,
    write_clip,
)
from tests.support.slow_link import SlowLink

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(chromium() is None, reason="needs Chromium: apt install chromium"),
]
HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script> what will it hit?"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("view") / "clip.mp4"
    write_clip(path, seconds=20, size_wh=(320, 240))
    return path


@pytest.fixture(scope="module")
def camera(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ViewProcess, Path]]:
    """A camera's page, nothing tracked, and the file that pulls it out as long as it is there."""
    pulled = tmp_path_factory.mktemp("camera") / "pulled"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FORESEG_TEST_PULLED", str(pulled))
        started = ViewProcess("0", first="import tests.support.pulled_camera")
    yield started, pulled
    assert started.stop() == 0


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with opened_browser() as found:
        yield found


@pytest.fixture(scope="module")
def view(clip: Path) -> Iterator[ViewProcess]:
    started = ViewProcess(clip, "--reasoner", "tests.support.odd_reasoner:make")
    yield started
    assert started.stop() == 0


def test_a_question_is_answered_and_hostile_words_stay_text(
    browser: Any, view: ViewProcess
) -> None:
    page, faults = new_page(browser)
    show_and_ask(page, view.url, HOSTILE)
    answer = page.locator("#answers li.one").filter(has_text=HOSTILE)
    expect(answer.locator(".asked-words")).to_have_text(HOSTILE)
    expect(answer.locator(".status")).to_have_text("OK")
    expect(answer.locator(".words")).to_have_text("the middle")
    expect(answer.locator(".age")).to_contain_text(" ago")
    verdict = re.compile("^(It came true|It did not come true|Whether it came true is not known)")
    expect(answer.locator(".outcome")).to_have_text(verdict)
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


def test_a_frame_of_the_past_is_found_by_the_slider_and_refined_beside_the_object(
    browser: Any, view: ViewProcess
) -> None:
    page, faults = new_page(browser)
    page.goto(view.url)
    expect(page.locator("#caption")).to_contain_text("pictures/s")
    page.locator("#scrub").focus()
    with page.expect_response("**/api/frames/*") as looked:
        page.keyboard.press("ArrowLeft")
    index = looked.value.headers["x-frame-index"]
    expect(page.locator("#caption")).to_have_text(f"frozen at frame {index}")
    expect(page.locator("#when")).to_contain_text("s ago")
    with page.expect_request("**/api/objects") as boxed:
        drag(page, (0.3, 0.3), (0.6, 0.6))
    assert len(boxed.value.post_data_json["box"]) == 4
    expect(page.locator("#said")).to_contain_text("is tracked")
    at = page.locator("#marks").bounding_box()
    page.keyboard.down("Alt")
    with page.expect_request("**/api/objects") as beside:
        page.mouse.click(at["x"] + 0.9 * at["width"], at["y"] + 0.1 * at["height"])
    page.keyboard.up("Alt")
    sent, first = beside.value.post_data_json, boxed.value.post_data_json
    assert [label for _, _, label in sent["points"]] == [0]
    assert sent["stamp_ns"] == first["stamp_ns"], "one prompt, of one frame"
    expect(page.locator("#said")).to_contain_text("is refined")
    page.get_by_role("button", name="Back to live").click()
    expect(page.locator("#when")).to_have_text("live")
    assert faults == []
    page.close()


def test_what_a_second_viewer_wants_in_vain_is_said_to_it(browser: Any, view: ViewProcess) -> None:
    (page, faults), (other, _) = new_page(browser), new_page(browser)
    for tab in (page, other):
        tab.goto(view.url)
        expect(tab.locator("#caption")).to_contain_text("pictures/s")
    names = []
    for left in (0.1, 0.6):
        page.get_by_role("button", name="Freeze").click()
        drag(page, (left, 0.5), (left + 0.2, 0.8))
        expect(page.locator("#said")).to_contain_text("is tracked")
        names.append(page.locator("#said").text_content().split()[0])
        page.get_by_role("button", name="Back to live").click()
        expect(page.locator("#said")).not_to_have_text("sent")
    for tab, name in ((page, names[0]), (other, names[1])):
        row = tab.locator(f"#objects li[data-key='{name}']")
        row.get_by_role("button", name="Rename").click()
        tab.get_by_label("New name of").fill("the cup")
        tab.keyboard.press("Enter")
        expect(tab.locator("#said")).to_have_text(
            "renamed" if tab is page else "another object is called 'the cup'"
        )
    assert faults == []
    page.close()
    other.close()


def test_a_slow_connection_is_told_of_and_gets_smaller_pictures(
    browser: Any, camera: tuple[ViewProcess, Path]
) -> None:
    link = SlowLink(camera[0].port, 1e6)
    page, faults = new_page(browser, viewport={"width": 390, "height": 800})
    asked: list[dict[str, Any]] = []
    page.on(
        "websocket",
        lambda live: live.on("framesent", lambda data: asked.append(json.loads(data))),
    )
    try:
        page.goto(f"http://127.0.0.1:{link.port}/")
        expect(page.locator("#caption")).to_contain_text("pictures/s")
        assert asked[-1]["side"] == 640
        link.bytes_per_s = 3000
        expect(page.locator("#caption")).to_contain_text("connection or this device is slow")
        end = time.monotonic() + WAIT_MS / 1000
        while asked[-1]["side"] > 320 and time.monotonic() < end:
            page.wait_for_timeout(100)  # milliseconds, in which the page's own events come
        link.bytes_per_s = 0
        expect(page.locator("#link")).to_contain_text("nothing heard of foreseg for")
        link.bytes_per_s = 1e6
        expect(page.locator("#link")).to_contain_text("connected")
        expect(page.locator("#caption")).not_to_contain_text("slow")
        assert min(message["side"] for message in asked) == 320
        assert faults == []
    finally:
        page.close()
        link.close()


def test_a_camera_that_is_pulled_or_hangs_is_said_on_the_page(
    browser: Any, camera: tuple[ViewProcess, Path]
) -> None:
    view, pulled = camera
    page, faults = new_page(browser)
    try:
        page.goto(view.url)
        expect(page.locator("#caption")).to_contain_text("pictures/s")
        expect(page.locator("#notice")).to_be_hidden()
        pulled.touch()
        expect(page.locator("#notice")).to_contain_text("camera 0 gives no frame; again in")
        pulled.unlink()
        expect(page.locator("#notice")).to_be_hidden()
        hangs = pulled.with_suffix(".hangs")
        hangs.touch()
        expect(page.locator("#notice")).to_contain_text("is the camera still there?")
        hangs.unlink()
        expect(page.locator("#notice")).to_be_hidden()
        assert faults == []
    finally:
        page.close()


def test_the_last_seconds_and_a_filmstrip_are_saved(
    browser: Any, view: ViewProcess, tmp_path: Path
) -> None:
    page, faults = new_page(browser)
    show_and_ask(page, view.url, "what is there?")
    with page.expect_download() as strip:
        page.get_by_role("button", name="Save as a filmstrip").first.click()
    assert strip.value.suggested_filename.endswith(".jpg")
    for plot in page.locator("#plots .plot").all():
        expect(plot.locator("svg")).to_have_attribute("aria-label", re.compile("now .+"))
        expect(plot.locator("polyline").first).to_have_attribute("points", re.compile("[0-9]"))
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


def test_every_control_has_a_name_and_a_size_and_text_has_contrast(
    browser: Any, view: ViewProcess
) -> None:
    page, _ = new_page(browser, viewport={"width": 390, "height": 800})
    show_and_ask(page, view.url, "what is there?")
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        for control in page.locator("button:visible, input:visible, select, textarea").all():
            named = control.evaluate(
                "e => (e.ariaLabel || e.labels?.[0]?.textContent || e.textContent).trim()"
            )
            assert named, control.evaluate("e => e.outerHTML")
            height = control.evaluate(
                "e => (e.closest('label') ?? e).getBoundingClientRect().height"
            )
            assert height >= 24, f"{named} has {height} px: a finger wants 24 (WCAG 2.2, 2.5.8)"
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= 390, "a phone scrolls down only"
        texts = page.evaluate(TEXTS)
        assert len(texts) > 30
        for words, ink, grounds in texts:
            ratio = contrast(ink, grounds)
            assert ratio >= 4.5, f"{scheme}: {words!r} has a contrast of {ratio:.2f}"
    page.reload()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="To the question")).to_be_focused()
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
        expect(page.locator("#caption")).to_contain_text("pictures/s")
    finally:
        assert again.stop() == 0
    guarded = ViewProcess(clip, "--host", "0.0.0.0", port=view.port)  # noqa: S104
    try:
        expect(page.locator("#link")).to_contain_text("open the address with ?token=")
        page.goto(f"http://127.0.0.1:{view.port}/?token={guarded.url.partition('=')[2]}")
        expect(page.locator("#link")).to_contain_text("connected")
        assert "token" not in page.url
        assert faults == []
    finally:
        page.close()
        assert guarded.stop() == 0


# Every text that is seen: its words, its colour, and the colours behind it, the nearest first.
TEXTS = """() => {
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const words = walker.currentNode.textContent.trim();
    const element = walker.currentNode.parentElement;
    const style = getComputedStyle(element);
    if (!words || !element.checkVisibility({opacityProperty: true}) || element.closest(".quiet, option")) continue;
    const grounds = [];
    for (let at = element; at; at = at.parentElement) grounds.push(getComputedStyle(at).backgroundColor);
    found.push([words.slice(0, 40), style.color, grounds]);
  }
  return found;
}"""


def contrast(ink: str, grounds: list[str]) -> float:
    """The ratio of WCAG 2.1, section 1.4.3, of a colour on what lies behind it."""
    behind = [1.0, 1.0, 1.0]
    for ground in reversed(grounds):
        *channels, alpha = rgba_of(ground)
        behind = [alpha * c + (1 - alpha) * b for c, b in zip(channels, behind, strict=True)]
    dark, light = sorted((luminance(rgba_of(ink)[:3]), luminance(behind)))
    return (light + 0.05) / (dark + 0.05)


def rgba_of(words: str) -> list[float]:
    """`rgb(1, 2, 3)` or `rgba(1, 2, 3, 0.5)` as parts of one."""
    r, g, b, *alpha = (float(part) for part in re.findall(r"[0-9.]+", words))
    return [r / 255, g / 255, b / 255, *(alpha or [1.0])]


def luminance(channels: list[float]) -> float:
    """Relative, of sRGB."""
    r, g, b = (c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b
