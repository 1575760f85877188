// Run by wsrpc.rs: node client.mjs ADDRESS FILE. Takes the client from the server, as a page would, and tries all of it.
import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [address, file] = process.argv.slice(2);
const answer = await fetch(`http://${address}/wsrpc.js`);
assert.equal(answer.headers.get("content-type"), "text/javascript; charset=utf-8");
writeFileSync(file, await answer.text());
const { connect, RpcError, TimeoutError, ClosedError, code } = await import(pathToFileURL(file));

console.error = () => {};
const url = `http://${address}/rpc`;
const methods = {
  name: () => "node",
  boom() {
    throw new Error("secret");
  },
  made: () => made,
};
let made = 0;
let ended = null;
const streams = {
  async *numbers(last) {
    for (let number = 1; number <= last; number += 1) yield number;
  },
  async *endless() {
    try {
      while (true) yield (made += 1);
    } finally {
      ended = this.signal.aborted;
    }
  },
  async *broken() {
    yield 1;
    throw new RpcError(-9, "the button is gone");
  },
  async *secret() {
    yield 1;
    throw new Error("secret");
  },
  *unspeakable() {
    yield 1;
    yield 1n;
  },
};
const peer = connect(url, { token: "sec/ret?>", methods, streams, reconnect: { delayMin: 20, delayMax: 100 } });
const states = [];
const delays = [];
peer.addEventListener("statechange", ({ state, delay }) => {
  states.push(state);
  if (state === "waiting") delays.push(delay);
});

// Calls, both ways
assert.equal(await peer.call("add", [1, 2]), 3);
assert.equal(await peer.call("sub", { b: 1, a: 5 }), 4);
assert.equal(await peer.call("name_of_caller"), "node");
assert.deepEqual(await peer.call("code_of_failure"), { code: code.internalError, message: "Internal error" });
const sums = await Promise.all(Array.from({ length: 200 }, (_, i) => peer.call("add", [i, 1])));
assert.deepEqual(sums, Array.from({ length: 200 }, (_, i) => i + 1));

// Errors
await assert.rejects(peer.call("fail"), (error) => {
  assert.ok(error instanceof RpcError);
  assert.deepEqual([error.code, error.message, error.data], [-7, "no such sensor", { sensor: 1 }]);
  return true;
});
for (const name of ["constructor", "__proto__", "__gc", "toString"]) {
  await assert.rejects(peer.call(name), (error) => error.code === code.methodNotFound);
}
await assert.rejects(peer.call("add", "text"), TypeError);

// Giving up
await assert.rejects(peer.call("slow", [], { timeout: 20 }), TimeoutError);
const abort = new AbortController();
setTimeout(() => abort.abort(), 20);
await assert.rejects(peer.call("slow", [], { signal: abort.signal }), { name: "AbortError" });
assert.equal(await peer.call("cancelled"), 2);

// Batches
const answers = await peer.batch([
  { method: "add", params: [1, 1] },
  { method: "add", params: [2, 2], notify: true },
  { method: "nope" },
]);
assert.equal(answers.length, 2);
assert.equal(answers[0].result, 2);
assert.equal(answers[1].error.code, code.methodNotFound);

// Streams
let sum = 0;
for await (const value of peer.stream("count", [1000], { window: 8 })) sum += value;
assert.equal(sum, 500500);
const held = peer.stream("count", [100000], { window: 10 });
assert.equal(await peer.call("add", [1, 1]), 2);
assert.equal(held.waiting, 10);
held.close();
const seen = [];
await assert.rejects(
  async () => {
    for await (const value of peer.stream("broken")) seen.push(value);
  },
  (error) => error.code === -9,
);
assert.deepEqual(seen, [1]);
await assert.rejects(peer.stream("nope").next(), (error) => error.code === code.methodNotFound);
assert.equal((await peer.call("rpc.discover")).openrpc, "1.3.2");

// Streams of ours, which the server subscribes to
assert.equal(await peer.call("sum_of_page", [1000]), 500500);
assert.equal(await peer.call("sum_of_page", [0]), 0);
const several = await Promise.all([10, 20, 30].map((last) => peer.call("sum_of_page", [last])));
assert.deepEqual(several, [55, 210, 465]);
// One more than the server takes has been made, and waits here.
assert.deepEqual(await peer.call("hold_page"), { waiting: 5, made: 6 });
assert.equal(await peer.call("add", [1, 1]), 2);
assert.equal(ended, true);
const told = { first: 1, code: code.internalError, message: "Internal error" };
assert.deepEqual(await peer.call("page_fails", ["broken"]), { first: 1, code: -9, message: "the button is gone" });
assert.deepEqual(await peer.call("page_fails", ["secret"]), told);
assert.deepEqual(await peer.call("page_fails", ["unspeakable"]), told);
const nowhere = { code: code.methodNotFound, message: "Stream not found" };
for (const name of ["name", "nope", "__proto__"]) assert.deepEqual(await peer.call("page_fails", [name]), nowhere);
peer.publish("numbers");
assert.deepEqual(await peer.call("page_fails", ["numbers"]), nowhere);
peer.publish("numbers", streams.numbers);

// The server ends, and another comes
const started = peer.stream("started");
const { value: first } = await started.next();
const lost = new Promise((resolve) => peer.addEventListener("statechange", resolve, { once: true }));
await peer.notify("restart");
assert.equal((await lost).state, "waiting");
assert.equal(await peer.call("add", [3, 4]), 7);
const { value: second } = await started.next();
assert.ok(second > first);
assert.equal(await peer.call("page_after_restart"), 1);
assert.ok(delays.length > 0 && delays.every((delay) => delay >= 0 && delay <= 100), String(delays));
peer.close();
assert.equal((await started.next().catch((error) => error)) instanceof ClosedError, true);
await assert.rejects(peer.call("add", [1, 2]), ClosedError);
assert.equal(states.at(-1), "closed");

// Without the right token
const stranger = connect(url, { token: "wrong", reconnect: false });
await assert.rejects(stranger.call("add", [1, 2]), ClosedError);

// Whoever will not wait tries at once
const impatient = connect("ws://127.0.0.1:1/rpc", { reconnect: { delayMin: 1e6, delayMax: 1e9 } });
const change = (wanted) =>
  new Promise((resolve) => impatient.addEventListener("statechange", ({ state }) => state === wanted && resolve()));
await change("waiting");
const again = change("connecting");
const refused = change("waiting");
impatient.retry();
await again;
await refused;
impatient.close();
impatient.retry();
assert.equal(impatient.state, "closed");
console.log("all is well");
process.exit(0);
