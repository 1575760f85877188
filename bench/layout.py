#!/usr/bin/env python3
"""Writes stacks/layout.ld: which functions lie together in the program, because programs that people run use them.

    apt-get install valgrind openssl
    python3 bench/layout.py

The kernel maps a program's file in pieces of 64 KiB or more around each page that is touched. Functions that are used by
nearly every script, but lie scattered, cost some 2 MiB of resident memory and the time of their page faults. This builds a
program with symbols, notes which functions some scripts use (under valgrind, which tells them all), and writes a linker
script with their names, without the compiler's hashes: it fits later versions, too, and what it does not know lies where
it did before. It is worth running again when `hello, peak` of the bench has grown.
"""

import bisect
import collections
import fnmatch
import os
import re
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PROGRAM = os.path.join(ROOT, "target/release/moonwire")
LAYOUT = os.path.join(ROOT, "stacks/layout.ld")

HELLO = 'require("cosocket") print("hello")'
SECURE = """
local http, server = require("http"), require("http.server").new({ tls = { certificate = arg[1], key = arg[2] } })
server:get("/", function(_, response) response:send({ body = ("x"):rep(1 << 20) }) end)
assert(server:listen("https://127.0.0.1:0"))
local client = http.client({ tls = { insecure = true } })
for _ = 1, 3 do
  local response = assert(client:get("https://" .. server:address() .. "/", { stream = true }))
  for _ in response:chunks() do end
end
os.exit(0)
"""
EXAMPLES = ["telemetry.lua --count 2", "firmware.lua", "poller.lua", "websocket_echo.lua", "event_reader.lua"]

HEAD = """\
/* Functions that programs use lie together, so that few pages of the program are in memory. Written by bench/layout.py,
   which says more. Names are without the compiler's hashes, and names of functions that are gone do no harm. */
SECTIONS
{
  .text.near :
  {
"""
TAIL = """\
  }
}
INSERT BEFORE .text;
"""


def run(words, **options):
    return subprocess.run(words, cwd=ROOT, check=True, text=True, **options)


def functions():
    """The program's functions: where each begins, and how long it is and what it is called."""
    found = {}
    for line in run(["nm", "-n", "-S", PROGRAM], stdout=subprocess.PIPE).stdout.splitlines():
        words = line.split()
        if len(words) == 4 and words[2] in "tTwW":
            found.setdefault(int(words[0], 16), (int(words[1], 16), words[3]))
    return found


def addresses(profile):
    """Addresses of instructions of the program that ran, as callgrind tells them."""
    ran, at, objects, here = set(), 0, {}, None
    with open(profile) as lines:
        for line in lines:
            named = re.match(r"(c?)ob=\((\d+)\)(?: (.*))?$", line.rstrip())
            if named:
                if named[3]:
                    objects[named[2]] = named[3]
                if not named[1]:
                    here = objects.get(named[2])
                continue
            step = re.match(r"(0x[0-9a-f]+|[+-]\d+|\*) ", line)
            if not step:
                continue
            if step[1].startswith("0x"):
                at = int(step[1], 16)
            elif step[1] != "*":
                at += int(step[1])
            if here and os.path.basename(here) == "moonwire":
                ran.add(at)
    return ran


def pattern(name):
    """A function's name as the linker's pattern, without what changes from one build to the next."""
    name = re.sub(r"17h[0-9a-f]{16}E.*$", "17h*", name)
    name = re.sub(r"Cs[0-9A-Za-z]+_", "Cs*_", name)
    name = re.sub(r"\.(isra|constprop|part|cold|llvm)\.\d+.*$", "*", name)
    return name.replace("$", "?")


def wide(name, used, known):
    """Whether more than half of what a pattern stands for is not used."""
    like = re.compile(fnmatch.translate(name))
    return sum(size for size, called in known.values() if like.match(called)) > 2 * used


def main():
    print("building a program with symbols", file=sys.stderr)
    run(["cargo", "rustc", "--release", "-p", "moonwire", "--bin", "moonwire", "--", "-C", "strip=none"],
        env={**os.environ, "MOONWIRE_LAYOUT": "off"})
    known = functions()
    starts, seen, used = sorted(known), set(), collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        certificate, key = os.path.join(folder, "certificate.pem"), os.path.join(folder, "key.pem")
        run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1",
             "-subj", "/CN=localhost", "-keyout", key, "-out", certificate], stderr=subprocess.DEVNULL)
        scripts = []
        for name, text in (("hello.lua", HELLO), ("secure.lua", SECURE)):
            scripts.append([os.path.join(folder, name), certificate, key])
            with open(scripts[-1][0], "w") as file:
                file.write(text)
        scripts += [["examples/" + word if word.endswith(".lua") else word for word in line.split()] for line in EXAMPLES]
        for script in scripts:
            profile = os.path.join(folder, "profile")
            run(["valgrind", "--quiet", "--tool=callgrind", "--dump-instr=yes", f"--callgrind-out-file={profile}",
                 PROGRAM, *script], stdout=subprocess.DEVNULL, timeout=300)
            ran = {starts[bisect.bisect_right(starts, address) - 1] for address in addresses(profile)} - seen
            seen |= ran
            for start in sorted(ran):
                size, name = known[start]
                used[pattern(name)] += size
            print(f"{os.path.basename(script[0])}: {len(ran)} functions more", file=sys.stderr)
    with open(LAYOUT, "w") as file:
        file.write(HEAD)
        # A name of many functions, few of which are used, comes last.
        for name in sorted(used, key=lambda name: wide(name, used[name], known)):
            # Also .text.unlikely, where the compiler puts what it takes for seldom called.
            file.write(f"    *(.text*.{name})\n")
        file.write(TAIL)


if __name__ == "__main__":
    main()
