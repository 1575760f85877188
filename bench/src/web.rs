//! The row `ws`: an echo server for WebSocket, the least client there can be, and who holds many connections, all on
//! tungstenite.

use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use tungstenite::{
    Message, WebSocket, accept,
    handshake::client::{Request, generate_key},
};

use crate::Result;

/// A server that is silent for longer has lost something.
const SILENCE: Duration = Duration::from_secs(10);

/// Serves one client after another until it is killed.
pub fn serve(port: u16) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    loop {
        let (stream, _) = listener.accept()?;
        // Whoever only looks whether there is a server goes away at once, in an error.
        let _ = echo(stream);
    }
}

fn echo(stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut socket = accept(stream).map_err(|error| error.to_string())?;
    loop {
        let message = socket.read()?;
        if message.is_text() || message.is_binary() {
            socket.send(message)?;
        }
    }
}

/// Greets and echoes one message on each connection, and then holds its socket, nothing else: what no server gets below.
pub fn keep(port: u16) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    let mut kept = Vec::new();
    loop {
        let (stream, _) = listener.accept()?;
        let Ok(mut socket) = accept(stream.try_clone()?) else { continue };
        let message = socket.read()?;
        socket.send(message)?;
        kept.push(stream);
    }
}

/// Opens connections, sends a message on each and waits until it is back, says so, and holds them until the end of its
/// input.
pub fn hold(port: u16, connections: usize) -> Result<()> {
    let begun = Instant::now();
    let mut held = Vec::with_capacity(connections);
    for _ in 0..connections {
        let mut socket = connect(port, "/")?;
        socket.send(Message::text("ping"))?;
        socket.read()?;
        held.push(socket.get_ref().try_clone()?);
    }
    println!(r#"{{"n":{connections},"secs":{:.6}}}"#, begun.elapsed().as_secs_f64());
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok(())
}

/// A connection to a server on the loopback.
pub fn connect(port: u16, path: &str) -> Result<WebSocket<TcpStream>> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(SILENCE))?;
    let request = Request::builder()
        .uri(format!("ws://127.0.0.1:{port}{path}"))
        .header("Host", "127.0.0.1")
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", generate_key())
        .body(())
        .map_err(|error| error.to_string())?;
    let (socket, _) = tungstenite::client(request, stream).map_err(|error| error.to_string())?;
    Ok(socket)
}

/// Sends `count` messages of `size` bytes, `window` of them under way, and waits until all have come back.
pub fn send(port: u16, count: usize, size: usize, text: bool, window: usize) -> Result<()> {
    let mut socket = connect(port, "/")?;
    let payload = "x".repeat(size);
    let message = if text { Message::text(payload) } else { Message::binary(payload.into_bytes()) };
    let begun = Instant::now();
    for _ in 0..window.min(count) {
        socket.send(message.clone())?;
    }
    for received in 1..=count {
        let got = socket.read()?;
        if got.len() != size {
            return Err(format!("a message of {} bytes came back for one of {size}", got.len()).into());
        }
        if received + window <= count {
            socket.send(message.clone())?;
        }
    }
    let secs = begun.elapsed().as_secs_f64();
    println!("{{\"n\":{count},\"secs\":{secs:.6},\"bytes\":{}}}", count * size);
    Ok(())
}
