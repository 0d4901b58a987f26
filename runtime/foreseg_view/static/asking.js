// SPDX-License-Identifier: Apache-2.0
// Asking in words: what is under way with its stage and thoughts, and what was answered.

import { $, el, keyed, seconds, setText } from "./dom.js";
import { download, request } from "./link.js";

const STAGES = ["asked", "thinking", "keyframe", "hop", "caught up"];
const OUTCOMES = { CAME_TRUE: "came true", DID_NOT: "did not come true", UNKNOWN: "not known" };
const MAX_SHOWN = 50;

export class Asking {
  constructor(picture, say) {
    this.picture = picture;
    this.say = say;
    this.answers = new Map(); // by number
    this.now = null; // the newest state
    $("ask").onsubmit = (event) => {
      event.preventDefault();
      this.ask();
    };
    $("question").onkeydown = (event) => {
      if (event.key === "Enter" && !event.shiftKey) {
        event.preventDefault();
        this.ask();
      }
    };
  }

  async ask() {
    const text = $("question").value;
    if (!text.trim()) return;
    const reply = await request("POST", "/api/queries", {
      text,
      period_s: Number($("period").value),
      horizon_s: Number($("horizon").value),
    });
    this.say(reply.ok ? "asked" : reply.error, !reply.ok);
    if (reply.ok) $("question").value = "";
  }

  forget() {
    this.answers.clear();
    this.draw();
  }

  answer(record) {
    this.answers.set(record.number, record);
    const numbers = [...this.answers.keys()].sort((a, b) => b - a);
    for (const number of numbers.slice(MAX_SHOWN)) this.answers.delete(number);
    this.draw();
  }

  state(record) {
    this.now = record;
    const { is_up, words } = record.reasoner;
    setText($("reasoner"), is_up ? `Who answers: ${words}` : `The reasoner is ${words}`);
    keyed($("queries"), record.queries, (query) => query.id, (query) => this.query_row(query), update_query);
    this.draw();
  }

  query_row(query) {
    const cancel = async () => {
      const reply = await request("DELETE", `/api/queries/${encodeURIComponent(query.id)}`);
      this.say(reply.ok ? "cancelled" : reply.error, !reply.ok);
    };
    const words = query.period_s ? `Stop asking: ${query.text}` : `Cancel: ${query.text}`;
    return el(
      "li",
      {},
      // First, so that it stays where it is while what is below comes and goes.
      el("button", { type: "button", class: "cancel", onclick: cancel, "aria-label": words }, query.period_s ? "Stop" : "Cancel"),
      el("p", { class: "asked-words" }, query.text),
      stages_row(),
      el("p", { class: "thought", "aria-live": "off" }),
    );
  }

  draw() {
    const shown = [...this.answers.values()].sort((a, b) => b.number - a.number);
    keyed($("answers"), shown, (one) => one.number, (one) => this.answer_row(one), (row, one) => this.update_answer(row, one));
    $("no-answers").hidden = shown.length > 0;
    const judged = shown.filter((one) => one.outcome && one.outcome !== "UNKNOWN");
    const num_true = judged.filter((one) => one.outcome === "CAME_TRUE").length;
    setText($("tally"), judged.length ? `${num_true} of ${judged.length} foresights that could be judged came true` : "");
  }

  answer_row(one) {
    return el(
      "li",
      { class: "one" },
      el(
        "div",
        {},
        el("p", { class: "asked-words" }),
        el("p", {}, el("span", { class: "status" }), " ", el("span", { class: "words" })),
        stages_row(),
        el("p", { class: "soft age" }),
        el("p", { class: "outcome" }),
      ),
      el("button", { type: "button", class: "inset", hidden: true, onclick: () => this.open(one.number) }, el("img", { alt: "" })),
      el("details", {}, el("summary", {}, "why"), el("p", { class: "thought" })),
      el("div", { class: "links" }, el("button", { type: "button", class: "strip", onclick: () => this.save(one.number) }, "Save as a filmstrip")),
    );
  }

  open(number) {
    const one = this.answers.get(number);
    this.picture.freeze(one.keyframe_index);
    $("marks").focus();
  }

  async save(number) {
    const fault = await download(`/api/answers/${number}/filmstrip`);
    this.say(fault || "saved", Boolean(fault));
  }

  update_answer(row, one) {
    row.querySelector(".strip").hidden = !one.has_filmstrip;
    setText(row.querySelector(".asked-words"), one.query);
    const status = row.querySelector(".status");
    status.className = `status ${one.status}`;
    setText(status, one.status.replace("_", " "));
    setText(row.querySelector(".words"), one.words);
    update_stages(row, one.stage === "ended" ? null : one.stage);
    row.querySelector(".stages").hidden = one.stage === "ended";
    setText(row.querySelector(".age"), this.age_words(one));
    const outcome = row.querySelector(".outcome");
    outcome.className = `outcome ${one.outcome ?? ""}`;
    setText(outcome, this.outcome_words(one));
    const inset = row.querySelector(".inset");
    inset.hidden = !one.has_keyframe_picture;
    if (one.has_keyframe_picture) {
      const src = `/api/answers/${one.number}/keyframe?stage=${encodeURIComponent(one.stage)}&run=${this.connection}`;
      const image = inset.firstChild;
      if (image.getAttribute("src") !== src) image.setAttribute("src", src);
      const words = `Keyframe ${one.keyframe_index} of the answer to: ${one.query}. Look at it, and point`;
      inset.setAttribute("aria-label", words);
    }
    const why = [one.reason, one.rationale].filter(Boolean).join("\n\n");
    row.querySelector("details").hidden = !why;
    setText(row.querySelector("details .thought"), why);
  }

  age_words(one) {
    const parts = [`took ${seconds(one.latency_s)}`];
    const now = this.now?.frame;
    if (one.keyframe_s !== null && now) {
      const age = now.time_s - one.keyframe_s;
      const is_old = this.now.run !== one.run || age < 0;
      parts.unshift(is_old ? "from before the stream began anew" : `about ${seconds(age)} ago`);
    }
    if (one.hop_s !== null) parts.push(`masks after ${seconds(Math.max(0, one.hop_s - one.asked_s))}`);
    if (one.caught_up_s !== null) parts.push(`caught up after ${seconds(Math.max(0, one.caught_up_s - one.asked_s))}`);
    if (one.confidence !== null) parts.push(`confidence ${one.confidence.toFixed(2)}`);
    return parts.join(", ");
  }

  outcome_words(one) {
    if (!one.outcome || one.status !== "OK") return "";
    if (one.outcome !== "UNKNOWN") return `It ${OUTCOMES[one.outcome]}: ${one.reason}`;
    const now = this.now?.frame?.time_s;
    const is_open = !one.reason && this.now?.run === one.run && now !== undefined && now < one.valid_until_s;
    if (is_open) return `Whether it comes true is known in ${seconds(one.valid_until_s - now)}`;
    return `Whether it came true is not known${one.reason ? `: ${one.reason}` : ""}`;
  }
}

function stages_row() {
  return el("ul", { class: "stages", "aria-label": "Stages" }, ...STAGES.map((stage) => el("li", {}, stage)));
}

function update_stages(row, stage) {
  const rank = STAGES.indexOf(stage);
  [...row.querySelector(".stages").children].forEach((chip, i) => {
    chip.className = i < rank || stage === "caught up" ? "done" : i === rank ? "now" : "";
    if (i === rank) chip.setAttribute("aria-current", "step");
    else chip.removeAttribute("aria-current");
  });
}

function update_query(row, query) {
  update_stages(row, query.stage);
  const every = query.period_s ? `asked every ${seconds(query.period_s)}` : "";
  const since = query.stage === "thinking" ? `for ${seconds(query.since_s)}` : "";
  setText(row.querySelector(".asked-words"), [query.text, every, since].filter(Boolean).join(" · "));
  const thought = row.querySelector(".thought");
  if (query.rationale) setText(thought, query.rationale); // the last one stays until there is a new one
  thought.scrollTop = thought.scrollHeight;
}
