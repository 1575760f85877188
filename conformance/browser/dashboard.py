"""examples/dashboard in real Chromium, driven by Playwright.

    dashboard.py --moonwire PATH --root PATH --chromium PATH --artefacts DIR [--broker HOST:PORT] CASE...

Prints `passed CASE` or `failed CASE: why` for each. Nothing here sleeps: whatever is waited for is a condition.
"""

import argparse
import contextlib
import json
import os
import pathlib
import queue
import signal
import subprocess
import tempfile
import threading
import traceback

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

# Milliseconds that something may take on a machine that is busy.
PATIENCE = 15000
# A name that somebody has made to lead to the device.
STRANGER = "stranger.example"
# Nothing that asks other hosts for anything; the sandbox is on for everybody but root.
FLAGS = [
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    f"--host-resolver-rules=MAP {STRANGER} 127.0.0.1",
]
DESKTOP = {"viewport": {"width": 1280, "height": 900}}
PHONE = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 3, "is_mobile": True, "has_touch": True}

CASES = {}


def case(name):
    def keep(function):
        CASES[name] = function
        return function

    return keep


def check(condition, what):
    if not condition:
        raise AssertionError(what)


def equal(found, wanted, what=""):
    check(found == wanted, f"{what} is {found!r}, not {wanted!r}")


# The device ----------------------------------------------------------------------


class Lines:
    """The lines of a program, as they come."""

    def __init__(self, process):
        self.lines = queue.Queue()
        threading.Thread(target=self.read, args=(process.stdout,), daemon=True).start()

    def read(self, stdout):
        for line in stdout:
            self.lines.put(line.rstrip("\n"))
        self.lines.put(None)

    def wait_for(self, wanted, what):
        seen = []
        while True:
            try:
                line = self.lines.get(timeout=PATIENCE / 1000)
            except queue.Empty:
                line = None
            if line is None:
                raise AssertionError(f"no {what}; it printed {seen}")
            seen.append(line)
            if wanted(line):
                return line


class Device:
    """A dashboard that runs: a process, its address, and what it writes."""

    def __init__(self, world, **environment):
        self.world = world
        self.options = world.options
        self.folder = pathlib.Path(tempfile.mkdtemp(dir=self.options.temporary))
        self.environment = environment
        self.relay = self.folder / "relay"
        self.sys = self.folder / "sys"
        self.proc = None
        self.listen = "127.0.0.1:0"
        self.process = None

    def fake_sensor(self, celsius):
        """A temperature as Linux tells it; replaced whole, as readers may look at any time."""
        zone = self.sys / "class/thermal/thermal_zone0"
        zone.mkdir(parents=True, exist_ok=True)
        write(zone / "type", "cpu-thermal\n")
        write(zone / "temp", f"{celsius * 1000:.0f}\n")

    def start(self):
        command = [self.options.moonwire, "examples/dashboard/main.lua", "--listen", self.listen]
        command += ["--state", str(self.folder / "state.db"), "--relay", str(self.relay), "--sys", str(self.sys)]
        if self.proc:
            command += ["--proc", str(self.proc)]
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("MQTT_", "DASHBOARD_"))}
        self.log = open(self.folder / "log", "ab")
        self.process = subprocess.Popen(
            command,
            cwd=self.options.root,
            env={**environment, **self.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
        )
        line = Lines(self.process).wait_for(lambda line: line.startswith("dashboard: "), "address")
        self.url = line.removeprefix("dashboard: ")
        # It comes back at the same place.
        self.listen = self.url.removeprefix("http://").rstrip("/")
        return self

    def end(self, how):
        self.process.send_signal(how)
        return self.process.wait(timeout=PATIENCE / 1000)

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        # Pages would miss it.
        self.world.close_pages()
        if self.process.poll() is None:
            self.end(signal.SIGKILL)
        self.log.close()


def write(path, text):
    new = path.with_name(path.name + ".new")
    new.write_text(text)
    new.replace(path)


# Pages -----------------------------------------------------------------------------


class World:
    """The browser, and what is looked at with it."""

    def __init__(self, browser, options):
        self.browser = browser
        self.options = options
        self.troubles = []
        self.allowed = []
        self.contexts = []

    def device(self, **environment):
        device = Device(self, **environment)
        device.fake_sensor(48.5)
        return device

    def context(self, **settings):
        context = self.browser.new_context(locale="en-GB", **settings)
        context.set_default_timeout(PATIENCE)
        self.contexts.append(context)
        return context

    def page(self, device, context=None, path="", wait=True, **settings):
        page = (context or self.context(**(settings or DESKTOP))).new_page()
        page.on("pageerror", lambda error: self.troubles.append(f"error: {error}"))
        page.on("console", self.hear)
        page.goto(device.url + path)
        if wait:
            self.wait_open(page)
        return page

    def hear(self, message):
        if message.type in ("error", "warning") and not any(part in message.text for part in self.allowed):
            self.troubles.append(f"console {message.type}: {message.text}")

    def wait_open(self, page):
        page.wait_for_selector('body[data-connection="open"]')
        page.wait_for_selector('[data-chart="load"] .plot:not(.waiting)')
        page.wait_for_selector('#relay[aria-disabled="false"]')

    def keep(self, page, name, **settings):
        page.screenshot(path=str(self.options.artefacts / f"{name}.png"), animations="disabled", **settings)

    def close_pages(self):
        while self.contexts:
            self.contexts.pop().close()

    def finish(self):
        self.close_pages()
        check(not self.troubles, "; ".join(self.troubles))


def wait(page, condition, argument=None):
    page.wait_for_function(condition, arg=argument, polling=50)


def shows(page, selector, part):
    """Waits until an element's text contains this."""
    wait(page, "([at, part]) => document.querySelector(at)?.textContent.includes(part)", [selector, part])


def is_switched(page, on):
    page.wait_for_selector(f'#relay[aria-checked="{"true" if on else "false"}"]')


def number(page, chart):
    return page.text_content(f'[data-chart="{chart}"] .number')


def moves(page, times=2):
    """Waits until the lines of the charts have moved so often."""
    get = "document.querySelector('[data-chart=\"load\"] .line').getAttribute('d')"
    for _ in range(times):
        wait(page, f"before => {get} !== before", page.evaluate(get))


def axe(page, where):
    found = Axe().run(page).response
    check(len(found["passes"]) > 20, "axe has looked at too little")
    wrong = [f"{one['id']} at {[node['target'] for node in one['nodes']]}" for one in found["violations"]]
    check(not wrong, f"{where}: {wrong}")


# Cases -----------------------------------------------------------------------------


@case("the page loads what the device has and nothing else, without a word in the console")
def loads(world):
    with world.device() as device:
        context = world.context(**DESKTOP)
        asked, policies = [], []
        context.on("request", lambda request: asked.append(request.url))
        context.on("response", lambda response: policies.append((response.url, response.status, response.all_headers())))
        page = world.page(device, context)
        equal([url for url in asked if not url.startswith(device.url)], [], "what is asked of others")
        equal([url for url, status, _ in policies if status != 200], [], "what is not there")
        headers = next(headers for url, _, headers in policies if url == device.url)
        policy = headers["content-security-policy"]
        check("default-src 'none'" in policy and "unsafe" not in policy and "*" not in policy, policy)
        equal(headers["x-content-type-options"], "nosniff")
        moves(page)
        equal(world.troubles, [], "what the console says")
        # The policy holds: what is not the device's own is not loaded.
        world.allowed.append("Content Security Policy")
        refused = page.evaluate("""() => new Promise((resolve) => {
          addEventListener('securitypolicyviolation', (event) => resolve(event.effectiveDirective), { once: true });
          document.body.append(Object.assign(document.createElement('img'), { src: 'data:,' }));
        })""")
        equal(refused, "img-src", "what the policy refuses")


@case("readings are the machine's own, and move by themselves")
def readings(world):
    with world.device() as device:
        page = world.page(device)
        total = next(line for line in open("/proc/meminfo") if line.startswith("MemTotal"))
        gibibytes = int(total.split()[1]) / 1024 / 1024
        shows(page, '[data-chart="memory"] .detail', f" of {gibibytes:.0f} GiB" if gibibytes >= 100 else f" of {gibibytes:.1f} GiB")
        for chart in ("processor", "load", "memory", "network", "temperature"):
            wait(page, "chart => document.querySelector(`[data-chart=${chart}] .number`).textContent !== '–'", chart)
        moves(page)
        equal(number(page, "temperature"), "48.5", "the temperature")
        device.fake_sensor(61.2)
        shows(page, '[data-chart="temperature"] .number', "61.2")
        shows(page, '[data-chart="temperature"] .detail', "cpu-thermal 61.2 °C")


@case("what /proc says is what is shown, to the last digit")
def exact(world):
    device = world.device()
    device.proc = proc = device.folder / "proc"
    (proc / "net").mkdir(parents=True)
    (proc / "sys/kernel").mkdir(parents=True)
    write(proc / "sys/kernel/hostname", "greenhouse-4\n")
    write(proc / "sys/kernel/osrelease", "6.12.3-arm64\n")
    write(proc / "loadavg", "1.25 0.50 0.75 1/100 1\n")
    write(proc / "meminfo", "MemTotal: 8388608 kB\nMemFree: 1 kB\nMemAvailable: 6291456 kB\n")
    write(proc / "uptime", "183840.00 1.0\n")
    write(proc / "stat", "cpu  100 0 100 800 0 0 0 0 0 0\ncpu0 1\ncpu1 1\ncpu2 1\ncpu3 1\n")
    with device:
        page = world.page(device)
        equal([page.text_content("h1"), page.title()], ["greenhouse-4"] * 2, "the name")
        equal(page.text_content("#about"), "Linux 6.12.3", "the system")
        equal(number(page, "load"), "1.25", "the load")
        shows(page, '[data-chart="load"] .detail', "5 min 0.50")
        equal(number(page, "memory"), "2.0", "the memory")
        shows(page, '[data-chart="memory"] .detail', "25 % of 8.0 GiB")
        shows(page, '[data-chart="processor"] .detail', "4 cores · up 2 d 3 h")
        # Half of what has passed since was idle.
        write(proc / "stat", "cpu  200 0 200 1000 0 0 0 0 0 0\ncpu0 1\n")
        wait(page, """() => [...document.querySelectorAll('[data-chart=processor] .number')]
          .some(one => one.textContent === '50')""")


@case("what a machine does not have is said, and nothing breaks")
def missing(world):
    device = world.device()
    device.proc = device.sys = device.folder / "nothing"
    with device:
        page = world.page(device, wait=False)
        page.wait_for_selector('#relay[aria-disabled="false"]')
        shows(page, '[data-chart="temperature"] .empty', "no sensor")
        shows(page, '[data-chart="load"] .empty', "does not tell")
        page.click("#relay")
        is_switched(page, True)
        axe(page, "a page without readings")
        world.keep(page, "desktop-empty")


@case("the switch acts on the device, and two pages see each other's")
def switch(world):
    with world.device() as device:
        one, two = world.page(device), world.page(device, **PHONE)
        for page, on in ((one, True), (two, False), (one, True)):
            page.tap("#relay") if page is two else page.click("#relay")
            for either in (one, two):
                is_switched(either, on)
                shows(either, "#relay-text", "On since" if on else "Off since")
            equal(device.relay.read_text(), "1\n" if on else "0\n", "the pin")
        shows(two, "#log li", "Relay switched on by the page at 127.0.0.1")
        equal(two.locator("#log [data-kind=relay]").count(), 3, "the log")


@case("a relay that cannot be switched is not shown as switched")
def broken(world):
    with world.device() as device:
        page = world.page(device)
        device.relay.unlink()
        device.relay.mkdir()
        page.click("#relay")
        shows(page, "#toasts", "the relay does not answer")
        shows(page, "#log li", "could not be switched")
        is_switched(page, False)
        device.relay.rmdir()
        page.click("#relay")
        is_switched(page, True)


@case("how often is read is the device's, chosen on one page and seen on the other")
def interval(world):
    with world.device() as device:
        one, two = world.page(device), world.page(device)
        one.get_by_role("radio", name="½ s").check()
        wait(two, "() => document.querySelector('#interval input[value=\"0.5\"]').checked")
        shows(two, "#log li", "A reading every 0.5 s")
        moves(two, 4)
        device.end(signal.SIGTERM)
        world.allowed.append("WebSocket connection to")
        device.start()
        world.wait_open(one)
        check(one.is_checked('#interval input[value="0.5"]'), "the choice was forgotten")


@case("the device is killed and started again, and pages recover by themselves")
def restart(world):
    with world.device() as device:
        context = world.context(**DESKTOP)
        context.clock.install()
        one, two = world.page(device, context), world.page(device, **PHONE)
        one.click("#relay")
        is_switched(two, True)
        moves(one)
        device.end(signal.SIGKILL)
        # The browser itself tells of connections that cannot be made.
        world.allowed.append("WebSocket connection to")
        for page in (one, two):
            page.wait_for_selector("#offline:not([hidden])")
            shows(page, "#offline-next", "attempt")
            equal(page.text_content("#connection"), "Offline", "the connection")
            equal(page.get_attribute("#relay", "aria-disabled"), "true", "the switch is disabled")
            check(page.is_disabled('#interval input[value="1"]'), "the interval can be chosen")
            page.click("#relay", force=True)
            check(page.get_attribute('[data-chart="load"] path.line', "d"), "what was known is gone")
        axe(one, "a page without a device")
        world.keep(one, "desktop-offline")
        world.keep(two, "phone-offline")
        one.clock.pause_at(one.evaluate("Date.now() + 1"))
        one.wait_for_selector('body[data-connection="waiting"]')
        device.relay.unlink()
        device.start()
        equal(device.relay.read_text(), "1\n", "the pin after the restart")
        # One waits for its time, and for the other time stands still: it has to be told to.
        world.wait_open(two)
        check(one.is_visible("#offline"), "it does not wait for its next attempt")
        one.click("#retry")
        world.wait_open(one)
        one.clock.resume()
        for page in (one, two):
            check(page.is_hidden("#offline"), "still offline")
            is_switched(page, True)
            moves(page)
        one.click("#relay")
        is_switched(two, False)
        equal(one.locator("#log [data-kind=start]").count(), 2, "how often it was started")
        equal(one.locator("#log [data-kind=relay]").count(), 2, "the log after it")
        equal(device.end(signal.SIGTERM), 0, "the status after SIGTERM")


@case("everything can be done by keyboard, and shows where one is")
def keyboard(world):
    with world.device() as device:
        page = world.page(device)

        def focused(selector):
            check(page.evaluate("at => document.activeElement.matches(at)", selector),
                  f"{page.evaluate('document.activeElement.outerHTML.slice(0, 120)')} is focused, not {selector}")
            seen = page.evaluate("""() => {
              const one = document.activeElement;
              return [one, one.nextElementSibling].some(each => each && getComputedStyle(each).outlineStyle !== 'none')
            }""")
            check(seen, f"{selector} does not show that it is focused")

        def press(*keys):
            for key in keys:
                page.keyboard.press(key)

        press("Tab")
        focused(".skip")
        check(page.locator(".skip").bounding_box()["y"] >= 0, "the first link is out of sight")
        press("Tab")
        focused("#theme")
        press("Enter")
        equal(page.evaluate("document.documentElement.dataset.theme"), "light", "the theme")
        press("Shift+Tab", "Enter", "Tab")
        focused("#span input:checked")
        press("ArrowRight")
        shows(page, '[data-chart="load"] .grid', "−15 min")
        press("Tab")
        focused('[data-chart="processor"] .plot')
        press("Tab", "Home", "ArrowRight", "End", "ArrowLeft")
        tip = '[data-chart="load"] .tip'
        check(page.is_visible(tip), "no value is read out")
        equal(page.text_content('[data-chart="load"] [aria-live]'), page.text_content(tip), "what is spoken")
        check("1 min" in page.text_content(tip), page.text_content(tip))
        press("Escape")
        check(page.is_hidden(tip), "Escape does not put it away")
        press("Tab", "Tab", "Tab", "Tab")
        focused("#relay")
        press("Space")
        is_switched(page, True)
        focused("#relay")
        press("Enter")
        is_switched(page, False)
        press("Tab")
        focused("#interval input:checked")
        press("ArrowRight")
        shows(page, "#log li", "A reading every 2 s")
        focused("#interval input[value='2']")
        press("Tab")
        focused("[role=log]")


@case("dark and light: the system's, or one's own choice, which is remembered")
def themes(world):
    with world.device() as device:
        context = world.context(color_scheme="dark", **DESKTOP)
        page = world.page(device, context)

        def is_dark(dark):
            wait(page, """dark => {
              const [, r, g, b] = getComputedStyle(document.body).backgroundColor.match(/(\\d+), (\\d+), (\\d+)/).map(Number);
              return (r + g + b < 200) === dark
            }""", dark)

        is_dark(True)
        page.emulate_media(color_scheme="light")
        is_dark(False)
        theme = page.get_by_role("button", name="Theme")
        theme.click()
        theme.click()
        is_dark(True)
        page.reload()
        is_dark(True)
        equal(theme.get_attribute("aria-label"), "Theme: dark")
        theme.click()
        is_dark(False)


@case("a phone shows all of it without scrolling sideways, sharp, with room for fingers")
def phone(world):
    with world.device() as device:
        for width, height in ((320, 568), (390, 844), (844, 390)):
            page = world.page(device, **{**PHONE, "viewport": {"width": width, "height": height}})
            wide = page.evaluate("[...document.querySelectorAll('*')].filter(one => one.getBoundingClientRect().right > innerWidth + 1).map(one => one.outerHTML.slice(0, 80))")
            wide = [one for one in wide if 'class="hidden"' not in one]
            equal([page.evaluate("document.documentElement.scrollWidth"), wide], [width, []], f"at {width} pixels: width and what is too wide")
            small = page.evaluate("""[...document.querySelectorAll('button, .segments label')]
              .map(one => [one.textContent, one.getBoundingClientRect()])
              .filter(([, box]) => box.width && (box.width < 24 || box.height < 24)).map(([text]) => text)""")
            equal(small, [], "what is too small")
            wait(page, """() => [...document.querySelectorAll('.plot svg')].every(svg => {
              const box = svg.getBoundingClientRect(), view = svg.viewBox.baseVal;
              return Math.abs(box.width - view.width) < 1 && Math.abs(box.height - view.height) < 1
            })""")
            page.tap("#relay")
            wait(page, "() => document.querySelector('#relay').ariaBusy !== 'true'")


@case("who wants less motion gets none")
def motion(world):
    with world.device() as device:
        moving = """[...document.querySelectorAll('*')].filter(one => {
          const style = getComputedStyle(one);
          return style.transitionDuration !== '0s' || style.animationName !== 'none'
        }).length"""
        check(world.page(device).evaluate(moving) > 0, "there is no motion to be without")
        equal(world.page(device, reduced_motion="reduce", **DESKTOP).evaluate(moving), 0, "what moves")


@case("axe finds nothing to blame: names, roles, order and contrast, dark and light, large and small")
def accessible(world):
    with world.device() as device:
        for scheme in ("light", "dark"):
            for name, settings in (("desktop", DESKTOP), ("phone", PHONE)):
                page = world.page(device, color_scheme=scheme, reduced_motion="reduce", **settings)
                page.click("#relay")
                is_switched(page, name == "desktop")
                moves(page)
                # Colours and sizes are apart: two of the four see all of both.
                if (name == "desktop") == (scheme == "light"):
                    axe(page, f"{name}, {scheme}")
                world.keep(page, f"{name}-{scheme}", full_page=True)


@case("a token keeps others out; the page asks for it, or has it from its link")
def token(world):
    with world.device(DASHBOARD_TOKEN="let-me/in") as device:
        world.allowed += ["401", "403", "WebSocket connection to"]
        page = world.page(device, wait=False)
        page.wait_for_selector("#login[open]")
        axe(page, "the question for a token")
        world.keep(page, "desktop-token")

        def offer(token):
            page.fill("#token", token)
            with page.expect_navigation():
                page.keyboard.press("Enter")

        for wrong in ("wrong", "falsch, für immer"):
            offer(wrong)
            shows(page, "#login-text", "not the right one")
        offer("let-me/in")
        world.wait_open(page)
        page.reload()
        world.wait_open(page)
        linked = world.page(device, path="#token=let-me%2Fin")
        equal(linked.evaluate("location.hash"), "", "what is left of the token in sight")
        linked.click("#relay")
        is_switched(page, True)


@case("a page under a stranger's name, which was made to lead here, is refused")
def rebinding(world):
    with world.device() as device:
        world.allowed += ["403", "WebSocket connection to"]
        device.url = device.url.replace("127.0.0.1", STRANGER)
        page = world.page(device, wait=False)
        page.wait_for_selector("#login[open]")
        equal(page.get_attribute("#relay", "aria-disabled"), "true", "the switch is disabled")
        device.url = device.url.replace(STRANGER, "localhost")
        world.page(device)


@case("its options are told, wrong ones are refused, and variables do the same")
def options(world):
    def run(*arguments, **environment):
        command = [world.options.moonwire, "examples/dashboard/main.lua", *arguments]
        return subprocess.run(command, cwd=world.options.root, env={**os.environ, **environment},
                              capture_output=True, text=True, timeout=PATIENCE / 1000)

    told = run("--help")
    equal(told.returncode, 0, "the status of --help")
    for name in ("listen", "state", "relay", "proc", "sys", "check"):
        check(f"--{name} " in told.stdout, f"--help does not tell of --{name}")
    for arguments, what in ((["--loud"], "unknown argument --loud"), (["--listen"], "--listen wants a value"), (["x"], "unknown argument x")):
        refused = run(*arguments)
        equal(refused.returncode, 2, f"the status of {arguments}")
        check(what in refused.stderr, refused.stderr)
    with tempfile.TemporaryDirectory(dir=world.options.temporary) as folder:
        folder = pathlib.Path(folder)
        refused = run(DASHBOARD_STATE=str(folder / "nowhere/state.db"))
        equal(refused.returncode, 1, "the status without a place for its state")
        check("nowhere/state.db" in refused.stderr, refused.stderr)
        refused = run("--check", "--relay=/dev/full")
        equal(refused.returncode, 1, "the status with a relay that refuses")
        check("No space left" in refused.stderr, refused.stderr)
        checked = run("--check", DASHBOARD_RELAY=str(folder / "relay"), DASHBOARD_TOKEN="a/b+c==")
        equal(checked.returncode, 0, f"the status of --check, which said {checked.stderr}")
        equal((folder / "relay").read_text(), "0\n", "the pin that a variable names")
        equal(run("--check", DASHBOARD_TOKEN="a b").returncode, 1, "the status of a token that is none")
    with world.device() as device:
        taken = run("--listen", device.listen, f"--state={device.folder / 'other.db'}")
        equal(taken.returncode, 1, "the status when the address is taken")
        check("cannot listen at " + device.listen in taken.stderr, taken.stderr)


@case("through Mosquitto: others are seen, the switch is published, and commands switch it")
def broker(world):
    host, port = world.options.broker.split(":")
    address = ["-h", host, "-p", port]

    def publish(topic, payload):
        subprocess.run(["mosquitto_pub", *address, "-q", "1", "-t", topic, "-m", payload], check=True, timeout=PATIENCE / 1000)

    with contextlib.ExitStack() as stack:
        witness = stack.enter_context(subprocess.Popen(
            ["stdbuf", "-oL", "mosquitto_sub", *address, "-v", "-t", "devices/#"], stdout=subprocess.PIPE, text=True))
        stack.callback(witness.kill)
        lines = Lines(witness)
        device = stack.enter_context(world.device(MQTT_URL=f"mqtt://{host}:{port}"))
        page = world.page(device)
        shows(page, "#broker", "MQTT: connected")
        lines.wait_for(lambda line: line.endswith("/relay off"), "relay at the broker")
        line = lines.wait_for(lambda line: "/telemetry {" in line, "telemetry at the broker")
        topic, _, payload = line.partition(" ")
        check(json.loads(payload)["load_1m"] >= 0, payload)
        own = topic.removesuffix("/telemetry")
        equal(own, "devices/" + page.text_content("h1"), "the topic")

        check(page.is_visible("#devices-empty"), "nobody says that there are no others")
        publish("devices/pump-house/telemetry", '{"celsius": 21.25, "pressure_bar": 3, "open": true}')
        publish("devices/<img src=x onerror=fail()>/telemetry", '{"<b>": 1}')
        publish("devices/noise/telemetry", "no JSON")
        shows(page, '[data-name="pump-house"]', "celsius21.25pressure bar3")
        shows(page, '[data-name^="<img"]', "<b>1")
        equal(page.locator("#devices > li").count(), 2, "the other devices")

        page.click("#relay")
        lines.wait_for(lambda line: line == f"{own}/relay on", "switch at the broker")
        publish(f"{own}/relay/set", "off")
        is_switched(page, False)
        shows(page, "#toasts", "Relay switched off over MQTT")
        lines.wait_for(lambda line: line == f"{own}/relay off", "answer at the broker")
        equal(device.relay.read_text(), "0\n", "the pin")
        publish(f"{own}/relay/set", "perhaps")
        publish(f"{own}/relay/set", "on")
        is_switched(page, True)
        axe(page, "a page with other devices")
        world.keep(page, "desktop-mqtt", full_page=True)


def main():
    parser = argparse.ArgumentParser()
    for name in ("moonwire", "root", "chromium"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--artefacts", type=pathlib.Path, required=True)
    parser.add_argument("--broker")
    parser.add_argument("cases", nargs="*")
    options = parser.parse_args()
    options.artefacts.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        options.temporary = stack.enter_context(tempfile.TemporaryDirectory(prefix="dashboard-"))
        playwright = stack.enter_context(sync_playwright())
        browser = playwright.chromium.launch(
            executable_path=options.chromium, args=FLAGS, chromium_sandbox=os.geteuid() != 0)
        stack.callback(browser.close)
        for name in options.cases:
            world = World(browser, options)
            try:
                try:
                    CASES[name](world)
                finally:
                    world.finish()
                print(f"passed {name}", flush=True)
            except Exception as error:
                frames = traceback.extract_tb(error.__traceback__)
                line = next((frame.lineno for frame in reversed(frames) if frame.filename == __file__), 0)
                print(f"failed {name}: line {line}: {' '.join(str(error).split())}", flush=True)


main()
