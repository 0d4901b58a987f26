# SPDX-License-Identifier: Apache-2.0
"""A language model behind a real HTTP server on localhost: in good health, and in every bad one."""

from __future__ import annotations

import itertools
import json
import logging
import shutil
import ssl
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foreseg import cli
from foreseg.clock import SystemClock
from foreseg.dialogue import AnswerDone, AnswerFailed, NoTarget, RationalePart, TargetsFound
from foreseg.errors import ConfigError
from foreseg.language.base import Chunk, LanguageModelError, LanguageRequest, Message, Role
from foreseg.language.openai_server import (
    OpenAiServer,
    ServerSettings,
    data_url,
    png_from_image,
)
from foreseg.reasoner.base import ReasonerSpec
from foreseg.reasoner.exchange import checked_ask
from foreseg.reasoner.load import build_reasoner
from foreseg.reasoner.messages import AskMessage, CancelMessage, PartMessage, Ready
from foreseg.reasoner.process import ReasonerProcess

pytest.importorskip("httpx", reason="needs httpx: pip install 'foreseg[server]'")
cv2 = pytest.importorskip("cv2", reason="needs OpenCV: pip install 'foreseg[video]'")

from tests.support import chat_server as chat  # noqa: E402 (needs OpenCV)
from tests.support.chat_server import ChatServer  # noqa: E402
from tests.support.reasoners import query, window_of  # noqa: E402

KEY = "sk-secret-0123456789"
TEXT = "<think>It rolls: é 球 🟥.</think><answer>{}</answer>"
IMAGE = np.random.default_rng(1).integers(0, 256, (40, 60, 3)).astype(np.uint8)


def request_of(num_samples: int = 1) -> LanguageRequest:
    message = Message(role=Role.USER, content=("look", IMAGE, "what falls?"))
    return LanguageRequest(messages=(message,), max_tokens=99, num_samples=num_samples, seed=7)


def settings_of(server: ChatServer, **options: object) -> ServerSettings:
    values: dict[str, object] = {"timeout_s": 5.0, "retry_wait_s": 0.01, **options}
    return ServerSettings(url=server.url, model="tiny", **values)  # type: ignore[arg-type]


def chunks_from(server: ChatServer, num_samples: int = 1, **options: object) -> list[Chunk]:
    return list(OpenAiServer(settings_of(server, **options)).generate(request_of(num_samples)))


def text_of(chunks: list[Chunk], sample: int = 0) -> str:
    return "".join(chunk.text for chunk in chunks if chunk.sample == sample)


def failure_of(*acts: chat.Act, **options: object) -> tuple[str, ChatServer]:
    with ChatServer(list(acts)) as server, pytest.raises(LanguageModelError) as caught:
        chunks_from(server, **options)
    return str(caught.value), server


def test_a_completion_streams_with_its_tokens_and_probabilities() -> None:
    with ChatServer([chat.says(TEXT, log_prob=-0.5)]) as server:
        chunks = chunks_from(server)
        call = server.calls[0]
    assert text_of(chunks) == TEXT
    with_text = [chunk for chunk in chunks if chunk.text]
    assert len(with_text) > 5
    assert {chunk.log_probs for chunk in with_text} == {(-0.5,)}
    assert sum(chunk.num_tokens for chunk in chunks) == 4 * len(with_text)  # as the server counts
    assert call.path == "/v1/chat/completions"
    assert (call.body["model"], call.body["max_tokens"], call.body["seed"]) == ("tiny", 99, 7)
    assert "Authorization" not in call.headers
    (image,) = call.images
    assert image.shape == IMAGE.shape
    assert call.words == "look\nwhat falls?"


def test_thoughts_that_the_server_takes_out_are_put_back() -> None:
    with ChatServer([chat.says("<answer>{}</answer>", thoughts="it rolls")]) as server:
        assert text_of(chunks_from(server)) == "<think>it rolls</think><answer>{}</answer>"


@pytest.mark.parametrize(("obeys_n", "num_calls"), [(True, 1), (False, 3)])
def test_several_samples_come_at_once_or_one_by_one(obeys_n: bool, num_calls: int) -> None:  # noqa: FBT001
    numbers = itertools.count()
    act = chat.says(lambda _: f"answer {next(numbers)}", obeys_n=obeys_n)
    with ChatServer([act]) as server:
        chunks = chunks_from(server, num_samples=3)
    assert [text_of(chunks, i) for i in range(3)] == ["answer 0", "answer 1", "answer 2"]
    assert len(server.calls) == num_calls
    assert [call.body["seed"] for call in server.calls] == [7, 8, 9][:num_calls]


def test_a_strict_server_is_asked_more_plainly_and_that_is_remembered() -> None:
    strict = chat.refuses_more_than("max_tokens", "temperature", "stream")
    with ChatServer([strict(chat.says(TEXT))]) as server:
        model = OpenAiServer(settings_of(server))
        assert text_of(list(model.generate(request_of()))) == TEXT
        assert text_of(list(model.generate(request_of()))) == TEXT
        assert len(server.calls) == 3
    strict = chat.refuses_more_than("max_tokens", "temperature")
    with ChatServer([strict(chat.says_whole(TEXT))]) as server:
        chunks = chunks_from(server)
    assert text_of(chunks) == TEXT
    assert sum(chunk.num_tokens for chunk in chunks) == 11


def test_a_server_that_does_not_stream_is_read_whole() -> None:
    with ChatServer([chat.says_whole(TEXT)]) as server:
        assert text_of(chunks_from(server)) == TEXT


def test_a_stream_without_its_last_word_counts_as_whole_if_it_finished() -> None:
    with ChatServer([chat.says(TEXT, is_done_said=False)]) as server:
        assert text_of(chunks_from(server)) == TEXT


def test_events_may_have_other_line_ends_names_and_comments() -> None:
    event = json.dumps({"choices": [{"index": 0, "delta": {"content": TEXT}}]})
    data = f": hm\r\nid: 1\r\nevent: message\r\ndata:{event}\r\n\r\ndata: [DONE]\r\n\r\n"
    with ChatServer([chat.sends(data.encode())]) as server:
        assert text_of(chunks_from(server)) == TEXT


def test_a_busy_server_is_tried_again_and_a_dead_one_not_for_ever() -> None:
    busy = [chat.fails(503, "loading"), chat.fails(429, "slow down"), chat.sends_raw(b"")]
    with ChatServer([*busy, chat.says(TEXT)]) as server:
        assert text_of(chunks_from(server)) == TEXT
        assert len(server.calls) == 4
    reason, server = failure_of(chat.fails(500, "CUDA out of memory"), num_retries=2)
    assert len(server.calls) == 3
    assert "answered 500: CUDA out of memory" in reason


def test_a_wait_that_would_outlast_the_deadline_is_not_begun() -> None:
    reason, server = failure_of(chat.fails(429, "slow down", **{"Retry-After": "20"}))
    assert len(server.calls) == 1
    assert "429: slow down" in reason


@pytest.mark.parametrize(
    ("act", "expected"),
    [
        (chat.fails(401, f"no such key {KEY}"), "refuses the API key (401): no such key ***"),
        (chat.fails(404, "no model"), "no model 'tiny', or nothing there (404): no model"),
        (chat.fails(307, "elsewhere", Location="/v2"), "answered 307"),
        (chat.sends(b"data: }{\n\n"), "no JSON object: }{"),
        (chat.sends(b"<html>It works!</html>", "text/html"), "no JSON object: <html>"),
        (chat.sends(b'data: {"error": {"message": "boom"}}\n\n'), "boom"),
        (chat.sends(b"data: [DONE]\n\n"), "holds no completion"),
        (chat.sends(b'{"choices": "none"}', "application/json"), "holds no completion"),
        (chat.sends(b"\xff\xfe\x00" * 50), "holds no completion"),
        (chat.sends_raw(b"220 smtp.example ESMTP\r\n\r\n"), "no proper HTTP: illegal status line"),
        (
            chat.sends_raw(b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n"),
            "no proper HTTP: bad Content-Length",
        ),
        (
            chat.sends_raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
            "no proper HTTP: illegal chunk header",
        ),
    ],
)
def test_what_is_no_completion_fails_at_once_with_a_clear_reason(
    act: chat.Act, expected: str
) -> None:
    reason, server = failure_of(act, api_key=KEY)
    assert expected in reason
    assert server.url in reason
    assert KEY not in reason
    assert len(server.calls) == 1


def test_a_completion_that_is_cut_off_is_no_completion() -> None:
    reason, server = failure_of(chat.says(TEXT, cut_after=4))
    assert "closed the connection too early" in reason
    assert len(server.calls) == 1  # its text was told already: it is not begun again
    reason, _ = failure_of(
        chat.sends(b'data: {"choices": [{"index": 0, "delta": {"content": "It"}}]}\n\n')
    )
    assert "ended before the completion did" in reason


def test_nobody_there_is_said_after_the_tries() -> None:
    with ChatServer([chat.says(TEXT)]) as server:
        settings = settings_of(server, num_retries=1)
    with pytest.raises(LanguageModelError, match=r"connection failed: .*refused"):
        list(OpenAiServer(settings).generate(request_of()))


def test_a_silent_server_gives_signs_of_life_and_then_the_deadline() -> None:
    with ChatServer([chat.stays_silent]) as server:
        stream = OpenAiServer(settings_of(server, timeout_s=0.6)).generate(request_of())
        assert next(stream) == Chunk()
        with pytest.raises(LanguageModelError, match="no whole reply in time"):
            list(stream)
        assert server.hung_up.wait(chat.WAIT_S)


STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
comments = chat.drips(STREAM_HEAD, b": the model still thinks\n\n" * 99)
empty_events = chat.drips(STREAM_HEAD, b'data: {"choices": []}\n\n' * 99)


@pytest.mark.parametrize("act", [chat.never_ends, chat.stays_silent, comments, empty_events])
def test_closing_the_stream_hangs_up(act: chat.Act) -> None:
    with ChatServer([act]) as server:
        stream = OpenAiServer(settings_of(server)).generate(request_of())
        for _ in range(4):  # the first may come before the reply's head
            next(stream)
        stream.close()
        assert server.hung_up.wait(chat.WAIT_S)


def test_an_endless_completion_meets_the_deadline() -> None:
    reason, _ = failure_of(chat.never_ends, timeout_s=0.3)
    assert "no whole reply in time" in reason


def test_the_key_is_sent_and_nowhere_told(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("A_KEY", KEY)
    (tmp_path / "key").write_text(KEY + "\n", "utf-8")
    acts = [chat.fails(503, f"{KEY} must wait"), chat.fails(401, "x" * 295 + KEY)]
    with ChatServer(acts) as server:
        options = {"url": server.url, "model": "tiny", "retry_wait_s": 0.01}
        for extra in ({"api_key_env": "A_KEY"}, {"api_key_file": str(tmp_path / "key")}):
            reasoner = build_reasoner(ReasonerSpec(kind="openai", options={**options, **extra}))
            (*_, last) = checked_ask(reasoner, query("what falls?"), window_of([IMAGE.copy()] * 3))
            assert isinstance(last, AnswerFailed)
            assert "refuses the API key" in last.reason
            assert "sk-" not in last.reason
        assert server.calls[0].headers["Authorization"] == f"Bearer {KEY}"
        assert server.calls[-1].headers["Authorization"] == f"Bearer {KEY}"
    assert "must wait" in caplog.text
    assert KEY not in caplog.text
    assert KEY not in repr(settings_of(server, api_key=KEY))


@pytest.mark.parametrize("kind", ["jpeg", "png"])
def test_images_arrive_as_they_were(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if kind == "png":
        monkeypatch.setitem(sys.modules, "cv2", None)
    smooth = np.dstack([np.add.outer(range(40), range(60))] * 3).astype(np.uint8)
    url = data_url(smooth)
    assert url.startswith(f"data:image/{kind};base64,")
    data = np.frombuffer(png_from_image(IMAGE), np.uint8)
    assert np.array_equal(cv2.imdecode(data, cv2.IMREAD_COLOR)[:, :, ::-1], IMAGE)


def test_tls_is_verified_unless_told_otherwise(tmp_path: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs the openssl command to make a certificate")
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    make = (
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost"
    )
    names = ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key)]
    subprocess.run(
        [openssl, *make.split(), *names, "-out", str(certificate)], check=True, capture_output=True
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with ChatServer([chat.says(TEXT)], tls=context) as server:
        assert text_of(chunks_from(server, ca_file=str(certificate))) == TEXT
        assert text_of(chunks_from(server, verify_tls=False)) == TEXT
        with pytest.raises(LanguageModelError, match="certificate is not trusted"):
            chunks_from(server)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "got no url"),
        ({"url": "http://host/v1"}, "got no model"),
        ({"url": "ftp://host", "model": "m"}, "url wants the form"),
        ({"url": "http://me:pass@host", "model": "m"}, "no user or password"),
        ({"url": "http://host:port/", "model": "m"}, "url wants the form"),
        ({"url": "http://h", "model": "m", "metod": "visa"}, "got 'metod'"),
        (
            {"url": "http://h", "model": "m", "method": "visa"},
            "decodes [SEG] tokens to masks, got OpenAiServer",
        ),
        ({"url": "http://h", "model": "m", "timeout_s": "9"}, "timeout_s wants float, got '9'"),
        ({"url": "http://[::1", "model": "m"}, "url wants the form"),
        ({"url": "http://h", "model": "m", "timeout_s": 0}, "more than 0 and at most 86400"),
        ({"url": "http://h", "model": "m", "connect_timeout_s": 1e300}, "seconds, got 1e+300"),
        ({"url": "http://h", "model": "m", "coordinates": "cm"}, "auto, pixels, milli, got 'cm'"),
        ({"url": "http://h", "model": "m", "image_side_px": 3}, "16 to 4096"),
        ({"url": "http://h", "model": "m", "fast": True}, "veason asks only once"),
        ({"url": "http://h", "model": "m", "api_key_env": "NO_SUCH_KEY"}, "'NO_SUCH_KEY' is not"),
        ({"url": "http://h", "model": "m", "api_key_file": "/no/key"}, "No such file"),
        ({"url": "https://h", "model": "m", "ca_file": "/no/ca"}, "ca_file wants"),
        ({"url": "http://h", "model": "m", "ca_file": "/no/ca"}, "ca_file is for https"),
    ],
)
def test_options_that_cannot_work_are_refused_in_one_sentence(
    options: dict[str, str | int | float | bool], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        build_reasoner(ReasonerSpec(kind="openai", options=options))
    assert message in str(caught.value)
    assert "pass" not in str(caught.value).replace("password", "")


@pytest.mark.parametrize("act", [chat.never_ends, comments])
def test_a_cancelled_question_ends_the_generation_and_the_next_one_is_taken(
    act: chat.Act,
) -> None:
    with ChatServer([act, chat.says("<answer>no target</answer>")]) as server:
        options = {"url": server.url, "model": "tiny"}
        process = ReasonerProcess(ReasonerSpec(kind="openai", options=options))
        process.start()
        try:
            assert isinstance(received(process), Ready)
            window = window_of([IMAGE.copy()] * 3)
            ask = AskMessage(ask_id=1, query=query("what falls?"), window=window)
            assert process.send(ask)
            assert received(process) == PartMessage(ask_id=1, part=RationalePart(text=""))
            assert process.send(CancelMessage(ask_id=1))
            while (message := received(process)).part == RationalePart(text=""):
                pass
            assert message.part == AnswerFailed(reason="cancelled")
            assert server.hung_up.wait(chat.WAIT_S)
            assert process.send(replace(ask, ask_id=2))
            parts = [received(process).part for _ in range(3)]
            assert [type(part) for part in parts] == [RationalePart, NoTarget, AnswerDone]
        finally:
            process.stop()


def received(process: ReasonerProcess) -> Any:
    for _ in range(200):
        message = process.receive(0.1)
        if message is not None:
            return message
    pytest.fail("the process said nothing for 20 s")


RATE_HZ, SIZE_WH = 30.0, (160, 120)


def clip_in(folder: Path) -> Path:
    """A red square that moves to the right; it stands at (10 + 2 i, 50) on frame i."""
    path = folder / "clip.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), RATE_HZ, SIZE_WH)
    floor = np.random.default_rng(7).integers(80, 100, (*SIZE_WH[::-1], 3)).astype(np.uint8)
    for index in range(30):
        image = floor.copy()
        image[50:74, 10 + 2 * index : 34 + 2 * index] = (40, 40, 220)
        writer.write(image)
    writer.release()
    return path


def finds_red(call: chat.Call) -> str:
    """Looks at the pixels it was sent, as a model would, and answers about the newest frame."""
    image = call.images[-1].astype(int)
    rows, columns = np.nonzero((image[..., 0] > 150) & (image[..., 1] < 100))
    if "percentage" in call.words:
        return "<answer>100</answer>"
    if "[first, last]" in call.words:
        return f"<answer>[0, {chat.newest_label(call)}]</answer>"
    scale_x, scale_y = 168 / 160, 112 / 120  # to multiples of 28
    box = [columns.min() * scale_x, rows.min() * scale_y]
    box += [(columns.max() + 1) * scale_x, (rows.max() + 1) * scale_y]
    numbers = ", ".join(f"{number:.1f}" for number in box)
    if "target frame" in call.words:
        point = f"{(box[0] + box[2]) / 2:.0f}, {(box[1] + box[3]) / 2:.0f}"
        answer = (
            f'[{{"bbox_2d": [{numbers}], "point_2d": [{point}], "negative_point_2d": [2, 2]}}]'
        )
    else:
        label = chat.newest_label(call)
        answer = f"{{'keyframe_timestamp': {label}, 'bbox_2d_list': [[{numbers}]]}}"
    return f"<think>The red one moves.</think>\n<answer>{answer}</answer>"


@pytest.mark.parametrize("method", ["veason", "videoseg"])
def test_foreseg_run_brings_masks_from_a_server(method: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="needs ONNX Runtime: pip install 'foreseg[cpu]'")
    settings = tmp_path / "model.json"
    out = tmp_path / "out"
    with ChatServer([chat.says(finds_red, log_prob=-0.1)]) as server:
        options = {"url": server.url, "model": "tiny", "method": method}
        if method == "videoseg":
            options |= {"fast": True, "sampler": "untuned"}  # type: ignore[dict-item]
        settings.write_text(json.dumps(options), "utf-8")
        arguments = ["run", str(clip_in(tmp_path)), "--query", "what moves?", "--no-video"]
        arguments += ["--rationale"]
        arguments += ["--reasoner", f"openai:{settings}", "--out", str(out)]
        assert cli.main(arguments) == cli.DONE
        asked = [call.body["model"] for call in server.calls]
        assert asked == (["tiny"] if method == "veason" else ["untuned", "untuned", "tiny"])
    answer = json.loads((out / "answers.jsonl").read_text("utf-8").splitlines()[-1])
    assert answer["status"] == "OK"
    assert ("other quotes" in answer["rationale"]) is (method == "veason")
    masks = sorted((out / "masks").rglob("*.png"))
    mask = cv2.imread(str(masks[-1]), cv2.IMREAD_UNCHANGED)
    assert mask is not None
    rows, columns = np.nonzero(mask.reshape(*mask.shape[:2], -1).any(axis=2))
    assert abs(columns.mean() - 80) < 12  # the square's centre on the last frame
    assert abs(rows.mean() - 62) < 8


def test_foreseg_run_says_what_is_wrong_with_a_settings_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken, wrong = tmp_path / "broken.json", tmp_path / "wrong.json"
    broken.write_text("{", "utf-8")
    wrong.write_text('{"url": ["http://h"]}', "utf-8")
    clip = str(clip_in(tmp_path))
    for path, message in (
        (tmp_path / "none.json", "No such file"),
        (broken, "no JSON"),
        (wrong, "wants a plain value for 'url', got a list"),
    ):
        arguments = ["run", clip, "--query", "q", "--reasoner", f"openai:{path}"]
        assert cli.main([*arguments, "--out", str(tmp_path / path.stem)]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert "Traceback" not in error


def test_an_answer_streams_through_the_whole_reasoner() -> None:
    with ChatServer([chat.says(finds_red, log_prob=-0.1)]) as server:
        options = {"url": server.url, "model": "tiny"}
        reasoner = build_reasoner(ReasonerSpec(kind="openai", options=options))
        image = np.zeros((120, 160, 3), np.uint8)
        image[20:60, 30:90] = (220, 40, 40)
        began_ns = SystemClock().monotonic_ns()
        parts = list(checked_ask(reasoner, query("what moves?"), window_of([image] * 2)))
        assert SystemClock().monotonic_ns() - began_ns < 5e9
    (found,) = [part for part in parts if isinstance(part, TargetsFound)]
    assert isinstance(parts[-1], AnswerDone)
    assert found.confidence == pytest.approx(np.exp(-0.1))
    (prompt,) = found.prompts
    assert prompt.box is not None
    assert np.allclose(prompt.box, (30, 20, 90, 60), atol=2)
