// SPDX-License-Identifier: Apache-2.0
// The picture, live or frozen. The next one is asked for when the last one has been shown.

import { $, setText } from "./dom.js";

const SLOW_HZ = 4; // fewer pictures a second than that, where there are twice as many, are told of
const WINDOW_MS = 4000;
const LOOK_MS = 500;
const SIDES = [320, 640, 1280, 2560];

export class Picture {
  constructor(link, say) {
    this.link = link;
    this.say = say;
    this.canvas = $("live");
    this.head = null; // of what is shown: index, stamp_ns, time_s, size_wh
    this.frozen = false;
    this.history = null;
    this.times = [];
    this.fewer = 0; // steps down from the size that would fit
    this.stepped = 0;
    this.since = 0; // when pictures began to be counted
    this.given_hz = 0; // frames with masks, a second: what there is to see
    this.onshown = () => {};
    $("freeze").onclick = () => (this.frozen ? this.live() : this.freeze());
    $("scrub").oninput = () => this.look_back(Number($("scrub").value));
    document.addEventListener("visibilitychange", () => this.again());
    setInterval(() => this.measure(), LOOK_MS); // also where no picture comes any more
  }

  // Pictures come again after a pause: what was before says nothing of the connection.
  again() {
    this.times = [];
    this.since = performance.now();
    this.ready();
  }

  ready() {
    if (document.hidden || this.frozen) return;
    const wanted = $("stage").clientWidth * Math.min(2, devicePixelRatio);
    const fit = SIDES.findIndex((side) => side >= wanted);
    const rank = Math.max(0, (fit < 0 ? SIDES.length - 1 : fit) - this.fewer);
    this.link.ready(SIDES[rank]);
  }

  async take(head, jpeg) {
    const bitmap = await createImageBitmap(new Blob([jpeg], { type: "image/jpeg" }));
    if (!this.frozen) {
      this.times.push(performance.now());
      this.show(head, bitmap);
      this.measure();
    }
    bitmap.close();
    this.ready();
  }

  lost() {
    if (!this.frozen && this.head) setText($("caption"), `frame ${this.head.index}, the last one that came`);
  }

  show(head, bitmap) {
    if (this.canvas.width !== bitmap.width || this.canvas.height !== bitmap.height) {
      this.canvas.width = bitmap.width;
      this.canvas.height = bitmap.height;
    }
    this.canvas.getContext("2d").drawImage(bitmap, 0, 0);
    this.head = head;
    this.onshown();
  }

  measure() {
    if (document.hidden || this.frozen || !this.head || !this.link.is_open()) return;
    const now = performance.now();
    while (this.times[0] < now - WINDOW_MS) this.times.shift();
    const span_ms = Math.max(1000, Math.min(WINDOW_MS, now - this.since));
    const hz = (1000 * this.times.length) / span_ms;
    const is_slow = span_ms >= WINDOW_MS && hz < SLOW_HZ && this.given_hz > 2 * Math.max(hz, 1);
    const words = `frame ${this.head.index}, ${hz.toFixed(hz < 1 ? 1 : 0)} pictures/s`;
    setText($("caption"), is_slow ? `${words} of ${this.given_hz}: the connection or this device is slow` : words);
    if (now - this.stepped < 3 * WINDOW_MS) return;
    if (is_slow && this.fewer < SIDES.length - 1) this.step(1, now);
    else if (hz > 2.5 * SLOW_HZ && this.fewer > 0) this.step(-1, now);
  }

  step(by, now) {
    this.fewer += by;
    this.stepped = now;
  }

  state(record) {
    this.history = record.history;
    const scrub = $("scrub");
    scrub.disabled = !this.history;
    if (!this.history) return;
    scrub.min = this.history.oldest;
    if (!this.frozen) {
      scrub.max = this.history.newest;
      scrub.value = this.history.newest;
    }
    const newest = record.frame;
    const past = this.frozen && newest && this.head ? newest.time_s - this.head.time_s : 0;
    const words = past >= 0 ? `${past.toFixed(1)} s ago` : "before the stream began anew";
    setText($("when"), this.frozen ? words : "live");
  }

  freeze(index) {
    if (!this.head && index === undefined) return;
    this.frozen = true;
    $("stage").classList.add("frozen");
    $("freeze").setAttribute("aria-pressed", "true");
    setText($("freeze"), "Back to live");
    setText($("caption"), `frozen at frame ${index ?? this.head.index}`);
    if (index !== undefined) this.look_back(index);
    else $("scrub").value = this.head.index;
  }

  live() {
    this.frozen = false;
    $("stage").classList.remove("frozen");
    $("freeze").setAttribute("aria-pressed", "false");
    setText($("freeze"), "Freeze");
    setText($("caption"), "");
    this.onshown();
    this.again();
  }

  async look_back(index) {
    if (!this.frozen) this.freeze();
    this.wanted = index;
    if (this.looking) return; // the newest wish is served when this one is done
    this.looking = true;
    while (this.wanted !== null) {
      const wish = this.wanted;
      this.wanted = null;
      await this.fetch_past(wish);
    }
    this.looking = false;
  }

  async fetch_past(index) {
    const response = await fetch(`/api/frames/${index}?side=1280`).catch(() => null);
    if (!response || !response.ok) {
      const record = response ? await response.json().catch(() => ({})) : {};
      this.say(record.error || "foreseg does not answer", true);
      return;
    }
    const [width, height] = response.headers.get("X-Frame-Size").split("x").map(Number);
    const head = {
      index: Number(response.headers.get("X-Frame-Index")),
      stamp_ns: response.headers.get("X-Frame-Stamp-Ns"),
      time_s: Number(response.headers.get("X-Frame-Time-S")),
      size_wh: [width, height],
    };
    const bitmap = await createImageBitmap(await response.blob());
    if (this.frozen) {
      this.show(head, bitmap);
      setText($("caption"), `frozen at frame ${head.index}`);
      $("scrub").value = head.index;
    }
    bitmap.close();
  }
}
