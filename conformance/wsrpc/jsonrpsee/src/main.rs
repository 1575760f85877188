//! An independent end of JSON-RPC connections over WebSocket: jsonrpsee.
//!
//! ```text
//! wsrpc-jsonrpsee server [PORT]       serves; prints "listening on 127.0.0.1:PORT"
//! wsrpc-jsonrpsee client URL          drives a server of ours; prints "passed NAME" or "failed NAME: why" for each case
//! wsrpc-jsonrpsee load URL N WINDOW   N calls, WINDOW of them under way; prints how many, and in how many seconds
//! ```

mod client;
mod server;

use std::error::Error;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["server"] => server::serve(0).await,
        ["server", port] => server::serve(port.parse()?).await,
        ["client", url] => client::drive(url).await,
        ["load", url, count, window] => client::load(url, count.parse()?, window.parse()?).await,
        _ => Err("server [PORT], client URL, or load URL N WINDOW".into()),
    }
}
