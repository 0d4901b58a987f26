// SPDX-License-Identifier: Apache-2.0
// The page: connects its parts with the server.

import { Asking } from "./asking.js";
import { $, setText } from "./dom.js";
import { Health } from "./health.js";
import { download, Link } from "./link.js";
import { Objects } from "./objects.js";
import { Picture } from "./picture.js";
import { Pointing } from "./pointing.js";

let connections = 0;

const SAID_MS = 8000; // what went well is shown for so long; what did not, until something else is said
let unsaid = 0;

function say(words, is_bad = false) {
  const said = $("said");
  setText(said, words);
  said.classList.toggle("FAILED", is_bad);
  said.classList.add("shown");
  clearTimeout(unsaid);
  if (!is_bad) unsaid = setTimeout(() => said.classList.remove("shown"), SAID_MS);
}

function notice(words) {
  setText($("notice"), words);
  $("notice").hidden = !words;
}

let num_viewers = 1;

function well() {
  setText($("link"), num_viewers > 1 ? `connected, ${num_viewers} viewers` : "connected");
  $("link").classList.remove("bad");
}

function ill(words) {
  setText($("link"), words);
  $("link").classList.add("bad");
}

const link = new Link({
  opened() {
    connections += 1;
    asking.connection = connections;
    well();
    asking.forget();
    health.forget();
    picture.again();
  },
  lost(reason) {
    ill(`${reason}; connecting again`);
    picture.lost();
  },
  quiet: (seconds) => ill(`nothing heard of foreseg for ${seconds.toFixed(0)} s`),
  state(record) {
    const run = record.run ? `, pass ${record.run + 1}` : "";
    setText($("source"), record.source + run);
    num_viewers = record.viewers;
    well();
    notice(record.problem);
    picture.state(record);
    objects.state(record);
    asking.state(record);
  },
  answer: (record) => asking.answer(record),
  health(samples) {
    well();
    health.add(samples);
    const newest = samples[samples.length - 1];
    if (newest) picture.given_hz = newest.masks;
  },
  picture: (head, jpeg) => picture.take(head, jpeg),
});
const picture = new Picture(link, say);
const pointing = new Pointing(picture, say);
const asking = new Asking(picture, say);
const objects = new Objects(say);
const health = new Health();

$("save").onclick = async () => {
  $("save").disabled = true;
  say("saving");
  const fault = await download(`/api/recording?seconds=${$("seconds").value}`);
  say(fault || "saved", Boolean(fault));
  $("save").disabled = false;
};
