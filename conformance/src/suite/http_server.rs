//! Our HTTP server, asked by others: curl, Python's http.client, h11, which refuses whatever RFC 9112 does, load from ab
//! and wrk, and raw bytes that try to make one message two.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use super::{Context, Suite};
use crate::certificates::Certificates;
use crate::outcome::Outcome;
use crate::process::{Finished, Process};
use crate::tools::Tool;

pub(super) const CURL: Tool = Tool::of_package("curl", "curl");
const PYTHON: Tool = Tool::of_package("/usr/bin/python3", "python3");
/// The package brings no program: its first file stands for it.
const H11: Tool = Tool::of_package("/usr/lib/python3/dist-packages/h11/__init__.py", "python3-h11");
const AB: Tool = Tool::of_package("ab", "apache2-utils");
const WRK: Tool = Tool::of_package("wrk", "wrk");

/// Our server, proved by other people's clients.
pub const SUITE: Suite = Suite {
    name: "http_server",
    about: "our HTTP server, asked by curl, http.client, h11, ab, wrk and bytes that smuggle",
    needs: &[CURL, PYTHON, H11, AB, WRK],
    servers: &[],
    time_max: Duration::from_secs(10 * 60),
    cases: |_| Ok(names()),
    run,
};

const FOLDER: &str = "conformance/http_server";
/// One case, on a machine that is busy.
const CASE_TIME_MAX: Duration = Duration::from_secs(60);
/// How long the server may take to answer raw bytes: it waits two seconds for a head.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(15);
/// Bytes of the large file that is served.
const LARGE: usize = 8 * 1024 * 1024;

/// A server that runs, and where things are.
struct Site {
    process: Process,
    port: u16,
    tls_port: u16,
    authority: String,
    www: String,
}

/// A case with a server of its own.
type OwnCase = fn(&mut Context<'_>) -> Result<(), Outcome>;
type Case = fn(&mut Context<'_>, &Site) -> Result<(), Outcome>;

const CASES: &[(&str, Case)] = &[
    ("curl: GET, and the connection is used again", |context, site| {
        let url = site.url("/hello");
        let finished = curl(context, &["-w", " %{http_code} %{num_connects}\n", &url, &url, &url])?;
        equal(&finished, "hello 200 1\nhello 200 0\nhello 200 0\n")
    }),
    ("curl: HEAD has the length and no body", |context, site| {
        let finished = curl(context, &["-I", &site.url("/files/large.bin")])?;
        contains(&finished, &["HTTP/1.1 200 OK", &format!("Content-Length: {LARGE}")])
    }),
    ("curl: HTTP/1.0 is answered without chunks", |context, site| {
        let finished = curl(context, &["-0", "-i", &site.url("/chunks")])?;
        contains(&finished, &["HTTP/1.1 200 OK", "Connection: close", "line 100"])?;
        lacks(&finished, "chunked")
    }),
    ("curl: a body is announced with Expect: 100-continue", |context, site| {
        let body = format!("@{}/large.bin", site.www);
        let arguments = ["-v", "-H", "Expect: 100-continue", "-H", "Content-Type: x/y", "--data-binary", &body];
        let finished = curl(context, &[&arguments[..], &["-o", "/dev/null", &site.url("/echo")]].concat())?;
        contains(&finished, &["HTTP/1.1 100 Continue", "HTTP/1.1 200 OK", &format!("Content-Length: {LARGE}")])
    }),
    ("curl: an upload in chunks arrives whole", |context, site| {
        let file = format!("{}/large.bin", site.www);
        let finished = curl(context, &["-T", &file, "-H", "Transfer-Encoding: chunked", &site.url("/count")])?;
        contains(&finished, &[&format!("\"size\":{LARGE}")])
    }),
    ("curl: a download is the file, resumed in the middle, too", |context, site| {
        let (url, copy) = (site.url("/files/large.bin"), format!("{}/../copy.bin", site.www));
        curl(context, &["-r", "0-4999999", "-o", &copy, &url])?;
        curl(context, &["-C", "-", "-o", &copy, &url])?;
        let same = fs::read(&copy).ok() == fs::read(format!("{}/large.bin", site.www)).ok();
        same.then_some(()).ok_or_else(|| Outcome::Failed("the copy is another file".to_owned()))
    }),
    ("curl: several ranges come as multipart/byteranges [RFC 9110 14.6]", |context, site| {
        let finished = curl(context, &["-i", "-r", "0-1,5-6", &site.url("/files/page.html")])?;
        contains(&finished, &["206 Partial Content", "multipart/byteranges", "Content-Range: bytes 0-1/", "<!", "ty"])
    }),
    ("curl: what has not changed is not sent again [RFC 9110 13.1.2, 13.1.3]", |context, site| {
        let (url, tag) = (site.url("/files/page.html"), format!("{}/../tag", site.www));
        let code = ["-o", "/dev/null", "-w", "%{http_code} "];
        let first = curl(context, &[&code[..], &["--etag-save", &tag, &url]].concat())?;
        let second = curl(context, &[&code[..], &["--etag-compare", &tag, &url]].concat())?;
        let page = format!("{}/page.html", site.www);
        let third = curl(context, &[&code[..], &["-z", &page, &url]].concat())?;
        for (finished, wanted) in [(first, "200 "), (second, "304 "), (third, "304 ")] {
            equal(&finished, wanted)?;
        }
        Ok(())
    }),
    ("curl: no path leads out of the folder", |context, site| {
        for path in [
            "/files/../secret",
            "/files/%2e%2e/secret",
            "/files/..%2fsecret",
            "/files/sub/../../secret",
            "/files/link",
            "/files/..%5csecret",
            "/files/%00",
            "/files//etc/passwd",
            "/files/%2fetc/passwd",
            "/files/.hidden",
        ] {
            let url = site.url(path);
            let finished = curl(context, &["--path-as-is", "-o", "/dev/null", "-w", "%{http_code}", &url])?;
            equal(&finished, "404").map_err(|outcome| Outcome::Failed(format!("{path}: {outcome:?}")))?;
        }
        Ok(())
    }),
    ("curl: a folder is redirected to its slash, and its index comes", |context, site| {
        let finished = curl(context, &["-L", "-w", " %{num_redirects}", &site.url("/files/sub")])?;
        equal(&finished, "index of sub\n 1")
    }),
    ("curl: trailers and chunks are understood", |context, site| {
        let finished = curl(context, &["-i", "--raw", &site.url("/chunks")])?;
        contains(&finished, &["Transfer-Encoding: chunked", "line 100", "Lines: 100"])
    }),
    ("curl: server-sent events come as they are", |context, site| {
        let finished = curl(context, &["-N", &site.url("/events")])?;
        equal(&finished, "id: 1\ndata: tick\n\nid: 2\ndata: tick\n\nid: 3\ndata: tick\n\n")
    }),
    ("curl: a response that is cut short is noticed", |context, site| {
        let mut command = context.setting.command(CURL.program);
        command.args(["-s", "-o", "/dev/null", &site.url("/broken")]);
        let finished = context.run(command, CASE_TIME_MAX).map_err(Outcome::Failed)?;
        // 18: a partial file.
        let noticed = matches!(finished.ending, crate::process::Ending::Status(18));
        noticed.then_some(()).ok_or_else(|| Outcome::Failed(finished.summary()))
    }),
    ("curl: TLS with our authority, and not without", |context, site| {
        let url = format!("https://localhost:{}/tls", site.tls_port);
        equal(&curl(context, &["--cacert", &site.authority, &url])?, "1.3")?;
        equal(&curl(context, &["--cacert", &site.authority, "--tls-max", "1.2", &url])?, "1.2")?;
        let mut command = context.setting.command(CURL.program);
        command.args(["-s", &url]);
        let finished = context.run(command, CASE_TIME_MAX).map_err(Outcome::Failed)?;
        if finished.succeeded() { Err(Outcome::Failed("nobody was to trust it".to_owned())) } else { Ok(()) }
    }),
    ("http.client: one connection carries 200 requests and four kinds of refusal", |c, s| python(c, s, "kept")),
    ("http.client: HEAD leaves the connection in step", |c, s| python(c, s, "head")),
    ("http.client: an upload in 200 chunks comes back whole", |c, s| python(c, s, "chunked_upload")),
    ("http.client: 32 MiB are uploaded and counted", |c, s| python(c, s, "large_upload")),
    ("http.client: too large a body is refused before it is sent", |c, s| python(c, s, "too_large")),
    ("http.client: a large file is the same file", |c, s| python(c, s, "large_download")),
    ("http.client: a response in chunks is whole", |c, s| python(c, s, "chunks")),
    ("http.client: a response that is cut short is noticed", |c, s| python(c, s, "broken")),
    ("http.client: 50 threads ask at once", |c, s| python(c, s, "parallel")),
    ("http.client: TLS carries requests and large bodies", |c, s| python(c, s, "tls")),
    ("h11: every answer on one connection is legal", |c, s| strict(c, s, "exchanges")),
    ("h11: trailers come after the last chunk", |c, s| strict(c, s, "trailers")),
    ("h11: uploads with a length and in chunks", |c, s| strict(c, s, "upload")),
    ("h11: trailers of an upload are seen", |c, s| strict(c, s, "upload_trailers")),
    ("h11: 100 comes when the body is wanted, and only then [RFC 9110 10.1.1]", |c, s| strict(c, s, "expect")),
    ("h11: ranges [RFC 9110 14]", |c, s| strict(c, s, "ranges")),
    ("h11: preconditions [RFC 9110 13]", |c, s| strict(c, s, "conditions")),
    ("h11: an upgrade hands over the connection [RFC 9110 7.8]", |c, s| strict(c, s, "upgrade")),
    ("ab: 20,000 requests of HTTP/1.0 on 50 kept connections", |context, site| {
        let mut command = context.setting.command(AB.program);
        command.args(["-q", "-k", "-n", "20000", "-c", "50", &format!("http://127.0.0.1:{}/hello", site.port)]);
        let finished = context.succeed(command, CASE_TIME_MAX).map_err(Outcome::Failed)?;
        contains(
            &finished,
            &["Complete requests:      20000", "Failed requests:        0", "Keep-Alive requests:    20000"],
        )?;
        lacks(&finished, "Non-2xx")
    }),
    ("ab: 2,000 connections with one request each", |context, site| {
        let mut command = context.setting.command(AB.program);
        command.args(["-q", "-n", "2000", "-c", "50", &format!("http://127.0.0.1:{}/hello", site.port)]);
        let finished = context.succeed(command, CASE_TIME_MAX).map_err(Outcome::Failed)?;
        contains(&finished, &["Complete requests:      2000", "Failed requests:        0"])
    }),
    ("wrk: two seconds of load on 64 connections, no error", |context, site| {
        let mut command = context.setting.command(WRK.program);
        command.args(["-t1", "-c64", "-d2s", &format!("http://127.0.0.1:{}/things/7?x=1", site.port)]);
        let finished = context.succeed(command, CASE_TIME_MAX).map_err(Outcome::Failed)?;
        contains(&finished, &["Requests/sec"])?;
        lacks(&finished, "Socket errors")?;
        lacks(&finished, "Non-2xx")
    }),
];

/// Bytes on a connection of their own, and the statuses that answer them until the server closes.
const RAW: &[(&str, &[u8], &[u16])] = &[
    ("[RFC 9112 9.3.2] pipelined requests are answered in order", b"GET /hello HTTP/1.1\r\nHost: h\r\n\r\nGET /nowhere HTTP/1.1\r\nHost: h\r\n\r\nDELETE /hello HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", &[200, 404, 405]),
    ("[RFC 9112 2.2] an empty line before a request is passed over", b"\r\nGET /hello HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", &[200]),
    ("[RFC 9112 2.2] lines that end with LF alone are refused", b"GET /hello HTTP/1.1\nHost: h\n\nGET /hello HTTP/1.1\r\nHost: h\r\n\r\n", &[400]),
    ("[RFC 9112 2.2] a CR alone is refused", b"GET /hello HTTP/1.1\r\nHost: h\r\nX: a\rGET /hello HTTP/1.1\r\n\r\n", &[400]),
    ("[RFC 9112 2.2] spaces before the first field are refused", b"GET /hello HTTP/1.1\r\n Host: h\r\nX: y\r\n\r\n", &[400]),
    ("[RFC 9112 3] two spaces in the request line are refused", b"GET  /hello HTTP/1.1\r\nHost: h\r\n\r\n", &[400]),
    ("[RFC 9112 3] a request line without a version is refused", b"GET /hello\r\n\r\n", &[400]),
    ("[RFC 9112 3.2] a request without Host is refused", b"GET /hello HTTP/1.1\r\n\r\n", &[400]),
    ("[RFC 9112 3.2] a request with two Hosts is refused", b"GET /hello HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", &[400]),
    ("[RFC 9112 3.2] a Host that is none is refused", b"GET /hello HTTP/1.1\r\nHost: a/b\r\n\r\n", &[400]),
    ("[RFC 9112 3.2.2] the absolute form is understood", b"GET http://h/hello HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", &[200]),
    ("[RFC 9112 3.2.4] OPTIONS * is answered", b"OPTIONS * HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", &[204]),
    ("[RFC 9112 5.1] a space before the colon is refused", b"GET /hello HTTP/1.1\r\nHost: h\r\nContent-Length : 5\r\n\r\nhello", &[400]),
    ("[RFC 9112 5.2] a folded line is refused", b"GET /hello HTTP/1.1\r\nHost: h\r\nX: a\r\n b\r\n\r\n", &[400]),
    ("[RFC 9110 5.5] NUL in a value is refused", b"GET /hello HTTP/1.1\r\nHost: h\r\nX: a\0b\r\n\r\n", &[400]),
    ("[RFC 9112 6.1] both lengths together are refused, and what follows is no request", b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /hello HTTP/1.1\r\nHost: h\r\n\r\n", &[400]),
    ("[RFC 9112 6.1] Transfer-Encoding in HTTP/1.0 is refused", b"POST /echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", &[400]),
    ("[RFC 9112 6.1] a coding that is not spoken is 501", b"POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", &[501]),
    ("[RFC 9112 6.3] chunked that is not last is refused", b"POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", &[400]),
    ("[RFC 9112 6.3] chunked twice is refused", b"POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", &[400]),
    ("[RFC 9112 6.3] chunked with a tab inside is refused", b"POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", &[400]),
    ("[RFC 9112 6.3] two lengths are refused", b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", &[400]),
    ("[RFC 9112 6.3] a list of lengths is refused", b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 5, 5\r\n\r\nhello", &[400]),
    ("[RFC 9112 6.3] a negative length is refused", b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n", &[400]),
    ("[RFC 9112 6.3] a length with a sign is refused", b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: +5\r\n\r\nhello", &[400]),
    ("[RFC 9112 6.3] a length beyond all measure is refused", b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 18446744073709551621\r\n\r\nhello", &[400]),
    ("[RFC 9112 7.1] extensions of chunks are passed over", b"POST /echo HTTP/1.1\r\nHost: h\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b ;c=\"d\"\r\nhello\r\n0\r\n\r\n", &[200]),
    ("[RFC 9112 7.1] a chunk that is longer than it says is refused", b"POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhello\r\n0\r\n\r\nGET /hello HTTP/1.1\r\nHost: h\r\n\r\n", &[400]),
    ("[RFC 9112 7.1] a chunk size with a sign or prefix is refused", b"POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n", &[400]),
    ("[RFC 9112 7.1] a chunk size beyond all measure is refused", b"POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000005\r\nhello\r\n0\r\n\r\n", &[400]),
    ("[RFC 9112 7.1] a chunk that ends with LF alone is refused", b"POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\n0\n\n", &[400]),
    ("[RFC 9110 10.1.1] an expectation nobody knows is 417", b"GET /hello HTTP/1.1\r\nHost: h\r\nExpect: miracles\r\n\r\n", &[417]),
    ("[RFC 9112 2.3] HTTP/2 is 505", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &[505]),
    ("TLS on the plain port is refused at once", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", &[400]),
    ("a head that does not come to its end is 408", b"GET /hello HTTP/1.1\r\nHost: h\r\nX: ", &[408]),
];

/// The end of everything: each in a server of its own.
const OWN: &[(&str, OwnCase)] = &[
    ("a server that is told to end finishes what it has begun", |context| {
        let mut site = Site::start(context, "ending")?;
        let mut stream = connect(site.port)?;
        send(&mut stream, b"GET /slow HTTP/1.1\r\nHost: h\r\n\r\n")?;
        let mut seen = Vec::new();
        while !String::from_utf8_lossy(&seen).contains("begun") {
            let mut part = [0; 1024];
            match stream.read(&mut part) {
                Ok(count) if count > 0 => seen.extend_from_slice(&part[..count]),
                other => return Err(Outcome::Failed(format!("it does not begin: {other:?}"))),
            }
        }
        site.process.end();
        stream.read_to_end(&mut seen).map_err(|error| Outcome::Failed(error.to_string()))?;
        if String::from_utf8_lossy(&seen).ends_with("5\r\ndone\n\r\n0\r\n\r\n") {
            return Ok(());
        }
        Err(Outcome::Failed(format!("it was cut short: {}", seen.escape_ascii())))
    }),
    ("10,000 idle connections are kept, and every one still answers", |context| {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        if limit.is_some_and(|limit| limit < 10_100) {
            return Err(Outcome::Skipped("fewer than 10,100 descriptors are allowed here: ulimit -n".to_owned()));
        }
        let site = Site::start(context, "idle")?;
        let mut command = context.setting.moonwire();
        command.args([format!("{FOLDER}/idle.lua"), site.port.to_string(), "10000".to_owned()]);
        let finished = context.succeed(command, CASE_TIME_MAX).map_err(Outcome::Failed)?;
        equal(&finished, "10000 of 10000\n")
    }),
];

fn names() -> Vec<String> {
    let cases = CASES.iter().map(|(name, _)| (*name).to_owned());
    let raw = RAW.iter().map(|(name, ..)| raw_name(name));
    cases.chain(raw).chain(OWN.iter().map(|(name, _)| (*name).to_owned())).collect()
}

fn raw_name(name: &str) -> String {
    format!("raw: {name}")
}

fn run(context: &mut Context<'_>) -> Result<(), String> {
    let site = match Site::start(context, "server") {
        Ok(site) => site,
        Err(Outcome::Skipped(reason)) => {
            context.skip(&names(), &reason);
            return Ok(());
        }
        Err(outcome) => return Err(format!("{outcome:?}")),
    };
    for (name, case) in CASES {
        context.case(name, |context| outcome(case(context, &site)));
    }
    for (name, bytes, statuses) in RAW {
        context.case(&raw_name(name), |_| outcome(raw(&site, bytes, statuses)));
    }
    drop(site);
    for (name, case) in OWN {
        context.case(name, |context| outcome(case(context)));
    }
    Ok(())
}

fn outcome(result: Result<(), Outcome>) -> Outcome {
    result.map_or_else(|outcome| outcome, |()| Outcome::Passed)
}

impl Site {
    /// Starts a server, with a folder and certificates of its own.
    fn start(context: &mut Context<'_>, name: &str) -> Result<Self, Outcome> {
        context.need(SUITE.needs)?;
        let folder = context.setting.temporary.join("http_server").join(name);
        let www = folder.join("www");
        make_www(&www).map_err(|error| Outcome::Failed(format!("{}: {error}", www.display())))?;
        let certificates = Certificates::make(&folder.join("certificates")).map_err(Outcome::Failed)?;
        let mut command = context.setting.moonwire();
        command.arg(format!("{FOLDER}/server.lua")).arg(&www);
        command.arg(certificates.certificate("server")).arg(certificates.key("server"));
        let mut process = Process::start(command).map_err(Outcome::Failed)?;
        let line = process.wait_for_line(CASE_TIME_MAX, |line| line.starts_with("ready ")).map_err(Outcome::Failed)?;
        let mut ports = line.split(' ').skip(1).filter_map(|port| port.parse().ok());
        let (Some(port), Some(tls_port)) = (ports.next(), ports.next()) else {
            return Err(Outcome::Failed(format!("the server says `{line}`")));
        };
        let authority = certificates.certificate("ca").display().to_string();
        Ok(Self { process, port, tls_port, authority, www: www.display().to_string() })
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }
}

/// What the server serves, and what it must not.
fn make_www(www: &std::path::Path) -> std::io::Result<()> {
    fs::create_dir_all(www.join("sub"))?;
    fs::write(www.join("page.html"), "<!doctype html>\n<p>page</p>\n<!-- l>\n")?;
    fs::write(www.join("sub/index.html"), "index of sub\n")?;
    fs::write(www.join(".hidden"), "hidden\n")?;
    fs::write(www.join("../secret"), "secret\n")?;
    std::os::unix::fs::symlink("../secret", www.join("link"))?;
    let large: Vec<u8> = (0..LARGE).map(|at| (at * 31 + at / 4099) as u8).collect();
    fs::write(www.join("large.bin"), large)
}

fn curl(context: &Context<'_>, arguments: &[&str]) -> Result<Finished, Outcome> {
    let mut command = context.setting.command(CURL.program);
    command.args(["-s", "-S", "--noproxy", "*"]).args(arguments);
    context.succeed(command, CASE_TIME_MAX).map_err(Outcome::Failed)
}

fn python(context: &Context<'_>, site: &Site, case: &str) -> Result<(), Outcome> {
    script(context, site, "http_client.py", case)
}

fn strict(context: &Context<'_>, site: &Site, case: &str) -> Result<(), Outcome> {
    script(context, site, "strict_client.py", case)
}

fn script(context: &Context<'_>, site: &Site, file: &str, case: &str) -> Result<(), Outcome> {
    let mut command: Command = context.setting.command(PYTHON.program);
    command.arg("-B").arg(format!("{FOLDER}/{file}")).arg(case);
    command.args([&site.port.to_string(), &site.tls_port.to_string(), &site.authority, &site.www]);
    context.succeed(command, CASE_TIME_MAX).map(|_| ()).map_err(Outcome::Failed)
}

/// The output is read line by line, so that a last line without its end has one.
fn equal(finished: &Finished, wanted: &str) -> Result<(), Outcome> {
    if finished.stdout.trim_end_matches('\n') == wanted.trim_end_matches('\n') {
        return Ok(());
    }
    Err(Outcome::Failed(format!("expected {wanted:?}\n{}", finished.summary())))
}

fn contains(finished: &Finished, wanted: &[&str]) -> Result<(), Outcome> {
    let said = format!("{}{}", finished.stdout, finished.stderr);
    match wanted.iter().find(|part| !said.contains(**part)) {
        None => Ok(()),
        Some(part) => Err(Outcome::Failed(format!("{part:?} is missing\n{}", finished.summary()))),
    }
}

fn lacks(finished: &Finished, unwanted: &str) -> Result<(), Outcome> {
    if finished.stdout.contains(unwanted) {
        return Err(Outcome::Failed(format!("{unwanted:?} is there\n{}", finished.summary())));
    }
    Ok(())
}

fn connect(port: u16) -> Result<TcpStream, Outcome> {
    let stream = TcpStream::connect(("127.0.0.1", port)).and_then(|stream| {
        stream.set_read_timeout(Some(ANSWER_TIME_MAX))?;
        Ok(stream)
    });
    stream.map_err(|error| Outcome::Failed(format!("connect: {error}")))
}

fn send(stream: &mut TcpStream, bytes: &[u8]) -> Result<(), Outcome> {
    stream.write_all(bytes).map_err(|error| Outcome::Failed(format!("send: {error}")))
}

/// Sends bytes, and compares the statuses of what comes back until the server closes.
fn raw(site: &Site, bytes: &[u8], wanted: &[u16]) -> Result<(), Outcome> {
    let began = Instant::now();
    let mut stream = connect(site.port)?;
    send(&mut stream, bytes)?;
    let mut answer = Vec::new();
    let ended = stream.read_to_end(&mut answer);
    let seen = statuses(&String::from_utf8_lossy(&answer));
    if seen == wanted && ended.is_ok() {
        return Ok(());
    }
    let text = answer.escape_ascii().to_string();
    Err(Outcome::Failed(format!("{seen:?}, not {wanted:?}, {ended:?} after {:?}\n{text}", began.elapsed())))
}

/// The statuses of responses whose bodies hold no status line.
fn statuses(text: &str) -> Vec<u16> {
    text.match_indices("HTTP/1.1 ")
        .filter_map(|(at, found)| text.get(at + found.len()..)?.get(..3)?.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_found_in_their_order() {
        let text = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhiHTTP/1.1 404 Not Found\r\n\r\n";
        assert_eq!(statuses(text), [200, 404]);
        assert_eq!(statuses("HTTP/1.1 20"), [] as [u16; 0]);
    }

    #[test]
    fn no_two_cases_have_the_same_name() {
        let names = names();
        let different: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!(different.len(), names.len());
    }
}
