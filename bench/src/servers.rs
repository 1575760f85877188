//! The reference servers: one thread, mio, and the least work between a read and a write.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use rustls::{HandshakeKind, ServerConfig, ServerConnection};
use socket2::{Domain, Socket, Type};

use crate::Result;

const LISTENER: Token = Token(usize::MAX);
const CHUNK: usize = 64 * 1024;

/// What all connections of a server share, because only one is served at a time.
pub struct Scratch {
    /// What is read goes here.
    pub input: Box<[u8]>,
    output: Vec<u8>,
}

/// One connection of a server.
pub trait Peer {
    /// Does all that can be done now. False when the connection is over.
    fn ready(&mut self, scratch: &mut Scratch) -> bool;
}

/// Serves connections, made into peers by `welcome`, until it is killed.
pub fn serve<P: Peer>(port: u16, welcome: impl Fn(TcpStream) -> Result<P>) -> Result<()> {
    let mut listener = listen(port)?;
    let mut poll = Poll::new()?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut events = Events::with_capacity(1024);
    let mut scratch = Scratch { input: vec![0; CHUNK].into(), output: Vec::with_capacity(CHUNK) };
    let mut peers: Vec<Option<P>> = Vec::new();
    let mut free: Vec<usize> = Vec::new();
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            if event.token() == LISTENER {
                while let Ok((mut stream, _)) = listener.accept() {
                    stream.set_nodelay(true)?;
                    let place = free.pop().unwrap_or(peers.len());
                    let both = Interest::READABLE | Interest::WRITABLE;
                    poll.registry().register(&mut stream, Token(place), both)?;
                    let peer = Some(welcome(stream)?);
                    if place == peers.len() { peers.push(peer) } else { peers[place] = peer }
                }
                continue;
            }
            let Token(place) = event.token();
            // An event may be left of a connection that this very batch has ended.
            if peers[place].as_mut().is_some_and(|peer| !peer.ready(&mut scratch)) {
                peers[place] = None;
                free.push(place);
            }
        }
    }
}

fn listen(port: u16) -> Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())?;
    socket.listen(4096)?;
    Ok(TcpListener::from_std(socket.into()))
}

/// What a non-blocking call came to.
pub enum Step {
    /// So many bytes went.
    Went(usize),
    /// Nothing goes now.
    Later,
    /// The connection is over.
    Over,
}

/// Tells what a read or a write came to.
pub fn step(outcome: io::Result<usize>) -> Step {
    match outcome {
        Ok(0) => Step::Over,
        Ok(count) => Step::Went(count),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Step::Later,
        Err(_) => Step::Over,
    }
}

/// A stream and what it would not take yet.
struct Plain {
    stream: TcpStream,
    unsent: Vec<u8>,
}

impl Plain {
    /// Sends what was kept. False when the connection is over.
    fn send_kept(&mut self) -> bool {
        let kept = std::mem::take(&mut self.unsent);
        kept.is_empty() || self.send(&kept)
    }

    /// Sends, and keeps what the stream does not take. False when the connection is over.
    fn send(&mut self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            match step(self.stream.write(bytes)) {
                Step::Went(count) => bytes = &bytes[count..],
                Step::Later => {
                    self.unsent = bytes.to_vec();
                    return true;
                }
                Step::Over => return false,
            }
        }
        true
    }
}

impl Peer for Plain {
    fn ready(&mut self, scratch: &mut Scratch) -> bool {
        if !self.send_kept() {
            return false;
        }
        while self.unsent.is_empty() {
            match step(self.stream.read(&mut scratch.input)) {
                Step::Went(count) => {
                    if !self.send(&scratch.input[..count]) {
                        return false;
                    }
                    // A read that does not fill the buffer has emptied the socket: the next segment is an event.
                    if count < scratch.input.len() {
                        break;
                    }
                }
                Step::Later => break,
                Step::Over => return false,
            }
        }
        true
    }
}

/// Echoes bytes.
pub fn echo(port: u16) -> Result<()> {
    serve(port, |stream| Ok(Plain { stream, unsent: Vec::new() }))
}

/// A connection of which each line is found, and written, by itself; writes leave together.
struct Lines {
    plain: Plain,
    begun: Vec<u8>,
}

impl Lines {
    /// Puts the whole lines of a piece into the output and keeps the line that it only begins.
    fn split(&mut self, mut piece: &[u8], output: &mut Vec<u8>) {
        while let Some(end) = memchr::memchr(b'\n', piece) {
            output.append(&mut self.begun);
            output.extend_from_slice(&piece[..end]);
            output.push(b'\n');
            piece = &piece[end + 1..];
        }
        self.begun.extend_from_slice(piece);
    }
}

impl Peer for Lines {
    fn ready(&mut self, scratch: &mut Scratch) -> bool {
        if !self.plain.send_kept() {
            return false;
        }
        while self.plain.unsent.is_empty() {
            match step(self.plain.stream.read(&mut scratch.input)) {
                Step::Went(count) => {
                    scratch.output.clear();
                    self.split(&scratch.input[..count], &mut scratch.output);
                    if !self.plain.send(&scratch.output) {
                        return false;
                    }
                    if count < scratch.input.len() {
                        break;
                    }
                }
                Step::Later => break,
                Step::Over => return false,
            }
        }
        true
    }
}

/// Echoes line by line.
pub fn lines(port: u16) -> Result<()> {
    serve(port, |stream| Ok(Lines { plain: Plain { stream, unsent: Vec::new() }, begun: Vec::new() }))
}

/// A TLS connection.
struct Secure {
    stream: TcpStream,
    session: Box<ServerConnection>,
}

impl Peer for Secure {
    fn ready(&mut self, scratch: &mut Scratch) -> bool {
        loop {
            while self.session.wants_write() {
                match step(self.session.write_tls(&mut self.stream)) {
                    Step::Went(_) => {}
                    Step::Later => return true,
                    Step::Over => return false,
                }
            }
            match step(self.session.read_tls(&mut self.stream)) {
                Step::Went(_) => {}
                Step::Later => return true,
                Step::Over => return false,
            }
            if self.session.process_new_packets().is_err() {
                return false;
            }
            loop {
                match step(self.session.reader().read(&mut scratch.input)) {
                    Step::Went(count) => {
                        if self.session.writer().write_all(&scratch.input[..count]).is_err() {
                            return false;
                        }
                    }
                    Step::Later => break,
                    Step::Over => return false,
                }
            }
        }
    }
}

/// Echoes bytes over TLS.
pub fn tls_echo(port: u16, config: Arc<ServerConfig>) -> Result<()> {
    serve(port, |stream| Ok(Secure { stream, session: Box::new(ServerConnection::new(Arc::clone(&config))?) }))
}

/// Shakes hands with one client after another; ends with an error should a client resume a session.
pub fn handshakes(port: u16, config: Arc<ServerConfig>) -> Result<()> {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    loop {
        let (mut stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let mut session = ServerConnection::new(Arc::clone(&config))?;
        // Whoever only looks whether there is a server goes away at once, in an error.
        while session.is_handshaking() && session.complete_io(&mut stream).is_ok_and(|(read, _)| read > 0) {}
        match session.handshake_kind() {
            Some(HandshakeKind::Resumed) => return Err("a client resumed a session".into()),
            _ => while session.read_tls(&mut stream).is_ok_and(|count| count > 0) {},
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_split_at_any_byte_is_one_line() {
        let text = b"one\n\ntwo\nthree";
        for at in 0..=text.len() {
            let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let mut peer = Lines { plain: Plain { stream, unsent: Vec::new() }, begun: Vec::new() };
            let mut output = Vec::new();
            peer.split(&text[..at], &mut output);
            peer.split(&text[at..], &mut output);
            assert_eq!(output, b"one\n\ntwo\n", "split at {at}");
            assert_eq!(peer.begun, b"three", "split at {at}");
        }
    }
}
