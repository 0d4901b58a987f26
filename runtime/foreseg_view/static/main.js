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

function say(words, is_bad = false) {
  const said = $("said");
  setText(said, words);
  said.classList.toggle("FAILED", is_bad);
}

function notice(words) {
  setText($("notice"), words);
  $("notice").hidden = !words;
}

const link = new Link({
  opened() {
    connections += 1;
    asking.connection = connections;
    setText($("link"), "connected");
    $("link").classList.remove("bad");
    asking.forget();
    health.forget();
    picture.ready();
  },
  lost(reason) {
    setText($("link"), `${reason}; connecting again`);
    $("link").classList.add("bad");
  },
  state(record) {
    const run = record.run ? `, pass ${record.run + 1}` : "";
    setText($("source"), record.source + run);
    if (record.viewers > 1) setText($("link"), `connected, ${record.viewers} viewers`);
    else setText($("link"), "connected");
    notice(record.problem);
    picture.state(record);
    objects.state(record);
    asking.state(record);
  },
  answer: (record) => asking.answer(record),
  health(samples) {
    health.add(samples);
    const newest = samples[samples.length - 1];
    if (newest) picture.camera_hz = newest.camera_hz;
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
