//! The client for browsers, `lua/wsrpc/wsrpc.js`, in Node against a server of ours.

use std::{
    error::Error,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

/// Ends with the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_client_for_browsers_calls_streams_and_connects_again_in_node() -> Result<(), Box<dyn Error>> {
    let flag = "--experimental-websocket";
    // Node 20 has a WebSocket behind a flag, and later ones without.
    match Command::new("node").args([flag, "--version"]).stderr(Stdio::null()).output() {
        Ok(output) if output.status.success() => {}
        _ => {
            println!("skipped: there is no node 20 or later on the path");
            return Ok(());
        }
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wsrpc");
    let mut server = Server(
        Command::new(env!("CARGO_BIN_EXE_moonwire")).arg(folder.join("server.lua")).stdout(Stdio::piped()).spawn()?,
    );
    let mut address = String::new();
    BufReader::new(server.0.stdout.take().ok_or("no output")?).read_line(&mut address)?;
    let output = Command::new("node")
        .arg(flag)
        .arg(folder.join("client.mjs"))
        .arg(address.trim())
        .arg(Path::new(env!("CARGO_TARGET_TMPDIR")).join("wsrpc.mjs"))
        .output()?;
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && told.contains("all is well"),
        "{told}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
