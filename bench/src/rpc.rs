//! The rows `wsrpc...`: a JSON-RPC server over WebSocket that adds, and the least client there can be, both on tungstenite
//! and serde_json.

use std::collections::HashSet;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use tungstenite::{Message, WebSocket, accept};

use crate::Result;
use crate::web;

#[derive(Deserialize)]
struct Request {
    id: u64,
    method: String,
    params: Vec<i64>,
}

#[derive(Serialize)]
struct Response {
    jsonrpc: &'static str,
    id: u64,
    result: i64,
}

#[derive(Deserialize)]
struct Answer {
    id: u64,
    result: i64,
}

/// Serves one client after another until it is killed.
pub fn serve(port: u16) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    loop {
        let (stream, _) = listener.accept()?;
        // Whoever only looks whether there is a server goes away at once, in an error.
        let _ = answer(stream);
    }
}

fn answer(stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut socket = accept(stream).map_err(|error| error.to_string())?;
    loop {
        let message = socket.read()?;
        if message.is_text() {
            let request: Request = serde_json::from_str(message.to_text()?)?;
            if request.method != "sum" {
                return Err(format!("{:?} is no method", request.method).into());
            }
            let response = Response { jsonrpc: "2.0", id: request.id, result: request.params.iter().sum() };
            socket.send(Message::text(serde_json::to_string(&response)?))?;
        }
    }
}

/// Calls `sum` `count` times over one connection, `window` of them under way.
pub fn call(port: u16, count: u64, window: u64) -> Result<()> {
    let mut socket = web::connect(port, "/rpc")?;
    let begun = Instant::now();
    let mut under_way = HashSet::new();
    let mut last = 0;
    let mut ask = |socket: &mut WebSocket<TcpStream>, under_way: &mut HashSet<u64>| -> Result<()> {
        last += 1;
        under_way.insert(last);
        let text = format!("{{\"jsonrpc\":\"2.0\",\"id\":{last},\"method\":\"sum\",\"params\":[1,2]}}");
        Ok(socket.send(Message::text(text))?)
    };
    for _ in 0..window.min(count) {
        ask(&mut socket, &mut under_way)?;
    }
    for received in 1..=count {
        let got = socket.read()?;
        let answer: Answer = serde_json::from_str(got.to_text()?)?;
        if answer.result != 3 || !under_way.remove(&answer.id) {
            return Err(format!("{got} is no answer").into());
        }
        if received + window <= count {
            ask(&mut socket, &mut under_way)?;
        }
    }
    let secs = begun.elapsed().as_secs_f64();
    println!("{{\"n\":{count},\"secs\":{secs:.6},\"bytes\":0}}");
    Ok(())
}
