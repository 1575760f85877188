// The page: shows what the device streams, and calls it. What it may call stands in METHODS of main.lua.

import { connect, ClosedError } from "/wsrpc.js";
import { Chart } from "./chart.js";

const $ = (id) => document.getElementById(id);

/** Readings that are kept, of which charts show the last minutes; entries of the log. */
const READINGS_MAX = 1800;
const ENTRIES_MAX = 100;
/** Milliseconds that a notice stays. */
const NOTICE_TIME = 6000;

// Words -------------------------------------------------------------------------

const number = (digits) => new Intl.NumberFormat(undefined, { maximumFractionDigits: digits, minimumFractionDigits: digits });
const [whole, one, two] = [number(0), number(1), number(2)];
const short = new Intl.NumberFormat(undefined, { maximumFractionDigits: 2 });
const time = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const day = new Intl.DateTimeFormat(undefined, { dateStyle: "medium" });

function bytes(value) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  const step = Math.min(units.length - 1, Math.max(0, Math.floor(Math.log(Math.max(value, 1)) / Math.log(1024))));
  const scaled = value / 1024 ** step;
  return [(step === 0 || scaled >= 100 ? whole : one).format(scaled), units[step]];
}

const inWords = (value) => bytes(value).join(" ");

function duration(seconds) {
  const [days, hours, minutes] = [Math.floor(seconds / 86400), Math.floor(seconds / 3600) % 24, Math.floor(seconds / 60) % 60];
  if (days > 0) return `${days} d ${hours} h`;
  return hours > 0 ? `${hours} h ${minutes} min` : `${minutes} min`;
}

function when(seconds) {
  const date = new Date(seconds * 1000);
  const today = day.format(date) === day.format(new Date());
  return today ? time.format(date) : `${day.format(date)}, ${time.format(date)}`;
}

// Charts ------------------------------------------------------------------------

const readings = [];
let span = 300;

const charts = {
  processor: new Chart($("charts"), {
    id: "processor",
    title: "Processor",
    names: ["busy"],
    top: 100,
    pick: ({ busy }) => busy !== undefined && [busy],
    format: (value) => `${whole.format(value)} %`,
    headline: ({ busy }) => busy !== undefined && [whole.format(busy), "%"],
    detail: ({ uptime }) => [state?.device.cores && `${state.device.cores} cores`, uptime && `up ${duration(uptime)}`].filter(Boolean).join(" · "),
  }),
  load: new Chart($("charts"), {
    id: "load",
    title: "Load",
    names: ["1 min", "5 min", "15 min"],
    pick: ({ load }) => load,
    format: (value) => (value < 10 ? two : one).format(value),
    headline: ({ load }) => load && [two.format(load[0]), ""],
    detail: ({ load }) => load?.map((value, line) => `${[1, 5, 15][line]} min ${two.format(value)}`),
  }),
  memory: new Chart($("charts"), {
    id: "memory",
    title: "Memory",
    names: ["used"],
    base: 1024,
    top: (reading) => reading?.memory?.total,
    pick: ({ memory }) => memory && [memory.used],
    format: inWords,
    headline: ({ memory }) => memory && bytes(memory.used),
    detail: ({ memory }) => memory && `${whole.format((100 * memory.used) / memory.total)} % of ${inWords(memory.total)}`,
  }),
  network: new Chart($("charts"), {
    id: "network",
    title: "Network",
    names: ["received", "sent"],
    base: 1024,
    least: 1024,
    pick: ({ network }) => network && [network.received, network.sent],
    format: (value) => `${inWords(value)}/s`,
    headline: ({ network }) => network && rate(network.received),
    detail: ({ network }) => network && [`received ${rate(network.received).join(" ")}`, `sent ${rate(network.sent).join(" ")}`],
  }),
  temperature: new Chart($("charts"), {
    id: "temperature",
    title: "Temperature",
    names: [0, 1, 2, 3].map((line) => ({ temperatures }) => temperatures[line]?.name),
    least: 50,
    pick: ({ temperatures }) => temperatures?.map(({ celsius }) => celsius),
    format: (value) => `${one.format(value)} °C`,
    headline: ({ temperatures }) => temperatures?.[0].celsius !== undefined && [one.format(temperatures[0].celsius), "°C"],
    detail: ({ temperatures }) => temperatures?.map(({ name, celsius }) => celsius !== undefined && `${name} ${one.format(celsius)} °C`),
  }),
};

function rate(value) {
  const [scaled, unit] = bytes(value);
  return [scaled, `${unit}/s`];
}

function showCharts() {
  for (const chart of Object.values(charts)) chart.show(readings, span);
}

function takeReadings(list) {
  let latest = readings.at(-1)?.at ?? 0;
  // Somebody has set the device's clock back.
  if (list.at(-1).at < latest) {
    readings.length = 0;
    latest = 0;
  }
  // After a reconnection the first list has what is known already.
  readings.push(...list.filter(({ at }) => at > latest));
  readings.splice(0, readings.length - READINGS_MAX);
  showCharts();
}

$("span").addEventListener("change", ({ target }) => {
  span = Number(target.value);
  showCharts();
});

// The device ----------------------------------------------------------------------

let state = null;

function showState() {
  const { device, relay, interval, broker, has_sensors: hasSensors } = state;
  $("name").textContent = device.name;
  document.title = device.name;
  $("about").textContent = [device.model, device.system].filter(Boolean).join(" · ");
  charts.temperature.setMissing(hasSensors ? null : "This machine has no sensor of temperature");
  const pin = relay.output ? ` · ${relay.output}` : "";
  $("relay-text").textContent = relay.since ? `${relay.on ? "On" : "Off"} since ${when(relay.since)}${pin}` : `Off${pin}`;
  $("relay").setAttribute("aria-checked", String(relay.on));
  for (const input of $("interval").querySelectorAll("input")) input.checked = Number(input.value) === interval;
  $("broker").textContent = broker ? `MQTT: ${broker.state}, ${broker.address}` : "";
  $("broker").dataset.state = broker?.state ?? "none";
  $("fleet").hidden = !broker;
}

/** Controls can be used while the device is there. */
function showControls() {
  const usable = peer.state === "open" && state !== null;
  $("relay").setAttribute("aria-disabled", String(!usable));
  $("interval").disabled = !usable;
}

async function ask(method, params, element) {
  element.setAttribute("aria-busy", "true");
  try {
    await peer.call(method, params, { timeout: 5000 });
  } catch (error) {
    notice(error instanceof ClosedError ? "The connection was lost before the device had answered." : `The device says: ${error.message}`, "error");
    // What was chosen is not what is.
    if (state) showState();
  } finally {
    element.removeAttribute("aria-busy");
  }
}

$("relay").addEventListener("click", ({ currentTarget }) => {
  if (currentTarget.getAttribute("aria-disabled") === "true" || currentTarget.ariaBusy === "true") return;
  void ask("set_relay", { on: !state.relay.on }, currentTarget);
});

$("interval").addEventListener("change", ({ target, currentTarget }) => {
  void ask("set_interval", { seconds: Number(target.value) }, currentTarget);
});

// The log, other devices, notices -------------------------------------------------

let lastEntry = 0;

function element(name, className, ...content) {
  const made = document.createElement(name);
  made.className = className;
  made.append(...content);
  return made;
}

function takeEntries(list) {
  // A device that has lost its memory begins anew.
  if (list.at(-1).id < lastEntry) {
    lastEntry = 0;
    $("log").replaceChildren();
  }
  for (const { id, at, kind, text } of list.filter((entry) => entry.id > lastEntry)) {
    const stamp = element("time", "muted", when(at));
    stamp.dateTime = new Date(at * 1000).toISOString();
    const line = element("li", "", stamp, element("span", "", text));
    line.dataset.kind = kind;
    $("log").prepend(line);
    lastEntry = id;
  }
  while ($("log").children.length > ENTRIES_MAX) $("log").lastElementChild.remove();
  $("log-box").hidden = false;
  $("log-empty").hidden = true;
}

function takeDevices([...lists]) {
  const devices = lists.at(-1);
  $("devices").replaceChildren(
    ...devices.map(({ name, at, numbers }) => {
      const list = element("dl", "");
      for (const { name: key, value } of numbers) {
        list.append(element("dt", "muted", key.replaceAll("_", " ")), element("dd", "", short.format(value)));
      }
      const card = element("li", "card device", element("h3", "", name), element("p", "muted", `heard ${when(at)}`), list);
      card.dataset.name = name;
      return card;
    }),
  );
  $("devices-empty").hidden = devices.length > 0;
}

function notice(text, kind = "note") {
  const toast = element("p", "toast", text);
  toast.dataset.kind = kind;
  $("toasts").append(toast);
  setTimeout(() => toast.remove(), NOTICE_TIME);
}

// The connection ------------------------------------------------------------------

const TEXTS = { connecting: "Connecting", open: "Live", waiting: "Offline", closed: "Closed" };

function remembered() {
  // A token behind # is for us alone: browsers do not send it, and it shall not stay in sight.
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given) {
    sessionStorage.setItem("token", given);
    history.replaceState(null, "", location.pathname);
  }
  return sessionStorage.getItem("token") ?? undefined;
}

const peer = connect("/rpc", {
  token: remembered(),
  reconnect: { delayMin: 500, delayMax: 15000 },
  methods: { notice: ({ text }) => notice(text) },
});

let wasOpen = false;
let countdown = null;

peer.addEventListener("statechange", ({ state: now, delay }) => {
  // Attempts to connect again go on below the banner.
  if (now === "connecting" && wasOpen) return;
  document.body.dataset.connection = now;
  $("connection-text").textContent = TEXTS[now];
  clearInterval(countdown);
  if (now === "open") {
    wasOpen = true;
    $("offline").hidden = true;
  } else if (now === "waiting") {
    $("offline-text").textContent = wasOpen
      ? "The device does not answer. What you see is what it said last."
      : "The device does not answer.";
    $("offline").hidden = false;
    count(delay);
    if (!wasOpen) void askForToken();
  }
  showControls();
});

/** Says when the next attempt is. */
function count(delay) {
  const end = Date.now() + delay;
  const show = () => {
    const left = Math.ceil((end - Date.now()) / 1000);
    $("offline-next").textContent = left > 0 ? `Next attempt in ${left} s` : "Trying to connect";
  };
  show();
  countdown = setInterval(show, 1000);
}

/** Browsers do not tell pages why a WebSocket was refused, but a plain request is answered. */
async function askForToken() {
  const token = sessionStorage.getItem("token");
  // What no token can be is not sent, and refused as well.
  const headers = /^[!-~]+$/.test(token) ? { Authorization: `Bearer ${token}` } : {};
  const { status } = await fetch("/rpc", { headers }).catch(() => ({ status: 0 }));
  if ((status !== 401 && status !== 403) || $("login").open) return;
  if (token) $("login-text").textContent = "That was not the right one.";
  peer.close();
  $("offline").hidden = true;
  $("login").showModal();
}

$("login").addEventListener("close", () => {
  sessionStorage.setItem("token", $("token").value);
  location.reload();
});

$("retry").addEventListener("click", () => peer.retry());
addEventListener("online", () => peer.retry());
document.addEventListener("visibilitychange", () => document.hidden || peer.retry());

/** Follows a stream of the device, whatever becomes of connections. */
async function follow(name, take) {
  try {
    for await (const list of peer.stream(name)) take(list);
  } catch (error) {
    // Closed for good: a token is asked for.
    if (!(error instanceof ClosedError)) throw error;
  }
}

follow("readings", takeReadings);
follow("log", takeEntries);
follow("devices", takeDevices);
follow("state", (list) => {
  state = list.at(-1);
  showState();
  showControls();
  showCharts();
});

// The theme -----------------------------------------------------------------------

const THEMES = { system: "as the system", light: "light", dark: "dark" };

function showTheme() {
  $("theme").setAttribute("aria-label", `Theme: ${THEMES[document.documentElement.dataset.theme]}`);
  $("theme").title = $("theme").ariaLabel;
}

$("theme").addEventListener("click", () => {
  const names = Object.keys(THEMES);
  const { dataset } = document.documentElement;
  dataset.theme = names[(names.indexOf(dataset.theme) + 1) % names.length];
  localStorage.setItem("theme", dataset.theme);
  showTheme();
});

showTheme();
