// SPDX-License-Identifier: Apache-2.0
// Health of the last minutes, as small plots.

import { $, el, seconds, setText } from "./dom.js";

const MAX_SAMPLES = 300;
const MIN_SPAN = 60;
const WIDTH = 300;
const HEIGHT = 60;
const total = (dropped) => Object.values(dropped).reduce((sum, count) => sum + count, 0);
const PLOTS = [
  { name: "Frames a second", unit: "/s", lines: [(s) => s.camera_hz, (s) => s.masks], now: (s) => `camera ${number(s.camera_hz)}, masks ${s.masks}` },
  { name: "Frame to mask", unit: " ms", lines: [(s) => s.mask_ms_p50, (s) => s.mask_ms_p99], now: (s) => `p50 ${number(s.mask_ms_p50)}, p99 ${number(s.mask_ms_p99)} ms` },
  { name: "Frames dropped", unit: "/s", lines: [(s) => total(s.dropped)], now: (s) => causes(s.dropped) },
  { name: "Reasoner", unit: "", lines: [(s) => ({ down: 0, up: 1, asking: 2 })[s.reasoner]], now: (s) => s.reasoner },
  { name: "Memory", unit: " MB", lines: [(s) => s.memory_mb], now: (s) => (s.memory_mb === null ? "not told" : `${s.memory_mb.toFixed(0)} MB`) },
];

export class Health {
  constructor() {
    this.samples = [];
    for (const plot of PLOTS) {
      plot.node = el("div", { class: "plot" }, el("span", { class: "now" }), el("h3", {}, plot.name));
      const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
      svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
      svg.setAttribute("preserveAspectRatio", "none");
      svg.setAttribute("role", "img");
      plot.lines.forEach((_, i) => {
        const line = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
        if (i) line.setAttribute("class", "second");
        svg.append(line);
      });
      plot.node.append(svg, el("p", { class: "axis", "aria-hidden": "true" }, el("span"), el("span"), el("span", {}, "now")));
      $("plots").append(plot.node);
    }
  }

  forget() {
    this.samples = [];
  }

  add(samples) {
    this.samples = [...this.samples, ...samples].slice(-MAX_SAMPLES);
    const newest = this.samples[this.samples.length - 1];
    if (!newest) return;
    for (const plot of PLOTS) this.draw(plot, newest);
    setText($("rung"), newest.rung ? `Given up for now, ${newest.rung}` : "Nothing is given up.");
  }

  draw(plot, newest) {
    const words = plot.now(newest);
    setText(plot.node.querySelector(".now"), words);
    const svg = plot.node.querySelector("svg");
    svg.setAttribute("aria-label", `${plot.name} over the last minutes, now ${words}`);
    const values = plot.lines.map((value) => this.samples.map(value));
    const span = Math.max(MIN_SPAN, this.samples.length);
    const most = Math.max(1e-9, ...values.flat().filter((value) => value !== null)) * 1.08;
    const [since, top] = plot.node.querySelectorAll(".axis span");
    setText(since, `${seconds(span)} ago`);
    setText(top, plot.unit ? `top ${number(most)}${plot.unit}` : "down, up, asking");
    values.forEach((line, i) => {
      const points = line
        .map((value, rank) => [value, WIDTH * (1 - (line.length - 1 - rank) / (span - 1))])
        .filter(([value]) => value !== null && value !== undefined)
        .map(([value, x]) => `${x.toFixed(1)},${(HEIGHT - 2 - ((HEIGHT - 4) * value) / most).toFixed(1)}`);
      svg.children[i].setAttribute("points", points.join(" "));
    });
  }
}

function number(value) {
  return value === null ? "-" : value.toFixed(value < 10 ? 1 : 0);
}

function causes(dropped) {
  const some = Object.entries(dropped).filter(([, count]) => count > 0);
  return some.length ? some.map(([cause, count]) => `${count} ${cause.replace("_", " ")}`).join(", ") : "none";
}
