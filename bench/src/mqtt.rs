//! The rows `mqttpub`, `mqttsub` and `mqttidle`: a sink that acknowledges everything and floods who subscribes, and
//! the least clients there can be, all in MQTT 5.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use crate::Result;
use crate::servers::{self, Peer, Scratch, Step, step};

/// A server that is silent for longer has lost something.
const SILENCE: Duration = Duration::from_secs(10);
const CHUNK: usize = 64 * 1024;
/// With a clean start, 60 seconds of keep alive, and no properties; the server is to find a name.
const CONNECT: &[u8] = b"\x10\x0d\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x00";
const DISCONNECT: &[u8] = b"\xe0\x00";

/// Of the packets that are told apart, the upper half of the first byte (MQTT 5, 2.1.2).
mod kind {
    pub const CONNECT: u8 = 1;
    pub const CONNACK: u8 = 2;
    pub const PUBLISH: u8 = 3;
    pub const PUBACK: u8 = 4;
    pub const PUBREC: u8 = 5;
    pub const PUBREL: u8 = 6;
    pub const PUBCOMP: u8 = 7;
    pub const SUBSCRIBE: u8 = 8;
    pub const SUBACK: u8 = 9;
    pub const UNSUBSCRIBE: u8 = 10;
    pub const UNSUBACK: u8 = 11;
    pub const PINGREQ: u8 = 12;
}

// Packets

/// A number of one to four bytes (MQTT 5, 1.5.5) and what follows it; nothing if it is not whole.
fn variable(bytes: &[u8]) -> Result<Option<(usize, &[u8])>> {
    let mut value = 0;
    for (at, &byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * at);
        if byte < 0x80 {
            return Ok(Some((value, &bytes[at + 1..])));
        }
    }
    if bytes.len() < 4 { Ok(None) } else { Err("a length of more than four bytes".into()) }
}

fn push_variable(mut value: usize, output: &mut Vec<u8>) {
    while value >= 0x80 {
        output.push(value as u8 | 0x80);
        value >>= 7;
    }
    output.push(value as u8);
}

/// The first byte of a packet, what follows its length, and what follows the packet.
type Packet<'a> = (u8, &'a [u8], &'a [u8]);

/// The packet that some bytes begin with; nothing if it is not whole.
fn packet(bytes: &[u8]) -> Result<Option<Packet<'_>>> {
    let Some((&first, after)) = bytes.split_first() else { return Ok(None) };
    let Some((length, after)) = variable(after)? else { return Ok(None) };
    Ok(after.split_at_checked(length).map(|(body, rest)| (first, body, rest)))
}

/// A field of two bytes, and what follows it.
fn two(bytes: &[u8]) -> Result<([u8; 2], &[u8])> {
    let (field, rest) = bytes.split_first_chunk().ok_or("a packet that ends too early")?;
    Ok((*field, rest))
}

/// A field that tells its length in two bytes, and what follows it.
fn string(bytes: &[u8]) -> Result<(&[u8], &[u8])> {
    let (length, rest) = two(bytes)?;
    Ok(rest.split_at_checked(u16::from_be_bytes(length).into()).ok_or("a packet that ends too early")?)
}

/// What follows the properties that a packet goes on with.
fn skip_properties(bytes: &[u8]) -> Result<&[u8]> {
    let (length, rest) = variable(bytes)?.ok_or("a packet that ends too early")?;
    Ok(rest.get(length..).ok_or("a packet that ends too early")?)
}

/// An answer that is a packet identifier and no more.
fn push_answer(kind: u8, identifier: [u8; 2], output: &mut Vec<u8>) {
    // PUBREL has a bit of its own (MQTT 5, 3.6.1).
    let first = kind << 4 | if kind == kind::PUBREL { 2 } else { 0 };
    output.extend_from_slice(&[first, 2, identifier[0], identifier[1]]);
}

/// Messages that are alike but for their identifiers, which go round.
struct Messages {
    packet: Vec<u8>,
    /// Where the identifier is, of QoS 1 and 2.
    place: Option<usize>,
    identifier: u16,
}

impl Messages {
    fn new(topic: &[u8], qos: u8, size: usize) -> Result<Self> {
        let mut packet = vec![kind::PUBLISH << 4 | qos << 1];
        let fields = if qos == 0 { 3 } else { 5 };
        push_variable(fields + topic.len() + size, &mut packet);
        packet.extend_from_slice(&u16::try_from(topic.len())?.to_be_bytes());
        packet.extend_from_slice(topic);
        let place = (qos > 0).then_some(packet.len());
        // The identifier, if any, and no properties.
        packet.resize(packet.len() + fields - 2, 0);
        packet.resize(packet.len() + size, b'x');
        Ok(Messages { packet, place, identifier: 0 })
    }

    fn push(&mut self, output: &mut Vec<u8>) {
        if let Some(place) = self.place {
            // 0 is none (MQTT 5, 2.2.1).
            self.identifier = self.identifier.checked_add(1).unwrap_or(1);
            self.packet[place..place + 2].copy_from_slice(&self.identifier.to_be_bytes());
        }
        output.extend_from_slice(&self.packet);
    }
}

// The sink

/// A connection of the sink.
struct Sink {
    stream: mio::net::TcpStream,
    /// A packet that is not whole yet.
    begun: Vec<u8>,
    replies: Replies,
    /// How much of the replies is sent.
    sent: usize,
}

/// What a client is to hear.
#[derive(Default)]
struct Replies {
    output: Vec<u8>,
    flood: Option<Messages>,
    left: usize,
}

impl Replies {
    /// Answers the whole packets of a piece; tells what is left.
    fn answer<'a>(&mut self, mut piece: &'a [u8]) -> Result<&'a [u8]> {
        while let Some((first, body, rest)) = packet(piece)? {
            self.answer_one(first, body)?;
            piece = rest;
        }
        Ok(piece)
    }

    fn answer_one(&mut self, first: u8, body: &[u8]) -> Result<()> {
        match first >> 4 {
            kind::CONNECT if body.starts_with(b"\x00\x04MQTT\x05") => {
                self.output.extend_from_slice(b"\x20\x03\x00\x00\x00");
            }
            kind::PUBLISH if first & 6 == 0 => {}
            kind::PUBLISH => {
                let answer = if first & 6 == 2 { kind::PUBACK } else { kind::PUBREC };
                push_answer(answer, two(string(body)?.1)?.0, &mut self.output);
            }
            kind::PUBREL => push_answer(kind::PUBCOMP, two(body)?.0, &mut self.output),
            kind::PUBACK => {}
            kind::SUBSCRIBE => {
                let (identifier, rest) = two(body)?;
                let (topic, _) = string(skip_properties(rest)?)?;
                let qos = self.flood(topic)?;
                self.output.extend_from_slice(&[kind::SUBACK << 4, 4, identifier[0], identifier[1], 0, qos]);
            }
            kind::UNSUBSCRIBE => {
                let (identifier, _) = two(body)?;
                self.output.extend_from_slice(&[kind::UNSUBACK << 4, 4, identifier[0], identifier[1], 0, 0]);
            }
            kind::PINGREQ => self.output.extend_from_slice(b"\xd0\x00"),
            // DISCONNECT among them.
            other => return Err(format!("a packet of kind {other} ends the connection").into()),
        }
        Ok(())
    }

    /// Begins what the topic `flood/COUNT/SIZE/QOS` asks for; tells the QoS.
    fn flood(&mut self, topic: &[u8]) -> Result<u8> {
        let words: Vec<&str> = std::str::from_utf8(topic)?.split('/').collect();
        let ["flood", count, size, qos @ ("0" | "1")] = words[..] else {
            return Err("a subscription to something else than a flood".into());
        };
        let qos = qos.parse()?;
        self.left = count.parse()?;
        self.flood = Some(Messages::new(topic, qos, size.parse()?)?);
        Ok(qos)
    }

    /// Goes on with the flood. It does not wait for acknowledgements.
    fn go_on(&mut self) {
        let Some(messages) = &mut self.flood else { return };
        while self.left > 0 && self.output.len() < CHUNK {
            messages.push(&mut self.output);
            self.left -= 1;
        }
    }
}

impl Sink {
    fn hear(&mut self, piece: &[u8]) -> Result<()> {
        if self.begun.is_empty() {
            self.begun.extend_from_slice(self.replies.answer(piece)?);
        } else {
            self.begun.extend_from_slice(piece);
            let left = self.replies.answer(&self.begun)?.len();
            self.begun.drain(..self.begun.len() - left);
        }
        Ok(())
    }
}

impl Peer for Sink {
    fn ready(&mut self, scratch: &mut Scratch) -> bool {
        let mut readable = true;
        loop {
            if readable {
                match step(self.stream.read(&mut scratch.input)) {
                    Step::Went(count) => {
                        if self.hear(&scratch.input[..count]).is_err() {
                            return false;
                        }
                        // A read that does not fill the buffer has emptied the socket: the next segment is an event.
                        readable = count == scratch.input.len();
                    }
                    Step::Later => readable = false,
                    Step::Over => return false,
                }
            }
            if self.sent == self.replies.output.len() {
                self.replies.output.clear();
                self.sent = 0;
                self.replies.go_on();
            }
            if self.sent == self.replies.output.len() {
                if readable {
                    continue;
                }
                return true;
            }
            match step(self.stream.write(&self.replies.output[self.sent..])) {
                // Acknowledgements may have come meanwhile, and nobody is to wait because they are not read.
                Step::Went(count) => {
                    self.sent += count;
                    readable |= self.replies.left > 0;
                }
                Step::Later if readable => {}
                Step::Later => return true,
                Step::Over => return false,
            }
        }
    }
}

/// Serves until it is killed.
pub fn serve(port: u16) -> Result<()> {
    servers::serve(port, |stream| Ok(Sink { stream, begun: Vec::new(), replies: Replies::default(), sent: 0 }))
}

// Clients

/// A connection to a server, and what came on it.
struct Client {
    stream: TcpStream,
    input: Box<[u8]>,
    from: usize,
    to: usize,
}

impl Client {
    fn connect(port: u16) -> Result<Self> {
        let mut client = Client { stream: connect(port)?, input: vec![0; CHUNK].into(), from: 0, to: 0 };
        client.stream.write_all(CONNECT)?;
        client.expect(kind::CONNACK)?;
        Ok(client)
    }

    /// The next packet that is here: its first byte, and where the rest is.
    fn here(&mut self) -> Result<Option<(u8, &[u8])>> {
        let Some((first, body, rest)) = packet(&self.input[self.from..self.to])? else { return Ok(None) };
        self.from = self.to - rest.len();
        Ok(Some((first, body)))
    }

    fn read(&mut self) -> Result<()> {
        self.input.copy_within(self.from..self.to, 0);
        (self.from, self.to) = (0, self.to - self.from);
        match self.stream.read(&mut self.input[self.to..])? {
            0 => Err("the server ended too early".into()),
            count => {
                self.to += count;
                Ok(())
            }
        }
    }

    /// Waits for a packet, which is to be of this kind.
    fn expect(&mut self, kind: u8) -> Result<()> {
        loop {
            match self.here()? {
                Some((first, _)) if first >> 4 == kind => return Ok(()),
                Some((first, _)) => return Err(format!("packet {first:#x} instead of one of kind {kind}").into()),
                None => self.read()?,
            }
        }
    }
}

fn connect(port: u16) -> Result<TcpStream> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(SILENCE))?;
    Ok(stream)
}

/// Publishes `count` messages of `size` bytes; with QoS 1 and 2 `window` of them under way.
pub fn publish(port: u16, qos: u8, count: usize, size: usize, window: usize) -> Result<()> {
    let mut client = Client::connect(port)?;
    let mut messages = Messages::new(b"bench/t", qos, size)?;
    let mut output = Vec::with_capacity(2 * CHUNK);
    let begun = Instant::now();
    if qos == 0 {
        for _ in 0..count {
            messages.push(&mut output);
            if output.len() >= CHUNK {
                client.stream.write_all(&output)?;
                output.clear();
            }
        }
        output.extend_from_slice(DISCONNECT);
        client.stream.write_all(&output)?;
    } else {
        let (mut sent, mut done) = (window.min(count), 0);
        for _ in 0..sent {
            messages.push(&mut output);
        }
        while done < count {
            client.stream.write_all(&output)?;
            output.clear();
            client.read()?;
            while let Some((first, body)) = client.here()? {
                match first >> 4 {
                    kind::PUBREC => push_answer(kind::PUBREL, two(body)?.0, &mut output),
                    kind::PUBACK | kind::PUBCOMP => {
                        done += 1;
                        if sent < count {
                            sent += 1;
                            messages.push(&mut output);
                        }
                    }
                    _ => return Err(format!("packet {first:#x} is no acknowledgement").into()),
                }
            }
        }
    }
    tell(count, begun, count * size);
    Ok(())
}

/// Subscribes to a topic and receives `count` messages; the clock starts with the first.
pub fn receive(port: u16, qos: u8, count: usize, topic: &str) -> Result<()> {
    let mut client = Client::connect(port)?;
    let mut output = vec![kind::SUBSCRIBE << 4 | 2];
    push_variable(6 + topic.len(), &mut output);
    output.extend_from_slice(&[0, 1, 0]);
    output.extend_from_slice(&u16::try_from(topic.len())?.to_be_bytes());
    output.extend_from_slice(topic.as_bytes());
    output.push(qos);
    client.stream.write_all(&output)?;
    client.expect(kind::SUBACK)?;
    output.clear();
    let (mut received, mut bytes, mut begun) = (0, 0, None);
    while received < count {
        let Some((first, body)) = client.here()? else {
            // Acknowledgements of what came together leave together.
            client.stream.write_all(&output)?;
            output.clear();
            client.read()?;
            continue;
        };
        if first >> 4 != kind::PUBLISH {
            return Err(format!("packet {first:#x} is no message").into());
        }
        begun.get_or_insert_with(Instant::now);
        let (_, mut rest) = string(body)?;
        if first & 6 != 0 {
            let (identifier, after) = two(rest)?;
            push_answer(kind::PUBACK, identifier, &mut output);
            rest = after;
        }
        bytes += skip_properties(rest)?.len();
        received += 1;
    }
    client.stream.write_all(&output)?;
    tell(received, begun.ok_or("nothing was to be received")?, bytes);
    Ok(())
}

/// Connects one client and, told to by a line, `count` more; says so each time, and holds them until the end of its
/// input.
pub fn hold(port: u16, count: usize) -> Result<()> {
    let mut streams = Vec::with_capacity(count + 1);
    for more in [1, count] {
        let begun = Instant::now();
        for _ in 0..more {
            let mut stream = connect(port)?;
            stream.write_all(CONNECT)?;
            let mut connack = [0; 5];
            stream.read_exact(&mut connack)?;
            streams.push(stream);
        }
        tell(more, begun, 0);
        io::stdin().read_line(&mut String::new())?;
    }
    Ok(())
}

fn tell(count: usize, begun: Instant, bytes: usize) {
    println!(r#"{{"n":{count},"secs":{:.6},"bytes":{bytes}}}"#, begun.elapsed().as_secs_f64());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(pieces: &[&[u8]]) -> Replies {
        let mut sink = Sink { stream: a_stream(), begun: Vec::new(), replies: Replies::default(), sent: 0 };
        for piece in pieces {
            sink.hear(piece).unwrap();
        }
        assert!(sink.begun.is_empty());
        sink.replies
    }

    fn a_stream() -> mio::net::TcpStream {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        mio::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap()
    }

    #[test]
    fn packets_split_at_any_byte_are_answered_the_same() {
        let mut sent = Vec::from(CONNECT);
        for qos in [0, 1, 2] {
            Messages::new(b"bench/t", qos, 200).unwrap().push(&mut sent);
        }
        sent.extend_from_slice(b"\x62\x02\x00\x01\xc0\x00");
        let answers = b"\x20\x03\0\0\0\x40\x02\0\x01\x50\x02\0\x01\x70\x02\0\x01\xd0\0";
        for at in 0..=sent.len() {
            assert_eq!(heard(&[&sent[..at], &sent[at..]]).output, answers, "split at {at}");
        }
    }

    #[test]
    fn a_subscription_is_acknowledged_and_flooded() {
        let mut replies = heard(&[b"\x82\x13\0\x07\0\0\x0dflood/2/300/1\x01"]);
        replies.go_on();
        let message = |identifier| {
            let head = [b"\x32\xbe\x02\0\x0dflood/2/300/1\0", &[identifier][..], b"\0"].concat();
            [head, vec![b'x'; 300]].concat()
        };
        assert_eq!(replies.output, [b"\x90\x04\0\x07\0\x01".to_vec(), message(1), message(2)].concat());
    }

    #[test]
    fn identifiers_go_round_without_0() {
        let mut messages = Messages::new(b"t", 1, 0).unwrap();
        messages.identifier = u16::MAX;
        let mut output = Vec::new();
        messages.push(&mut output);
        assert_eq!(output, b"\x32\x06\0\x01t\0\x01\0");
    }

    #[test]
    fn a_disconnect_ends_the_connection() {
        assert!(Replies::default().answer(DISCONNECT).is_err());
    }

    #[test]
    fn a_length_has_at_most_four_bytes() {
        assert!(matches!(variable(b"\xff\xff\xff"), Ok(None)));
        assert!(variable(b"\xff\xff\xff\xff\x01").is_err());
    }
}
