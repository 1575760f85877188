//! The rows `http` and `httpstream`: a server that says one thing, and the least client there can be, which knows how
//! long each answer is.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection, StreamOwned};

use crate::{Result, tls};

/// A server that is silent for longer has lost something.
const SILENCE: Duration = Duration::from_secs(10);
/// What `GET /` is answered with.
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 13\r\n\r\nHello, world\n";
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n";
const STREAM_REQUEST: &[u8] = b"GET /stream HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n";
/// Bytes of `GET /stream`.
const STREAM: usize = 256 * 1024 * 1024;
const CHUNK: usize = 64 * 1024;

/// Serves until it is killed: with a configuration, over TLS.
pub fn serve(port: u16, config: Option<Arc<ServerConfig>>) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    loop {
        let (stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        let config = config.clone();
        // Whoever only looks whether there is a server goes away at once, in an error.
        thread::spawn(move || match config {
            None => talk(stream).ok(),
            Some(config) => talk(StreamOwned::new(ServerConnection::new(config).ok()?, stream)).ok(),
        });
    }
}

fn talk(mut stream: impl Read + Write) -> Result<()> {
    let mut input = Vec::new();
    let mut chunk = vec![0; CHUNK];
    loop {
        let count = stream.read(&mut chunk)?;
        if count == 0 {
            return Ok(());
        }
        input.extend_from_slice(&chunk[..count]);
        while let Some(end) = input.windows(4).position(|four| four == b"\r\n\r\n") {
            if input.starts_with(b"GET /stream ") {
                write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {STREAM}\r\n\r\n")?;
                for _ in 0..STREAM / CHUNK {
                    stream.write_all(&chunk)?;
                }
            } else {
                stream.write_all(ANSWER)?;
            }
            input.drain(..end + 4);
        }
        stream.flush()?;
    }
}

fn connect(port: u16) -> Result<TcpStream> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(SILENCE))?;
    Ok(stream)
}

fn connect_tls(port: u16, config: &Arc<ClientConfig>) -> Result<StreamOwned<ClientConnection, TcpStream>> {
    let session = ClientConnection::new(Arc::clone(config), "localhost".try_into()?)?;
    Ok(StreamOwned::new(session, connect(port)?))
}

/// Asks `count` times, on so many connections at once.
pub fn ask(port: u16, count: usize, connections: usize, secure: bool) -> Result<()> {
    if secure {
        let config = tls::client()?;
        let streams = (0..connections).map(|_| connect_tls(port, &config)).collect::<Result<Vec<_>>>()?;
        return rounds(streams, count);
    }
    rounds((0..connections).map(|_| connect(port)).collect::<Result<Vec<_>>>()?, count)
}

fn rounds<S: Read + Write>(mut streams: Vec<S>, count: usize) -> Result<()> {
    let mut answer = vec![0; ANSWER.len()];
    // Connected, and shaken hands, before the clock starts.
    for stream in &mut streams {
        stream.write_all(REQUEST)?;
        stream.read_exact(&mut answer)?;
    }
    let begun = Instant::now();
    let (mut asked, mut answered) = (0, 0);
    for stream in &mut streams {
        stream.write_all(REQUEST)?;
        asked += 1;
    }
    while answered < count {
        for stream in &mut streams {
            if answered == count {
                break;
            }
            stream.read_exact(&mut answer)?;
            answered += 1;
            if asked < count {
                stream.write_all(REQUEST)?;
                asked += 1;
            }
        }
    }
    println!(r#"{{"n":{answered},"secs":{:.6}}}"#, begun.elapsed().as_secs_f64());
    Ok(())
}

/// Fetches [`STREAM`] bytes and counts them.
pub fn fetch(port: u16, secure: bool) -> Result<()> {
    if secure {
        return count(connect_tls(port, &tls::client()?)?);
    }
    count(connect(port)?)
}

fn count(mut stream: impl Read + Write) -> Result<()> {
    let mut chunk = vec![0; CHUNK];
    // The handshake comes before the clock starts.
    stream.write_all(REQUEST)?;
    stream.read_exact(&mut chunk[..ANSWER.len()])?;
    let begun = Instant::now();
    stream.write_all(STREAM_REQUEST)?;
    let mut seen = 0;
    // The head is not worth looking for in so many bytes.
    while seen < STREAM {
        match stream.read(&mut chunk)? {
            0 => return Err("the server ended too early".into()),
            more => seen += more,
        }
    }
    println!(r#"{{"n":{STREAM},"secs":{:.6}}}"#, begun.elapsed().as_secs_f64());
    Ok(())
}
