//! How clients reach each broker of the suite: by which transports, as whom, and what for.

use crate::certificates::Certificates;
use crate::server::{Kind, Server, ejabberd, mosquitto, nats, rabbitmq};

/// A broker as its clients see it.
#[derive(Debug)]
pub struct Broker {
    /// Its programs.
    pub kind: &'static Kind,
    /// The transports that files run for; the others, at most in the cases that choose their listener themselves.
    pub transports: &'static [&'static str],
    /// The user that it knows by [`mosquitto::PASSWORD`].
    pub user: &'static str,
    /// Whether it lets in clients without a user name by the listener `plain`. Else all come as `user`, and its
    /// `password` listener is the same without.
    pub anonymous: bool,
    /// The path of its WebSocket listeners.
    pub path: &'static str,
}

/// Every broker, in the order in which they run.
pub const BROKERS: [Broker; 4] = [
    Broker {
        kind: &mosquitto::KIND,
        transports: &["tcp", "tls", "ws", "wss"],
        user: mosquitto::USER,
        anonymous: true,
        path: "",
    },
    Broker { kind: &rabbitmq::KIND, transports: &["tcp", "ws"], user: mosquitto::USER, anonymous: false, path: "/ws" },
    Broker { kind: &nats::KIND, transports: &["tcp", "ws"], user: mosquitto::USER, anonymous: false, path: "/mqtt" },
    Broker {
        kind: &ejabberd::KIND,
        transports: &["tcp", "ws"],
        user: "moonwire@localhost",
        anonymous: false,
        path: "/mqtt",
    },
];

/// Which listener is which variable, and how it is reached.
const VARIABLES: [(&str, &str, &str, &str); 9] = [
    ("MOONWIRE_MQTT_TCP_URL", "mqtt", "127.0.0.1", "plain"),
    ("MOONWIRE_MQTT_TLS_URL", "mqtts", "localhost", "tls"),
    ("MOONWIRE_MQTT_WS_URL", "ws", "127.0.0.1", "websocket"),
    ("MOONWIRE_MQTT_WSS_URL", "wss", "localhost", "websocket_tls"),
    ("MOONWIRE_MQTT_PASSWORD_URL", "mqtt", "127.0.0.1", PASSWORD),
    ("MOONWIRE_MQTT_CLIENT_CERTIFICATE_URL", "mqtts", "localhost", "client_certificate"),
    ("MOONWIRE_MQTT_EXPIRED_URL", "mqtts", "localhost", "expired"),
    ("MOONWIRE_MQTT_WRONG_NAME_URL", "mqtts", "localhost", "wrong_name"),
    ("MOONWIRE_MQTT_LIMITS_URL", "mqtt", "127.0.0.1", "limits"),
];

/// The listener that is for those who say who they are.
const PASSWORD: &str = "password";

impl Broker {
    /// The one whose name this is.
    pub fn named(name: &str) -> Option<&'static Self> {
        BROKERS.iter().find(|broker| broker.kind.name == name)
    }

    /// The addresses of its listeners, by the variables that the Lua files read.
    pub fn addresses(&self, port: impl Fn(&str) -> Option<u16>) -> Vec<(&'static str, String)> {
        let mut addresses = Vec::new();
        for (variable, scheme, host, listener) in VARIABLES {
            let asks = listener == PASSWORD;
            let Some(port) = port(if asks && !self.anonymous { "plain" } else { listener }) else { continue };
            let user = if self.anonymous || asks { String::new() } else { format!("{}@", self.credentials()) };
            let path = if scheme.starts_with("ws") { self.path } else { "" };
            addresses.push((variable, format!("{scheme}://{user}{host}:{port}{path}")));
        }
        addresses
    }

    /// Its user and the password, as an address has them.
    fn credentials(&self) -> String {
        let escaped = |text: &str| text.replace('@', "%40").replace(' ', "%20");
        format!("{}:{}", escaped(self.user), escaped(mosquitto::PASSWORD))
    }

    /// What the Lua files need to know of a broker that runs.
    pub fn environment(&self, server: &Server, certificates: &Certificates) -> Vec<(&'static str, String)> {
        let path = |path: std::path::PathBuf| path.display().to_string();
        let mut environment = self.addresses(|listener| server.port(listener));
        environment.extend([
            ("MOONWIRE_MQTT_SERVER", self.kind.name.to_owned()),
            ("MOONWIRE_MQTT_USER", self.user.to_owned()),
            ("MOONWIRE_MQTT_PASSWORD", mosquitto::PASSWORD.to_owned()),
            ("MOONWIRE_MQTT_LOG", path(server.log())),
            ("MOONWIRE_MQTT_CA", path(certificates.certificate("ca"))),
            ("MOONWIRE_MQTT_OTHER_CA", path(certificates.certificate("other_ca"))),
            ("MOONWIRE_MQTT_CERTIFICATE", path(certificates.certificate("client"))),
            ("MOONWIRE_MQTT_KEY", path(certificates.key("client"))),
            ("MOONWIRE_MQTT_OTHER_CERTIFICATE", path(certificates.certificate("other_client"))),
            ("MOONWIRE_MQTT_OTHER_KEY", path(certificates.key("other_client"))),
        ]);
        environment
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::KINDS;

    #[test]
    fn every_kind_of_broker_is_one_of_the_suite() {
        assert!(KINDS.iter().all(|kind| Broker::named(kind.name).is_some()));
        assert_eq!(KINDS.len(), BROKERS.len());
    }

    #[test]
    fn every_listener_of_mosquitto_has_a_variable() {
        for listener in mosquitto::KIND.listeners {
            assert!(VARIABLES.iter().any(|(_, _, _, known)| known == listener), "no script can reach {listener}");
        }
    }

    #[test]
    fn who_must_say_who_he_is_does_so_but_not_where_that_is_the_question() {
        let of = |name: &str, variable: &str| {
            let addresses = Broker::named(name).unwrap().addresses(|listener| {
                ["plain", "websocket"].iter().position(|known| *known == listener).map(|port| port as u16 + 1)
            });
            addresses.into_iter().find(|(known, _)| *known == variable).map(|(_, address)| address)
        };
        let user = "moonwire%40localhost:correct%20horse%20battery%20staple";
        assert_eq!(of("ejabberd", "MOONWIRE_MQTT_TCP_URL").unwrap(), format!("mqtt://{user}@127.0.0.1:1"));
        assert_eq!(of("ejabberd", "MOONWIRE_MQTT_PASSWORD_URL").unwrap(), "mqtt://127.0.0.1:1");
        assert_eq!(of("ejabberd", "MOONWIRE_MQTT_WS_URL").unwrap(), format!("ws://{user}@127.0.0.1:2/mqtt"));
        assert_eq!(of("ejabberd", "MOONWIRE_MQTT_LIMITS_URL"), None);
        assert_eq!(of("mosquitto", "MOONWIRE_MQTT_TCP_URL").unwrap(), "mqtt://127.0.0.1:1");
        assert_eq!(of("mosquitto", "MOONWIRE_MQTT_PASSWORD_URL"), None);
    }
}
