//! What the HTTP client is proved against: nginx, Apache httpd, proxies, and servers of our own in Python that are odd,
//! strict or about to die.

use std::fs;
use std::process::Command;
use std::time::Duration;

use super::{Kind, again_and_again, listed_ports};
use crate::place::{FromImage, Place};
use crate::process;
use crate::tools::Tool;

const NGINX: Tool = Tool::of_package("nginx", "nginx-light");
const APACHE: Tool = Tool::of_package("apache2", "apache2");
const PROXY: Tool = Tool::of_package("tinyproxy", "tinyproxy");
const SOCKS: Tool = Tool::of_package("microsocks", "microsocks");
const OPENSSL: Tool = Tool::of_package("openssl", "openssl");
const PYTHON: Tool = Tool::of_package("/usr/bin/python3", "python3");
/// The package brings no program: its first file stands for it.
const H11: Tool = Tool::of_package("/usr/lib/python3/dist-packages/h11/__init__.py", "python3-h11");

/// The user that servers and proxies with a login know.
pub const USER: &str = "moonwire";
/// That user's password.
pub const PASSWORD: &str = "correct-horse";

/// All of them, as one.
pub const KIND: Kind = Kind {
    name: "web",
    needs: &[NGINX, APACHE, PROXY, SOCKS, OPENSSL, PYTHON, H11],
    images: &[
        FromImage { service: "nginx", programs: &[("nginx", "nginx")], health: Some("nginx") },
        FromImage { service: "apache", programs: &[("apache2", "httpd")], health: Some("apache") },
    ],
    version,
    listeners: &[
        "nginx",
        "tls",
        "mutual",
        "expired",
        "wrong_name",
        "self_signed",
        "chain",
        "tls11",
        "apache",
        "proxy",
        "socks",
        "socks_password",
        "odd",
        "strict",
        "large",
    ],
    prepare,
    commands,
    port_taken: "already in use",
};

/// nginx's: "nginx version: nginx/1.22.1".
fn version(place: &Place) -> Result<String, String> {
    let mut command = place.command(NGINX);
    command.arg("-v");
    let finished = process::run(command, Duration::from_secs(30), |_, _| {})?;
    let said = format!("{}{}", finished.stdout, finished.stderr);
    let version = said.split("nginx/").nth(1).and_then(|rest| rest.split_whitespace().next());
    version.map(str::to_owned).ok_or_else(|| format!("nginx does not say its version: {}", finished.summary()))
}

/// Makes a self-signed certificate, and one of an authority below an authority whose chain is sent in the wrong order.
const CERTIFICATES: &str = r#"
set -e
alt='subjectAltName=DNS:localhost,IP:127.0.0.1'
new() { openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 "$@" 2>/dev/null; }
new -x509 -keyout self.key -out self.pem -subj /CN=localhost -addext "$alt" -addext basicConstraints=critical,CA:FALSE
new -x509 -keyout root.key -out root.pem -subj '/CN=chain root'
new -keyout middle.key -out middle.csr -subj '/CN=chain middle'
printf 'basicConstraints=critical,CA:TRUE\nkeyUsage=keyCertSign' > middle.ext
openssl x509 -req -in middle.csr -CA root.pem -CAkey root.key -CAcreateserial -days 2 -extfile middle.ext -out middle.pem 2>/dev/null
new -keyout leaf.key -out leaf.csr -subj /CN=localhost
printf '%s\n' "$alt" > leaf.ext
openssl x509 -req -in leaf.csr -CA middle.pem -CAkey middle.key -CAcreateserial -days 2 -extfile leaf.ext -out leaf.pem 2>/dev/null
cat leaf.pem root.pem middle.pem > chain.pem
printf 'moonwire:%s\n' "$(openssl passwd -apr1 correct-horse)" > passwords
printf 'moonwire:digest:%s\n' "$(printf 'moonwire:digest:correct-horse' | openssl md5 -r | cut -d' ' -f1)" > digest
"#;

fn prepare(place: &Place) -> Result<(), String> {
    let folder = place.folder();
    let wrong = |error: std::io::Error| format!("web: {}: {error}", folder.display());
    let www = folder.join("www");
    fs::create_dir_all(&www).map_err(wrong)?;
    fs::create_dir_all(folder.join("state")).map_err(wrong)?;
    let page = "<p>a page that compresses well</p>\n".repeat(5000);
    fs::write(www.join("page.html"), page).map_err(wrong)?;
    fs::write(www.join("small.txt"), "small\n").map_err(wrong)?;
    let mut command = Command::new("sh");
    command.args(["-c", CERTIFICATES]).current_dir(folder);
    let finished = process::run(command, Duration::from_secs(60), |_, _| {})?;
    if finished.succeeded() { Ok(()) } else { Err(format!("openssl: {}", finished.summary())) }
}

fn commands(place: &Place) -> Vec<Command> {
    let folder = place.folder();
    let ports = listed_ports(place);
    let port = |name: &str| ports.get(name).map_or("0", String::as_str);
    let python = |name: &str| {
        let mut command = again_and_again(PYTHON.program);
        command.arg(folder.join("servers.py")).args([name, port(name)]).arg(folder.join("state"));
        command
    };
    let mut nginx = place.command(NGINX);
    nginx.arg("-p").arg(folder).arg("-c").arg(folder.join("nginx.conf"));
    let mut apache = place.command(APACHE);
    apache.arg("-D").arg("FOREGROUND").arg("-f").arg(folder.join("apache.conf"));
    let mut proxy = place.command(PROXY);
    proxy.arg("-d").arg("-c").arg(folder.join("tinyproxy.conf"));
    let mut socks = place.command(SOCKS);
    socks.args(["-i", "127.0.0.1", "-p", port("socks")]);
    let mut socks_password = place.command(SOCKS);
    socks_password.args(["-i", "127.0.0.1", "-p", port("socks_password"), "-u", USER, "-P", PASSWORD]);
    let mut tls11 = place.command(OPENSSL);
    tls11.args(["s_server", "-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0", "-www", "-quiet", "-accept"]);
    tls11.arg(format!("127.0.0.1:{}", port("tls11")));
    tls11.arg("-cert").arg(folder.join("self.pem")).arg("-key").arg(folder.join("self.key"));
    vec![nginx, apache, proxy, socks, socks_password, tls11, python("odd"), python("strict"), python("large")]
}
