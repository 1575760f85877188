// JSON-RPC 2.0 over WebSocket, for browsers and Node: both sides call each other, and stream values to each other.
//
//     import { connect } from "/wsrpc.js";
//
//     const peer = connect("/rpc");
//     peer.on("blink", ({ times }) => times * 2);
//     console.log(await peer.call("add", [1, 2]));
//     for await (const reading of peer.stream("temperature", { sensor: 1 })) show(reading);
//     peer.publish("clicks", async function* () { while (!this.signal.aborted) yield await click(); });
//
// One file, no dependencies. What it adds to JSON-RPC (cancelling, streams) is told at the head of wsrpc/session.lua.

/** The protocol between the two sides, as the server calls it. */
const SUBPROTOCOL = "jsonrpc";
/** Bytes of a server's message. */
const MESSAGE_MAX = 16 * 1024 * 1024;
/** Calls of the server that run at a time. */
const CALLS_MAX = 256;
/** Streams that the server may have of us at a time, and values that it may ask for at once. */
const PUBLICATIONS_MAX = 100;
const CREDIT_MAX = 1000000;
/** Bytes that may wait to be sent before calls are refused, and before streams wait. */
const QUEUE_MAX = 16 * 1024 * 1024;
const QUEUE_HIGH = 1024 * 1024;
/** Milliseconds between two looks at what waits to be sent: browsers do not tell when it has gone. */
const QUEUE_LOOK = 20;
/** A connection that lasted so many milliseconds was a good one: the next attempt is a first one. */
const STABLE = 10000;

/** Codes of errors, by name. */
export const code = Object.freeze({
  parseError: -32700,
  invalidRequest: -32600,
  methodNotFound: -32601,
  invalidParams: -32602,
  internalError: -32603,
  serverError: -32000,
  timeout: -32001,
  busy: -32002,
  rateExceeded: -32003,
  cancelled: -32800,
});

/** What everything here fails with. */
export class WsrpcError extends Error {
  constructor(message) {
    super(message);
    this.name = new.target.name;
  }
}

/** The other side has answered with an error. Thrown by a handler of ours, it is told to the other side as it is. */
export class RpcError extends WsrpcError {
  constructor(number, message, data) {
    super(message);
    this.code = number;
    this.data = data;
  }
}

/** There was no answer in time. */
export class TimeoutError extends WsrpcError {}

/** The connection was lost or closed. `code` and `reason` are WebSocket's. */
export class ClosedError extends WsrpcError {
  constructor(message, number, reason) {
    super(message);
    this.code = number;
    this.reason = reason;
  }
}

/** The other side has broken the protocol. */
export class ProtocolError extends WsrpcError {}

const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
const isFault = (value) => isObject(value) && Number.isInteger(value.code) && typeof value.message === "string";
const isParams = (value) => value === undefined || (typeof value === "object" && value !== null);
const isId = (value) => typeof value === "string" || typeof value === "number" || value === null;

const toError = (fault) =>
  isFault(fault)
    ? new RpcError(fault.code, fault.message, fault.data)
    : new ProtocolError("the answer is no JSON-RPC 2.0 response");

/** Calls a function of the page's: positional params are its arguments, named ones an object. */
const invoke = (fn, context, params) => (Array.isArray(params) ? fn.call(context, ...params) : fn.call(context, params));

/** What the server is told of an error. */
function toFault(error, name) {
  if (error instanceof RpcError) return { code: error.code, message: error.message, data: error.data };
  // Its words stay here: they may tell of what is nobody's business.
  console.error(`wsrpc: ${name} failed`, error);
  return { code: code.internalError, message: "Internal error" };
}

/** A token as a subprotocol: pages cannot send an Authorization field. */
function tokenProtocol(token) {
  let binary = "";
  for (const byte of new TextEncoder().encode(token)) binary += String.fromCharCode(byte);
  return "bearer." + btoa(binary).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
}

function absolute(url) {
  const base = typeof location === "undefined" ? undefined : location.href;
  const whole = new URL(url, base);
  if (whole.protocol === "http:") whole.protocol = "ws:";
  if (whole.protocol === "https:") whole.protocol = "wss:";
  return whole.href;
}

/** A stream of the server: an async iterator. Leaving the loop ends it over there. */
class Stream {
  #peer;
  #values = [];
  #waiting = [];
  #taken = 0;
  #over = false;
  #error = null;

  constructor(peer, name, params, options) {
    this.#peer = peer;
    this.name = name;
    this.params = params;
    this.window = Math.max(1, options.window ?? 64);
    this.resubscribe = options.resubscribe !== false;
    this.confirmed = false;
    this.id = null;
  }

  [Symbol.asyncIterator]() {
    return this;
  }

  next() {
    if (this.#values.length > 0) {
      const value = this.#values.shift();
      this.#taken += 1;
      if (this.id !== null && this.#taken * 2 >= this.window) {
        this.#peer._tell("rpc.credit", { subscription: this.id, credit: this.#taken });
        this.#taken = 0;
      }
      return Promise.resolve({ value, done: false });
    }
    if (this.#over) {
      const error = this.#error;
      this.#error = null;
      return error ? Promise.reject(error) : Promise.resolve({ value: undefined, done: true });
    }
    return new Promise((resolve, reject) => this.#waiting.push({ resolve, reject }));
  }

  /** Wants no more. */
  return(value) {
    this.#values = [];
    if (!this.#over) {
      this.#peer._unsubscribe(this);
      this._finish(null);
    }
    this.#error = null;
    return Promise.resolve({ value, done: true });
  }

  /** Wants no more. */
  close() {
    void this.return();
  }

  /** How many values wait to be taken. */
  get waiting() {
    return this.#values.length;
  }

  _credit() {
    this.#taken = 0;
    return Math.max(1, this.window - this.#values.length);
  }

  _push(value) {
    const first = this.#waiting.shift();
    this.#values.push(value);
    if (first) this.next().then(first.resolve, first.reject);
  }

  _finish(error) {
    if (this.#over) return;
    this.#over = true;
    this.#error = error;
    this.id = null;
    for (const one of this.#waiting.splice(0)) this.next().then(one.resolve, one.reject);
  }
}

/** One side of a connection: see `connect`. */
export class Peer extends EventTarget {
  #url;
  #options;
  #socket = null;
  #state = "connecting";
  #handlers = new Map();
  #pending = new Map();
  #streams = new Set();
  #feeds = new Map();
  #running = new Map();
  #sources = new Map();
  #publications = new Map();
  #lastId = 0;
  #attempts = 0;
  #opened = 0;
  #timer = null;
  #whenOpen = [];

  constructor(url, options = {}) {
    super();
    this.#url = absolute(url);
    this.#options = options;
    for (const [name, fn] of Object.entries(options.methods ?? {})) this.on(name, fn);
    for (const [name, fn] of Object.entries(options.streams ?? {})) this.publish(name, fn);
    this.#connect();
  }

  /** "connecting", "open", "waiting" (for the next attempt) or "closed". */
  get state() {
    return this.#state;
  }

  /** Lets the server call `fn`; without one, takes it back. Positional params are its arguments, named ones an object. */
  on(name, fn) {
    if (fn) this.#handlers.set(name, fn);
    else this.#handlers.delete(name);
    return this;
  }

  /**
   * Lets the server subscribe to what `fn` answers, an async iterable: `fn` is an async generator, say. Without one, takes
   * it back. It is asked for the next value when the server takes more; `this.signal` says when it wants none.
   */
  publish(name, fn) {
    if (fn) this.#sources.set(name, fn);
    else this.#sources.delete(name);
    return this;
  }

  /** Resolves when a connection is open. */
  ready() {
    if (this.#state === "open") return Promise.resolve();
    if (this.#state === "closed") return Promise.reject(new ClosedError("the connection has been closed"));
    return new Promise((resolve, reject) => this.#whenOpen.push({ resolve, reject }));
  }

  /** Calls a method of the server. `options`: `timeout` in milliseconds (default 30000), `signal` to give it up. */
  call(name, params, options = {}) {
    return this.#within(options, (waiter) => {
      this.#send(this.#request(name, params, waiter));
    });
  }

  /** Tells the server something; there is no answer. Resolves when it is on its way. */
  async notify(name, params) {
    if (this.#state !== "open") await this.ready();
    this.#send(this.#message(undefined, name, params));
  }

  /**
   * Makes several calls as one message: `[{ method, params, notify }]`. The answers, in order, are `{ result }` or
   * `{ error }`; notifications have none.
   */
  batch(requests, options = {}) {
    if (!Array.isArray(requests) || requests.length === 0) {
      return Promise.reject(new TypeError("batch: a list of requests is wanted"));
    }
    return this.#within(options, (waiter) => {
      const answers = [];
      let due = 0;
      const texts = requests.map(({ method, params, notify }) => {
        if (notify) return this.#message(undefined, method, params);
        const at = due;
        due += 1;
        const settle = (answer) => {
          answers[at] = answer;
          due -= 1;
          if (due === 0) waiter.resolve(answers);
        };
        const one = {
          resolve: (result) => settle({ result }),
          reject: (error) => (error instanceof ClosedError ? waiter.reject(error) : settle({ error })),
        };
        const text = this.#request(method, params, one);
        waiter.ids.push(...one.ids);
        return text;
      });
      this.#send("[" + texts.join(",") + "]");
      if (waiter.ids.length === 0) waiter.resolve([]);
    });
  }

  /**
   * Subscribes: `for await (const value of peer.stream("name", params))`. The loop throws when the stream ends with an
   * error. `options`: `window`, the values that may come before they are taken (default 64); `resubscribe` (default
   * true), whether it goes on with the next connection.
   */
  stream(name, params, options = {}) {
    const one = new Stream(this, name, params, options);
    if (this.#state === "closed") {
      one._finish(new ClosedError("the connection has been closed"));
      return one;
    }
    this.#streams.add(one);
    if (this.#state === "open") this.#subscribe(one);
    return one;
  }

  /** While it waits for the next attempt: tries now. */
  retry() {
    if (this.#state !== "waiting") return;
    clearTimeout(this.#timer);
    this.#connect();
  }

  /** Closes for good. */
  close(number = 1000, reason = "") {
    if (this.#state === "closed") return;
    const socket = this.#socket;
    this.#end(new ClosedError("the connection has been closed", number, reason));
    if (socket) socket.close(number, reason);
  }

  // The connection

  #connect() {
    this.#change("connecting");
    const { token, WebSocket: given } = this.#options;
    const Socket = given ?? globalThis.WebSocket;
    if (!Socket) throw new WsrpcError("no WebSocket here: give one as the option WebSocket");
    const protocols = token === undefined ? [SUBPROTOCOL] : [SUBPROTOCOL, tokenProtocol(token)];
    const socket = new Socket(this.#url, protocols);
    this.#socket = socket;
    socket.onopen = () => {
      if (this.#socket !== socket) return;
      this.#opened = Date.now();
      this.#change("open");
      for (const one of this.#streams) this.#subscribe(one);
      for (const one of this.#whenOpen.splice(0)) one.resolve();
    };
    socket.onmessage = ({ data }) => {
      if (this.#socket === socket) this.#receive(data);
    };
    socket.onerror = () => {
      // Not everywhere does a connection that could not be made end with a close event, too.
      if (this.#socket === socket && this.#state === "connecting") {
        this.#lost(new ClosedError("the connection could not be made", 1006, ""));
      }
    };
    socket.onclose = ({ code: number, reason }) => {
      if (this.#socket !== socket) return;
      this.#lost(new ClosedError(`the connection is lost: ${reason || number}`, number, reason));
    };
  }

  #change(state, error, delay) {
    if (this.#state === state && state !== "connecting") return;
    this.#state = state;
    const event = new Event("statechange");
    Object.assign(event, { state, error, delay });
    this.dispatchEvent(event);
  }

  /** Nothing of this connection will be answered. */
  #drop(error) {
    this.#socket = null;
    const pending = [...this.#pending.values()];
    this.#pending.clear();
    this.#feeds.clear();
    for (const running of this.#running.values()) running.abort(error);
    this.#running.clear();
    for (const one of this.#publications.values()) one.stop(error);
    this.#publications.clear();
    for (const one of this.#streams) one.id = null;
    for (const one of pending) one.reject(error);
  }

  #lost(error) {
    const { reconnect = true } = this.#options;
    if (reconnect === false) return this.#end(error);
    if (this.#opened && Date.now() - this.#opened >= STABLE) this.#attempts = 0;
    this.#opened = 0;
    this.#drop(error);
    for (const one of [...this.#streams]) {
      if (one.resubscribe) continue;
      this.#streams.delete(one);
      one._finish(error);
    }
    const { delayMin = 1000, delayMax = 60000, factor = 2 } = reconnect === true ? {} : reconnect;
    const attempts = this.#attempts;
    this.#attempts += 1;
    // Spread, so that the pages of a server that comes back do not come all at once.
    const delay =
      attempts === 0
        ? delayMin * Math.random()
        : Math.min(delayMax, delayMin * factor ** (attempts - 1)) * (0.5 + 0.5 * Math.random());
    this.#change("waiting", error, delay);
    if (this.#state === "waiting") this.#timer = setTimeout(() => this.#connect(), delay);
  }

  #end(error) {
    clearTimeout(this.#timer);
    this.#state = "closing";
    this.#drop(error);
    for (const one of this.#streams) one._finish(error);
    this.#streams.clear();
    for (const one of this.#whenOpen.splice(0)) one.reject(error);
    this.#change("closed", error);
  }

  // Sending

  #send(text) {
    if (this.#state !== "open") throw new ClosedError("there is no connection");
    if (this.#socket.bufferedAmount > QUEUE_MAX) throw new WsrpcError("too much waits to be sent");
    this.#socket.send(text);
  }

  #message(id, method, params) {
    if (typeof method !== "string") throw new TypeError("the method must be a string");
    if (!isParams(params)) {
      throw new TypeError("params must be an array or an object");
    }
    return JSON.stringify({ jsonrpc: "2.0", id, method, params });
  }

  #request(method, params, waiter) {
    const id = this.#lastId + 1;
    const text = this.#message(id, method, params);
    this.#lastId = id;
    this.#pending.set(id, waiter);
    waiter.ids = [...(waiter.ids ?? []), id];
    return text;
  }

  /** Runs `start` once a connection is open, with a time and a signal that give its calls up. */
  #within({ timeout = this.#options.timeout ?? 30000, signal }, start) {
    return new Promise((resolve, reject) => {
      let timer = null;
      const waiter = { ids: [], done: false };
      const settle = (how) => (value) => {
        if (waiter.done) return;
        waiter.done = true;
        clearTimeout(timer);
        signal?.removeEventListener("abort", abort);
        how(value);
      };
      waiter.resolve = settle(resolve);
      waiter.reject = settle(reject);
      const giveUp = (error) => {
        if (waiter.done) return;
        for (const id of waiter.ids) {
          if (this.#pending.delete(id)) this._tell("$/cancelRequest", { id });
        }
        waiter.reject(error);
      };
      const abort = () => giveUp(signal.reason);
      if (signal?.aborted) return waiter.reject(signal.reason);
      signal?.addEventListener("abort", abort);
      if (timeout > 0 && timeout !== Infinity) {
        timer = setTimeout(() => giveUp(new TimeoutError(`no answer within ${timeout} ms`)), timeout);
      }
      const run = () => {
        if (waiter.done) return;
        try {
          start(waiter);
        } catch (error) {
          for (const id of waiter.ids) this.#pending.delete(id);
          waiter.reject(error);
        }
      };
      if (this.#state === "open") run();
      else this.ready().then(run, waiter.reject);
    });
  }

  /** A notification, if there is a connection to send it on. */
  _tell(method, params) {
    if (this.#state === "open") this.#socket.send(this.#message(undefined, method, params));
  }

  #subscribe(one) {
    const waiter = {
      resolve: () => {
        one.confirmed = true;
      },
      reject: (error) => {
        // Of a lost connection, the next one takes care.
        if (error instanceof ClosedError) return;
        this.#feeds.delete(id);
        this.#streams.delete(one);
        one._finish(error);
      },
    };
    const id = this.#lastId + 1;
    const credit = one._credit();
    try {
      const text = this.#request("rpc.subscribe", { subscription: id, name: one.name, params: one.params, credit }, waiter);
      one.id = id;
      one.allowed = credit;
      this.#feeds.set(id, one);
      this.#send(text);
    } catch (error) {
      this.#pending.delete(id);
      waiter.reject(error);
    }
  }

  _unsubscribe(one) {
    this.#streams.delete(one);
    if (one.id === null) return;
    this.#feeds.delete(one.id);
    this.#pending.delete(one.id);
    this._tell("rpc.unsubscribe", { subscription: one.id });
  }

  // Receiving

  #receive(data) {
    if (typeof data !== "string") return this.#socket.close(3003, "JSON-RPC is text");
    if (data.length > MESSAGE_MAX) return this.#socket.close(3009, "the message is too long");
    let message;
    try {
      message = JSON.parse(data);
    } catch {
      return this.#fail(null, code.parseError, "Parse error");
    }
    if (!Array.isArray(message)) return void this.#take(message, (answer) => this.#answer(answer));
    if (message.length === 0) return this.#fail(null, code.invalidRequest, "Invalid Request");
    const answers = [];
    let due = message.length;
    const collect = (answer) => {
      if (answer) answers.push(answer);
      due -= 1;
      if (due === 0 && answers.length > 0) this.#answer(answers);
    };
    for (const one of message) this.#take(one, collect);
  }

  #answer(answer) {
    if (answer && this.#state === "open") this.#socket.send(JSON.stringify(answer));
  }

  #fail(id, number, text) {
    this.#answer({ jsonrpc: "2.0", id, error: { code: number, message: text } });
  }

  /** Takes one message; `done` is called once, with the answer if there is one. */
  #take(message, done) {
    if (isObject(message) && message.method === undefined && ("result" in message || "error" in message)) {
      this.#takeResponse(message);
      return done(null);
    }
    const wrong = (id, number, text, data) =>
      done({ jsonrpc: "2.0", id, error: { code: number, message: text, data } });
    if (!isObject(message)) return wrong(null, code.invalidRequest, "Invalid Request");
    const { id, method, params } = message;
    const valid =
      message.jsonrpc === "2.0" &&
      typeof method === "string" &&
      (id === undefined || isId(id)) &&
      isParams(params) &&
      !this.#running.has(id ?? undefined);
    if (!valid) return wrong(id !== undefined && isId(id) ? id : null, code.invalidRequest, "Invalid Request");
    if (id === undefined && this.#control(method, params ?? {})) return done(null);
    if (method === "rpc.subscribe") return this.#takeSubscribe(id, params ?? {}, done, wrong);
    const handler = this.#handlers.get(method);
    if (!handler) {
      return id === undefined ? done(null) : wrong(id, code.methodNotFound, "Method not found");
    }
    if (this.#running.size >= CALLS_MAX) {
      return id === undefined ? done(null) : wrong(id, code.busy, "Too many calls");
    }
    const abort = new AbortController();
    const key = id ?? Symbol("call");
    this.#running.set(key, abort);
    const socket = this.#socket;
    const finish = (answer) => {
      if (this.#running.get(key) === abort) this.#running.delete(key);
      // What belongs to a connection that is over is for nobody.
      if (this.#socket === socket) done(id === undefined ? null : answer);
    };
    const context = { signal: abort.signal, peer: this };
    Promise.resolve()
      .then(() => invoke(handler, context, params))
      .then(
        (result) => finish({ jsonrpc: "2.0", id, result: result === undefined ? null : result }),
        (error) => {
          if (abort.signal.aborted) {
            return finish({ jsonrpc: "2.0", id, error: { code: code.cancelled, message: "Request cancelled" } });
          }
          finish({ jsonrpc: "2.0", id, error: toFault(error, method) });
        },
      );
  }

  #takeResponse(message) {
    const waiter = this.#pending.get(message.id);
    if (!waiter) return;
    this.#pending.delete(message.id);
    const hasResult = "result" in message;
    if (message.jsonrpc !== "2.0" || hasResult === "error" in message) {
      waiter.reject(new ProtocolError("the answer is no JSON-RPC 2.0 response"));
    } else if (hasResult) waiter.resolve(message.result);
    else waiter.reject(toError(message.error));
  }

  /** The server subscribes to a stream of ours. */
  #takeSubscribe(id, { subscription, name, params, credit }, done, wrong) {
    const valid =
      (typeof subscription === "string" || Number.isInteger(subscription)) &&
      typeof name === "string" &&
      Number.isInteger(credit) &&
      credit >= 1 &&
      isParams(params) &&
      !this.#publications.has(subscription);
    if (!valid) return wrong(id, code.invalidParams, "Invalid params");
    const source = this.#sources.get(name);
    if (!source) return wrong(id, code.methodNotFound, "Stream not found");
    if (this.#publications.size >= PUBLICATIONS_MAX) return wrong(id, code.busy, "Too many subscriptions");
    const abort = new AbortController();
    const one = {
      signal: abort.signal,
      credit: Math.min(credit, CREDIT_MAX),
      wake: null,
      grant(more) {
        one.credit = Math.min(one.credit + more, CREDIT_MAX);
        one.wake?.();
      },
      stop(reason) {
        abort.abort(reason);
        one.wake?.();
      },
    };
    this.#publications.set(subscription, one);
    done({ jsonrpc: "2.0", id, result: true });
    void this.#publish(subscription, one, name, source, params);
  }

  /** Sends the values of a stream of ours, as many as the server takes. */
  async #publish(subscription, one, name, source, params) {
    let error;
    try {
      for await (const value of invoke(source, { signal: one.signal, peer: this }, params)) {
        while (one.credit < 1 && !one.signal.aborted) await new Promise((resolve) => (one.wake = resolve));
        while (!one.signal.aborted && this.#socket.bufferedAmount > QUEUE_HIGH) {
          await new Promise((resolve) => setTimeout(resolve, QUEUE_LOOK));
        }
        // Leaving the loop ends the generator, too.
        if (one.signal.aborted) return;
        this.#send(this.#message(undefined, "rpc.next", { subscription, value: value === undefined ? null : value }));
        one.credit -= 1;
      }
    } catch (raised) {
      if (!one.signal.aborted) error = toFault(raised, name);
    }
    if (one.signal.aborted) return;
    this.#publications.delete(subscription);
    this._tell("rpc.end", { subscription, error });
  }

  /** Notifications of this layer: whether it was one. */
  #control(method, params) {
    if (method === "$/cancelRequest") {
      this.#running.get(params.id)?.abort(new RpcError(code.cancelled, "Request cancelled"));
      return true;
    }
    if (method === "rpc.credit") {
      if (Number.isInteger(params.credit) && params.credit > 0) {
        this.#publications.get(params.subscription)?.grant(params.credit);
      }
      return true;
    }
    if (method === "rpc.unsubscribe") {
      this.#publications.get(params.subscription)?.stop(new RpcError(code.cancelled, "Unsubscribed"));
      this.#publications.delete(params.subscription);
      return true;
    }
    if (method !== "rpc.next" && method !== "rpc.end") return method.startsWith("rpc.");
    const one = this.#feeds.get(params.subscription);
    if (!one) return true;
    if (method === "rpc.next") {
      if (one.waiting >= one.window) {
        this._unsubscribe(one);
        one._finish(new ProtocolError("the publisher sends more than it was allowed to"));
      } else one._push(params.value);
      return true;
    }
    this.#feeds.delete(params.subscription);
    this.#streams.delete(one);
    one._finish(params.error === undefined || params.error === null ? null : toError(params.error));
    return true;
  }
}

/**
 * Connects, and connects again when the connection is lost. The url may be a path on the page's own server; `options`:
 * `methods` the server may call, `streams` it may subscribe to, `token`, `timeout` of calls in milliseconds, `reconnect`
 * (`false`, or `delayMin`, `delayMax` in milliseconds and `factor`), `WebSocket` where there is none.
 */
export function connect(url, options) {
  return new Peer(url, options);
}
