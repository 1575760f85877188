/** JSON-RPC 2.0 over WebSocket, for browsers and Node. */

export type Params = unknown[] | Record<string, unknown>;

/** Codes of errors, by name. */
export const code: Readonly<{
  parseError: -32700;
  invalidRequest: -32600;
  methodNotFound: -32601;
  invalidParams: -32602;
  internalError: -32603;
  serverError: -32000;
  timeout: -32001;
  busy: -32002;
  rateExceeded: -32003;
  cancelled: -32800;
}>;

/** What everything here fails with. */
export class WsrpcError extends Error {
  constructor(message: string);
}

/** The other side has answered with an error. Thrown by a handler, it is told to the other side as it is. */
export class RpcError extends WsrpcError {
  constructor(code: number, message: string, data?: unknown);
  readonly code: number;
  readonly data: unknown;
}

/** There was no answer in time. */
export class TimeoutError extends WsrpcError {}

/** The connection was lost or closed. `code` and `reason` are WebSocket's. */
export class ClosedError extends WsrpcError {
  constructor(message: string, code?: number, reason?: string);
  readonly code: number | undefined;
  readonly reason: string | undefined;
}

/** The other side has broken the protocol. */
export class ProtocolError extends WsrpcError {}

export interface ReconnectOptions {
  /** Milliseconds before the second attempt. Default 1000. */
  delayMin?: number;
  /** Milliseconds between attempts at most. Default 60000. */
  delayMax?: number;
  /** How much longer each delay is than the one before. Default 2. */
  factor?: number;
}

/** What a handler finds in `this`. */
export interface CallContext {
  /** Aborted when the server does not want the answer any more. */
  readonly signal: AbortSignal;
  readonly peer: Peer;
}

export type Handler = (this: CallContext, ...params: any[]) => unknown;

/** A stream that the server may subscribe to: an async generator function, or another that answers what can be iterated. */
export type Source = (this: CallContext, ...params: any[]) => AsyncIterable<unknown> | Iterable<unknown>;

export interface ConnectOptions {
  /** What the server may call. */
  methods?: Record<string, Handler>;
  /** What the server may subscribe to. */
  streams?: Record<string, Source>;
  /** A bearer token. */
  token?: string;
  /** Milliseconds that a call waits for its answer; 0 is for ever. Default 30000. */
  timeout?: number;
  /** Whether to connect again when the connection is lost. Default `true`. */
  reconnect?: boolean | ReconnectOptions;
  /** A class like the browsers' `WebSocket`, where there is none. */
  WebSocket?: new (url: string, protocols: string[]) => any;
}

export interface CallOptions {
  /** Milliseconds; 0 is for ever. */
  timeout?: number;
  /** Gives the call up, and tells the server. */
  signal?: AbortSignal;
}

export interface BatchRequest {
  method: string;
  params?: Params;
  /** Whether it is a notification. Default `false`. */
  notify?: boolean;
}

export interface BatchAnswer<T = unknown> {
  result?: T;
  error?: WsrpcError;
}

export interface StreamOptions {
  /** Values that may come before they are taken. Default 64. */
  window?: number;
  /** Whether it goes on with the next connection. Default `true`. */
  resubscribe?: boolean;
}

export interface Stream<T = unknown> extends AsyncIterableIterator<T> {
  readonly name: string;
  /** How many values wait to be taken. */
  readonly waiting: number;
  /** Wants no more. */
  close(): void;
}

export type State = "connecting" | "open" | "waiting" | "closed";

export interface StateEvent extends Event {
  readonly state: State;
  /** Why there is no connection. */
  readonly error?: ClosedError;
  /** Of "waiting": milliseconds until the next attempt. */
  readonly delay?: number;
}

export class Peer extends EventTarget {
  constructor(url: string | URL, options?: ConnectOptions);
  readonly state: State;
  on(name: string, handler?: Handler): this;
  publish(name: string, source?: Source): this;
  ready(): Promise<void>;
  call<T = unknown>(name: string, params?: Params, options?: CallOptions): Promise<T>;
  notify(name: string, params?: Params): Promise<void>;
  batch(requests: BatchRequest[], options?: CallOptions): Promise<BatchAnswer[]>;
  stream<T = unknown>(name: string, params?: Params, options?: StreamOptions): Stream<T>;
  /** While it waits for the next attempt: tries now. */
  retry(): void;
  close(code?: number, reason?: string): void;
  addEventListener(
    type: "statechange",
    listener: ((event: StateEvent) => void) | null,
    options?: boolean | AddEventListenerOptions,
  ): void;
  addEventListener(
    type: string,
    listener: EventListenerOrEventListenerObject | null,
    options?: boolean | AddEventListenerOptions,
  ): void;
}

/** Connects, and connects again when the connection is lost. The url may be a path on the page's own server. */
export function connect(url: string | URL, options?: ConnectOptions): Peer;
