//! The row `ws`: an echo server for WebSocket, and the least client there can be, both on tungstenite.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use tungstenite::{
    Message, accept,
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

/// Sends `count` messages of `size` bytes, `window` of them under way, and waits until all have come back.
pub fn send(port: u16, count: usize, size: usize, text: bool, window: usize) -> Result<()> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(SILENCE))?;
    let request = Request::builder()
        .uri(format!("ws://127.0.0.1:{port}/"))
        .header("Host", "127.0.0.1")
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", generate_key())
        .body(())
        .map_err(|error| error.to_string())?;
    let (mut socket, _) = tungstenite::client(request, stream).map_err(|error| error.to_string())?;
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
