//! The row `smtp`: a mail server that takes everything, and the least client there can be, which waits for each reply.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crate::Result;

/// A server that is silent for longer has lost something.
const SILENCE: Duration = Duration::from_secs(10);

/// Serves one client after another until it is killed. It offers PIPELINING, as mail servers do.
pub fn serve(port: u16) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    loop {
        let (stream, _) = listener.accept()?;
        // Whoever only looks whether there is a server goes away at once, in an error.
        let _ = talk(stream);
    }
}

fn talk(stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut output = stream.try_clone()?;
    let mut input = BufReader::new(stream);
    let mut replies = Vec::from(*b"220 bench\r\n");
    let mut line = Vec::new();
    let mut in_message = false;
    loop {
        // Replies to what came together leave together (RFC 2920, 3.2).
        if input.buffer().is_empty() {
            output.write_all(&replies)?;
            replies.clear();
        }
        line.clear();
        if input.read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        if in_message {
            in_message = line != b".\r\n";
            if !in_message {
                replies.extend_from_slice(b"250 2.0.0 taken\r\n");
            }
            continue;
        }
        let reply: &[u8] = match line.get(..4) {
            Some(b"EHLO") => b"250-bench\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE\r\n",
            Some(b"DATA") => {
                in_message = true;
                b"354 go on\r\n"
            }
            Some(b"QUIT") => {
                replies.extend_from_slice(b"221 2.0.0 bye\r\n");
                output.write_all(&replies)?;
                return Ok(());
            }
            _ => b"250 2.0.0 ok\r\n",
        };
        replies.extend_from_slice(reply);
    }
}

/// A connection to a mail server.
struct Client {
    output: TcpStream,
    input: BufReader<TcpStream>,
    line: Vec<u8>,
}

impl Client {
    fn connect(port: u16) -> Result<Self> {
        let output = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        output.set_nodelay(true)?;
        output.set_read_timeout(Some(SILENCE))?;
        let input = BufReader::new(output.try_clone()?);
        let mut client = Self { output, input, line: Vec::new() };
        client.hear(b"220")?;
        client.ask(b"EHLO localhost\r\n", b"250")?;
        Ok(client)
    }

    fn ask(&mut self, command: &[u8], code: &[u8]) -> Result<()> {
        self.output.write_all(command)?;
        self.hear(code)
    }

    fn hear(&mut self, code: &[u8]) -> Result<()> {
        loop {
            self.line.clear();
            self.input.read_until(b'\n', &mut self.line)?;
            if !self.line.starts_with(code) {
                return Err(format!("{:?} is not {:?}", self.line.escape_ascii(), code.escape_ascii()).into());
            }
            if self.line.get(3) == Some(&b' ') {
                return Ok(());
            }
        }
    }

    fn send(&mut self, message: &[u8]) -> Result<()> {
        self.ask(b"MAIL FROM:<a@example.org>\r\n", b"250")?;
        self.ask(b"RCPT TO:<b@example.org>\r\n", b"250")?;
        self.ask(b"DATA\r\n", b"354")?;
        self.ask(message, b"250")
    }
}

/// Sends `count` messages over one connection, or each over its own.
pub fn send(port: u16, count: usize, reuse: bool, size: usize) -> Result<()> {
    let line = format!("{}\r\n", "x".repeat(70));
    let mut body = line.repeat(size / line.len() + 1);
    body.truncate(size.saturating_sub(2));
    let head = "From: a@example.org\r\nTo: b@example.org\r\nSubject: hello\r\n\r\n";
    let message = format!("{head}{body}\r\n.\r\n");
    let mut kept = if reuse { Some(Client::connect(port)?) } else { None };
    let begun = Instant::now();
    for _ in 0..count {
        match &mut kept {
            Some(client) => client.send(message.as_bytes())?,
            None => {
                let mut client = Client::connect(port)?;
                client.send(message.as_bytes())?;
                client.ask(b"QUIT\r\n", b"221")?;
            }
        }
    }
    println!(r#"{{"n":{count},"secs":{:.6}}}"#, begun.elapsed().as_secs_f64());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::thread;

    #[test]
    fn commands_in_one_flight_are_answered_in_one() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().unwrap();
        let server = thread::spawn(move || talk(stream).map_err(|error| error.to_string()));
        client.write_all(b"EHLO x\r\nMAIL FROM:<a@x>\r\nRCPT TO:<b@x>\r\nDATA\r\nx\r\n..\r\n.\r\nQUIT\r\n").unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        let codes: Vec<&str> = answer.lines().map(|line| &line[..3]).collect();
        assert_eq!(codes, ["220", "250", "250", "250", "250", "250", "250", "354", "250", "221"]);
        server.join().unwrap().unwrap();
    }
}
