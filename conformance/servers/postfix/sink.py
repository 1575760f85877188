"""Where mail ends: aiosmtpd, and a second port that tells what arrived, as Python's own `email` package reads it.

A question is a line of JSON, `{"message_id": "...", "count": 1, "keys": {...}}`; the answer is a line, too: a list with
each copy that arrived. It waits until `count` copies are there, or `seconds` are over. `keys` are the DNS records by which
`dkim` verifies. `{"ids": true}` asks how often each message was put into Postfix' queue, and how often it arrived.
"""

import asyncio
import base64
import email.policy
import email.utils
import hashlib
import json
import os
import re
import subprocess
import sys
from collections import OrderedDict, defaultdict
from email.header import decode_header, make_header
from email.parser import BytesParser

import dkim
from aiosmtpd.smtp import SMTP

KEPT = 400  # messages whose text is kept

messages = OrderedDict()
queued = defaultdict(list)  # by message: the names Postfix gave its copies
arrived = None


class Sink:
    async def handle_RCPT(self, server, session, envelope, address, options):
        if address.startswith("nobody@"):
            return "550 5.1.1 no such user"
        if address.startswith("full@"):
            return "452 4.2.2 mailbox full"
        envelope.rcpt_tos.append(address)
        envelope.rcpt_options.extend(options)
        return "250 2.1.5 ok"

    async def handle_DATA(self, server, session, envelope):
        raw = bytes(envelope.content)
        head = raw.split(b"\r\n\r\n", 1)[0]
        if b"X-Refuse: now" in head:
            return "554 5.6.0 not this one"
        if b"X-Refuse: later" in head:
            return "451 4.3.0 not now"
        message = BytesParser(policy=email.policy.default).parsebytes(raw, headersonly=True)
        identifier = str(message["message-id"] or "").strip().strip("<>")
        copy = {
            "sender": envelope.mail_from,
            "recipients": list(envelope.rcpt_tos),
            "mail_options": [str(option) for option in envelope.mail_options],
            "raw": raw,
        }
        messages.setdefault(identifier, []).append(copy)
        name = re.search(r"\bid (\w+)", str(message["received"] or ""))
        queued[identifier].append(name.group(1) if name else "")
        while len(messages) > KEPT:
            messages.popitem(last=False)
        async with arrived:
            arrived.notify_all()
        return "250 2.0.0 taken"


def mailboxes(message, name):
    """Names and addresses. `email.policy.default` puts spaces between the encoded words of a name, against RFC 2047, 6.2."""
    value = {key.lower(): value for key, value in message.raw_items()}.get(name)
    if value is None:
        return []
    text = value.encode("ascii", "surrogateescape").decode()
    pairs = email.utils.getaddresses([text.replace("\r\n", "").replace("\n", "")])
    return [[str(make_header(decode_header(display))), address] for display, address in pairs]


def content(part):
    if part.get_content_type() == "message/rfc822":
        return part.get_payload(0).as_bytes(policy=email.policy.SMTP)
    return part.get_payload(decode=True) or b""


def shape(part):
    if part.is_multipart() and part.get_content_maintype() == "multipart":
        return [part.get_content_type(), [shape(one) for one in part.iter_parts()]]
    return part.get_content_type()


def leaves(part):
    if part.is_multipart() and part.get_content_maintype() == "multipart":
        for one in part.iter_parts():
            yield from leaves(one)
    else:
        yield part


def described(copy, keys):
    raw = copy["raw"]
    message = BytesParser(policy=email.policy.default).parsebytes(raw)
    plain = BytesParser(policy=email.policy.compat32).parsebytes(raw, headersonly=True)
    head, _, body = raw.partition(b"\r\n\r\n")
    parts, defects = [], list(message.defects)
    for part in leaves(message):
        defects.extend(part.defects)
        data = content(part)
        parts.append(
            {
                "type": part.get_content_type(),
                "charset": part.get_content_charset(),
                "disposition": part.get_content_disposition(),
                "filename": part.get_filename(),
                "cid": part["content-id"],
                "description": part["content-description"],
                "method": part.get_param("method"),
                "encoding": part["content-transfer-encoding"],
                "size": len(data),
                "sha256": hashlib.sha256(data).hexdigest(),
                "content": base64.b64encode(data).decode() if len(data) <= 100_000 else None,
            }
        )
    for name in message.keys():
        defects.extend(getattr(message[name], "defects", ()))
    signatures = [name for name in message.keys() if name.lower() == "dkim-signature"]
    date = message["date"]
    return {
        "sender": copy["sender"],
        "recipients": copy["recipients"],
        "mail_options": copy["mail_options"],
        "subject": None if message["subject"] is None else str(message["subject"]),
        "from": mailboxes(plain, "from"),
        "to": mailboxes(plain, "to"),
        "cc": mailboxes(plain, "cc"),
        "reply_to": mailboxes(plain, "reply-to"),
        "date": date.datetime.timestamp() if date is not None else None,
        "headers": [[name, str(value)] for name, value in message.items()],
        "shape": shape(message),
        "parts": parts,
        "defects": [type(defect).__name__ for defect in defects],
        "ascii_headers": head.isascii(),
        "line_max": max(len(line) for line in raw.split(b"\r\n")),
        "bare": b"\n" in raw.replace(b"\r\n", b"") or b"\r" in raw.replace(b"\r\n", b""),
        "body_sha256": hashlib.sha256(body).hexdigest(),
        "body": base64.b64encode(body).decode() if len(body) <= 100_000 else None,
        "dkim": [verifies(raw, index, keys) for index in range(len(signatures))],
    }


def verifies(raw, index, keys):
    def record(name, **_):
        return keys.get(name.decode().rstrip("."), "").encode()

    try:
        return dkim.DKIM(raw).verify(index, dnsfunc=record)
    except (dkim.DKIMException, ValueError, TypeError):
        # A key of another kind is not read before it is used.
        return False


def known(value):
    """Without what is `None`: absent is absent."""
    if isinstance(value, dict):
        return {name: known(one) for name, one in value.items() if one is not None}
    return [known(one) for one in value] if isinstance(value, list) else value


async def tell(reader, writer):
    try:
        while line := await reader.readline():
            question = json.loads(line)
            if question.get("ids"):
                answer = {name: [len(set(copies)), len(copies)] for name, copies in queued.items()}
            else:
                identifier, count = question["message_id"], question.get("count", 1)

                async def wait():
                    async with arrived:
                        await arrived.wait_for(lambda: len(messages.get(identifier, ())) >= count)

                try:
                    await asyncio.wait_for(wait(), question.get("seconds", 20))
                except asyncio.TimeoutError:
                    pass
                answer = [described(copy, question.get("keys") or {}) for copy in messages.get(identifier, ())]
            writer.write(json.dumps(known(answer)).encode() + b"\n")
            await writer.drain()
    finally:
        writer.close()


async def main(sink, report):
    global arrived
    arrived = asyncio.Condition()
    loop = asyncio.get_running_loop()

    def server():
        return SMTP(Sink(), enable_SMTPUTF8=True, data_size_limit=64 * 1024 * 1024, command_call_limit=100000)

    await loop.create_server(server, "127.0.0.1", sink)
    await asyncio.start_server(tell, "127.0.0.1", report)
    print("ready", flush=True)
    await asyncio.Event().wait()


def keys(folder):
    """Keys for DKIM, and what the DNS would say of them."""
    for name, options in (("rsa", ["RSA", "-pkeyopt", "rsa_keygen_bits:2048"]), ("ed25519", ["ED25519"])):
        path = os.path.join(folder, f"dkim_{name}.pem")
        subprocess.run(["openssl", "genpkey", "-algorithm", *options, "-out", path], check=True, capture_output=True)
        public = subprocess.run(
            ["openssl", "pkey", "-in", path, "-pubout", "-outform", "DER"], check=True, capture_output=True
        ).stdout
        if name == "ed25519":
            public = public[-32:]
        record = f"v=DKIM1; k={name}; p={base64.b64encode(public).decode()}"
        with open(os.path.join(folder, f"dkim_{name}.txt"), "w") as file:
            file.write(record)
        os.chmod(path, 0o644)


if __name__ == "__main__":
    keys(sys.argv[3])
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
