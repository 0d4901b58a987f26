// SPDX-License-Identifier: Apache-2.0
// Pointing at things: clicks, boxes and keys over the picture become prompts in source pixels.

import { $, setText } from "./dom.js";
import { request } from "./link.js";

const DRAG_PX = 6; // less is a click
const STEP_PX = 8; // of the cross, by keys
const TARGET_NEW = "";

export class Pointing {
  constructor(picture, say) {
    this.picture = picture;
    this.say = say;
    this.canvas = $("marks");
    this.points = []; // [x, y, label] of the prompt so far, on the frame that is shown
    this.box = null;
    this.index = null; // of the frame that they are on
    this.drag = null; // from, to in source pixels
    this.cross = null; // of the keyboard
    this.corner = null; // of a box by keys
    this.own = null; // the object that this prompt has made
    picture.onshown = () => this.frame_shown();
    this.canvas.addEventListener("pointerdown", (event) => this.down(event));
    this.canvas.addEventListener("pointermove", (event) => this.move(event));
    this.canvas.addEventListener("pointerup", (event) => this.up(event));
    this.canvas.addEventListener("pointercancel", () => this.end_drag());
    this.canvas.addEventListener("keydown", (event) => this.key(event));
    this.canvas.addEventListener("blur", () => this.hide_cross());
    $("clear").onclick = () => this.clear();
    $("target").onchange = () => this.clear();
    new ResizeObserver(() => this.draw()).observe(this.canvas);
  }

  // What is shown has changed: a prompt belongs to one frame.
  frame_shown() {
    if (this.picture.frozen && this.picture.head.index !== this.index) this.clear();
    else if (!this.picture.frozen && !this.drag) this.forget();
    this.draw();
  }

  clear() {
    this.forget();
    this.own = null;
    this.draw();
  }

  forget() {
    this.points = [];
    this.box = null;
    this.index = this.picture.head ? this.picture.head.index : null;
    if (!this.picture.frozen) this.own = null;
  }

  // Where the picture lies in its element: the whole of it, with borders where the aspect differs.
  place() {
    const [width, height] = this.picture.head.size_wh;
    const { clientWidth, clientHeight } = this.canvas;
    const scale = Math.min(clientWidth / width, clientHeight / height);
    return {
      scale,
      left: (clientWidth - width * scale) / 2,
      top: (clientHeight - height * scale) / 2,
      width,
      height,
    };
  }

  at(event) {
    const { scale, left, top, width, height } = this.place();
    const x = (event.offsetX - left) / scale;
    const y = (event.offsetY - top) / scale;
    return [Math.min(Math.max(0, x), width - 0.01), Math.min(Math.max(0, y), height - 0.01)];
  }

  down(event) {
    if (!this.picture.head || event.button !== 0) return;
    event.preventDefault();
    this.canvas.focus({ preventScroll: true });
    this.canvas.setPointerCapture(event.pointerId);
    // The picture goes on while one drags: what is meant is the frame on which the drag began.
    this.drag = { from: this.at(event), to: this.at(event), head: this.picture.head };
  }

  move(event) {
    if (!this.drag) return;
    this.drag.to = this.at(event);
    this.draw();
  }

  up(event) {
    if (!this.drag) return;
    const { from, head } = this.drag;
    const to = this.at(event);
    const far = Math.max(Math.abs(to[0] - from[0]), Math.abs(to[1] - from[1]));
    this.end_drag();
    if (far * this.place().scale < DRAG_PX) this.add_point(from, event.altKey, head);
    else this.add_box(from, to, head);
  }

  end_drag() {
    this.drag = null;
    this.draw();
  }

  add_point([x, y], alt, head) {
    this.points.push([x, y, alt || $("beside").checked ? 0 : 1]);
    this.send(head);
  }

  add_box([x0, y0], [x1, y1], head) {
    this.points = [];
    this.box = [Math.min(x0, x1), Math.min(y0, y1), Math.max(x0, x1), Math.max(y0, y1)];
    this.send(head);
  }

  async send(head) {
    this.draw();
    const object_id = this.own ?? $("target").value;
    if (!object_id && !this.box && this.points.every((point) => point[2] === 0)) {
      this.say("point at the object first, then beside it", true);
      return;
    }
    const body = { object_id, stamp_ns: head.stamp_ns, points: this.points };
    if (this.box) body.box = this.box;
    this.say("sent");
    const reply = await request("POST", "/api/objects", body);
    if (!reply.ok) {
      this.say(reply.error, true);
      this.clear();
      return;
    }
    const [id] = reply.object_ids;
    this.say(object_id ? `${id} is refined` : `${id} is tracked`);
    if (this.picture.frozen && this.picture.head.index === head.index) {
      this.own = id;
      this.picture.look_back(head.index);
    }
  }

  key(event) {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (!this.picture.head) return;
    const [width, height] = this.picture.head.size_wh;
    this.cross ??= [width / 2, height / 2];
    const by = moves[event.key];
    const key = event.key.toLowerCase();
    if (by) {
      const step = (event.shiftKey ? 5 : 1) * (STEP_PX / this.place().scale);
      this.cross = [
        Math.min(Math.max(0, this.cross[0] + by[0] * step), width - 0.01),
        Math.min(Math.max(0, this.cross[1] + by[1] * step), height - 0.01),
      ];
    } else if (key === "enter" || key === "b") this.add_point(this.cross, key === "b", this.picture.head);
    else if (key === "x" && this.corner) {
      this.add_box(this.corner, this.cross, this.picture.head);
      this.corner = null;
    } else if (key === "x") this.corner = this.cross;
    else if (key === "escape") {
      this.corner = null;
      this.clear();
    } else return;
    event.preventDefault();
    this.draw();
  }

  hide_cross() {
    this.cross = this.corner = null;
    this.draw();
  }

  draw() {
    const ratio = devicePixelRatio;
    const { clientWidth, clientHeight } = this.canvas;
    this.canvas.width = clientWidth * ratio;
    this.canvas.height = clientHeight * ratio;
    if (!this.picture.head) return;
    const pen = this.canvas.getContext("2d");
    const { scale, left, top } = this.place();
    pen.scale(ratio, ratio);
    const on = ([x, y]) => [left + x * scale, top + y * scale];
    const frame = ([a, b]) => {
      const [x0, y0] = on(a);
      const [x1, y1] = on(b);
      this.line(pen, () => pen.strokeRect(x0, y0, x1 - x0, y1 - y0));
    };
    if (this.box) frame([this.box.slice(0, 2), this.box.slice(2)]);
    if (this.drag) frame([this.drag.from, this.drag.to]);
    if (this.corner && this.cross) frame([this.corner, this.cross]);
    for (const [x, y, label] of this.points) this.dot(pen, on([x, y]), label);
    if (this.cross) {
      const [x, y] = on(this.cross);
      this.line(pen, () => {
        pen.beginPath();
        pen.moveTo(x - 12, y);
        pen.lineTo(x + 12, y);
        pen.moveTo(x, y - 12);
        pen.lineTo(x, y + 12);
        pen.stroke();
      });
    }
  }

  line(pen, stroke) {
    for (const [colour, width] of [["#10141a", 4], ["#ffffff", 2]]) {
      pen.strokeStyle = colour;
      pen.lineWidth = width;
      stroke();
    }
  }

  dot(pen, [x, y], label) {
    pen.beginPath();
    pen.arc(x, y, 7, 0, 2 * Math.PI);
    pen.fillStyle = label ? "#14be46" : "#e12828";
    pen.fill();
    pen.strokeStyle = "#ffffff";
    pen.lineWidth = 2;
    pen.stroke();
    pen.beginPath();
    pen.moveTo(x - 3, y);
    pen.lineTo(x + 3, y);
    if (label) {
      pen.moveTo(x, y - 3);
      pen.lineTo(x, y + 3);
    }
    pen.stroke();
  }
}
