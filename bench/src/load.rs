//! Load generators and the reference client. Each prints one line of JSON: how many, in how many seconds.
//!
//! They block, and visit their connections in turn: a read and a write a round and no poll between leaves the
//! generator lighter than any server it asks, so that the server is what is measured.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::{ClientConnection, StreamOwned};

use crate::Result;
use crate::tls;

/// Bytes of a message, or of a line with its end.
pub const MESSAGE: usize = 64;
/// A server that is silent for longer has lost something.
const SILENCE: Duration = Duration::from_secs(10);

fn connect(port: u16) -> Result<TcpStream> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(SILENCE))?;
    Ok(stream)
}

/// `count` lines of [`MESSAGE`] bytes, as one piece.
fn lines(count: usize) -> Vec<u8> {
    let mut line = [b'x'; MESSAGE];
    line[MESSAGE - 1] = b'\n';
    line.repeat(count)
}

/// Sends and takes back one piece.
fn ping(stream: &mut (impl Read + Write), sent: &[u8], answer: &mut [u8]) -> Result<()> {
    stream.write_all(sent)?;
    take_back(stream, sent, answer)
}

fn take_back(stream: &mut impl Read, sent: &[u8], answer: &mut [u8]) -> Result<()> {
    stream.read_exact(answer)?;
    if answer == sent { Ok(()) } else { Err("the answer is not what was sent".into()) }
}

/// Keeps `batch` lines in flight on each of some connections for a while; counts lines that came back.
pub fn rounds(port: u16, connections: usize, batch: usize, time: Duration) -> Result<()> {
    let sent = lines(batch);
    let mut answer = vec![0; sent.len()];
    let mut streams = Vec::with_capacity(connections);
    for _ in 0..connections {
        let mut stream = connect(port)?;
        ping(&mut stream, &sent, &mut answer)?;
        streams.push(stream);
    }
    for stream in &mut streams {
        stream.write_all(&sent)?;
    }
    // The first tenth of the time, when caches are cold, does not count.
    let (begun, warm) = (Instant::now(), time / 10);
    let mut started = None;
    let (mut count, mut all) = (0, connections * batch);
    let seconds = loop {
        for stream in &mut streams {
            take_back(stream, &sent, &mut answer)?;
            stream.write_all(&sent)?;
        }
        all += connections * batch;
        match started {
            None if begun.elapsed() >= warm => started = Some(Instant::now()),
            None => {}
            Some(start) => {
                count += connections * batch;
                let elapsed: Duration = start.elapsed();
                if elapsed >= time {
                    break elapsed.as_secs_f64();
                }
            }
        }
    };
    println!(r#"{{"n":{count},"secs":{seconds:.6},"all":{all}}}"#);
    Ok(())
}

/// Opens connections, pings once on each, says so, and holds them until the end of its input.
pub fn hold(port: u16, connections: usize, secure: bool) -> Result<()> {
    let sent = lines(1);
    let mut answer = vec![0; sent.len()];
    let config = if secure { Some(tls::client()?) } else { None };
    let begun = Instant::now();
    let (mut plain, mut encrypted) = (Vec::new(), Vec::new());
    for _ in 0..connections {
        let mut stream = connect(port)?;
        if let Some(config) = &config {
            let session = ClientConnection::new(Arc::clone(config), "localhost".try_into()?)?;
            let mut stream = StreamOwned::new(session, stream);
            ping(&mut stream, &sent, &mut answer)?;
            encrypted.push(stream);
        } else {
            ping(&mut stream, &sent, &mut answer)?;
            plain.push(stream);
        }
    }
    tell(connections, begun.elapsed().as_secs_f64());
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok(())
}

/// The reference client: full handshakes one after another, each connection closed as TLS wants it.
pub fn handshakes(port: u16, count: usize) -> Result<()> {
    let config = tls::client()?;
    let begun = Instant::now();
    for _ in 0..count {
        let mut stream = connect(port)?;
        let mut session = ClientConnection::new(Arc::clone(&config), "localhost".try_into()?)?;
        while session.is_handshaking() {
            session.complete_io(&mut stream)?;
        }
        session.send_close_notify();
        while session.wants_write() {
            session.write_tls(&mut stream)?;
        }
    }
    tell(count, begun.elapsed().as_secs_f64());
    Ok(())
}

fn tell(count: usize, seconds: f64) {
    println!(r#"{{"n":{count},"secs":{seconds:.6}}}"#);
}
