// SPDX-License-Identifier: Apache-2.0
// The objects that are tracked: colour and state as in the overlay, rename, refine, remove.

import { $, el, keyed, seconds, setText } from "./dom.js";
import { request } from "./link.js";

const STATE_WORDS = {
  TRACKED: "tracked",
  UNCERTAIN: "uncertain",
  OCCLUDED: "hidden now",
  LOST: "lost",
};

export class Objects {
  constructor(say) {
    this.say = say;
  }

  state(record) {
    keyed($("objects"), record.objects, (one) => one.id, (one) => this.row(one), update);
    $("no-objects").hidden = record.objects.length > 0;
    const target = $("target");
    const options = [{ id: "", name: "a new object" }, ...record.objects];
    const chosen = target.value;
    keyed(target, options, (one) => `o${one.id}`, (one) => el("option", { value: one.id }), (row, one) =>
      setText(row, one.id ? `${one.name} (refine)` : one.name),
    );
    target.value = options.some((one) => one.id === chosen) ? chosen : "";
  }

  row(one) {
    const rename = () => this.rename(one.id);
    const refine = () => {
      $("target").value = one.id;
      $("target").dispatchEvent(new Event("change"));
      $("marks").focus();
      this.say(`click on ${this.name_of(one.id)}, or with Alt beside it`);
    };
    return el(
      "li",
      {},
      el("span", { class: "swatch", "aria-hidden": "true" }),
      el("span", { class: "name" }),
      el("span", { class: "facts soft" }),
      el("button", { type: "button", onclick: refine, class: "refine" }, "Refine"),
      el("button", { type: "button", onclick: rename, class: "rename" }, "Rename"),
      el("button", { type: "button", onclick: () => this.remove(one.id), class: "remove" }, "Remove"),
    );
  }

  name_of(id) {
    const row = [...$("objects").children].find((other) => other.dataset.key === id);
    return row ? row.querySelector(".name").textContent : id;
  }

  rename(id) {
    const row = [...$("objects").children].find((other) => other.dataset.key === id);
    if (row.querySelector("form")) return;
    const input = el("input", { type: "text", maxlength: "40", "aria-label": `New name of ${this.name_of(id)}` });
    input.value = this.name_of(id);
    const form = el("form", { class: "row" }, input, el("button", { type: "submit" }, "Save"));
    form.onsubmit = async (event) => {
      event.preventDefault();
      const reply = await request("PATCH", `/api/objects/${encodeURIComponent(id)}`, { name: input.value });
      this.say(reply.ok ? `renamed` : reply.error, !reply.ok);
      if (reply.ok) form.remove();
    };
    form.onkeydown = (event) => {
      if (event.key === "Escape") form.remove();
    };
    row.append(form);
    input.select();
  }

  async remove(id) {
    const reply = await request("DELETE", `/api/objects/${encodeURIComponent(id)}`);
    this.say(reply.ok ? `${id} is let go` : reply.error, !reply.ok);
  }
}

function update(row, one) {
  const swatch = row.querySelector(".swatch");
  swatch.style.borderColor = one.colour;
  swatch.style.background = one.colour;
  swatch.classList.toggle("hollow", one.state === "UNCERTAIN");
  swatch.classList.toggle("gone", one.state === "OCCLUDED" || one.state === "LOST");
  setText(row.querySelector(".name"), one.name);
  const facts = [STATE_WORDS[one.state] ?? one.state];
  if (one.catching_up) facts.push("catching up");
  facts.push(`${one.query_ids.length ? "answer" : "pointed at"} ${seconds(one.answer_age_s)} old`);
  setText(row.querySelector(".facts"), facts.join(", "));
  for (const button of row.querySelectorAll(":scope > button")) {
    button.setAttribute("aria-label", `${button.textContent} ${one.name}`);
  }
}
