// SPDX-License-Identifier: Apache-2.0
// The connection: pictures and states in, requests out; it connects again by itself.

const FIRST_RETRY_MS = 500;
const LAST_RETRY_MS = 5000;
const LOOK_MS = 1000;
const QUIET_MS = 5000; // something comes each second; who is quiet for so long is told of
const DEAD_MS = 20000; // and given up, as a phone that has changed its network must
const decoder = new TextDecoder();

// `on` has: state(record), answer(record), health(samples), picture(head, jpeg), opened(), lost(reason), quiet(seconds)
export class Link {
  constructor(on) {
    this.on = on;
    this.retry_ms = FIRST_RETRY_MS;
    this.heard = 0;
    this.open();
    setInterval(() => this.look(), LOOK_MS);
  }

  is_open() {
    return this.socket.readyState === WebSocket.OPEN;
  }

  look() {
    const quiet_ms = performance.now() - this.heard;
    if (!this.is_open() || quiet_ms < QUIET_MS) return;
    if (quiet_ms > DEAD_MS) this.end(this.socket, "foreseg has said nothing for long");
    else this.on.quiet(quiet_ms / 1000);
  }

  open() {
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    this.socket = new WebSocket(`${scheme}://${location.host}/api/live`);
    this.socket.binaryType = "arraybuffer";
    this.socket.onopen = () => {
      this.retry_ms = FIRST_RETRY_MS;
      this.heard = performance.now();
      this.on.opened();
    };
    this.socket.onmessage = (event) => this.take(event.data);
    const socket = this.socket;
    this.socket.onclose = (event) => this.end(socket, event.reason);
  }

  // A connection has ended, or is given up; why no other one is let in, an answer over HTTP tells.
  async end(socket, reason) {
    socket.onclose = socket.onmessage = null;
    socket.close();
    this.on.lost(reason || "no connection to foreseg");
    setTimeout(() => this.open(), this.retry_ms); // however long that answer takes
    this.retry_ms = Math.min(2 * this.retry_ms, LAST_RETRY_MS);
    if (!reason) {
      const reply = await request("GET", "/api/state");
      if (reply.status && !reply.ok && !this.is_open()) this.on.lost(reply.error);
    }
  }

  take(data) {
    this.heard = performance.now();
    if (typeof data === "string") {
      const record = JSON.parse(data);
      if (record.type === "state") this.on.state(record);
      else if (record.type === "answer") this.on.answer(record);
      else if (record.type === "health") this.on.health(record.samples);
      return;
    }
    const length = new DataView(data).getUint32(0);
    const head = JSON.parse(decoder.decode(new Uint8Array(data, 4, length)));
    this.on.picture(head, new Uint8Array(data, 4 + length));
  }

  ready(side) {
    if (this.is_open()) {
      this.socket.send(JSON.stringify({ type: "ready", side: Math.round(side) }));
    }
  }
}

// A request; gives {ok, status, ...members of the reply, error}.
export async function request(method, path, body) {
  const options = { method, headers: {} };
  if (body !== undefined) {
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  try {
    const response = await fetch(path, options);
    const record = await response.json().catch(() => ({ error: `status ${response.status}` }));
    return { ...record, ok: response.ok, status: response.status };
  } catch {
    return { ok: false, status: 0, error: "foreseg does not answer; is it still running?" };
  }
}

// Saves what a path gives as a file; gives the words of what went wrong, or "".
export async function download(path) {
  const response = await fetch(path).catch(() => null);
  if (!response) return "foreseg does not answer; is it still running?";
  if (!response.ok) {
    const record = await response.json().catch(() => ({}));
    return record.error || `status ${response.status}`;
  }
  const name = /filename="([^"]+)"/.exec(response.headers.get("Content-Disposition") ?? "");
  const url = URL.createObjectURL(await response.blob());
  const anchor = document.createElement("a");
  anchor.href = url;
  anchor.download = name ? name[1] : "foreseg";
  anchor.click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
  return "";
}
