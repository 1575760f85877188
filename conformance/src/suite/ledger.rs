//! What peers (`mqtt_restart/peer.lua`) say that was promised to them and what came, and whether promises were kept.

use std::collections::{BTreeMap, BTreeSet};

/// What a broker that was struck is forgiven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lapse {
    /// Nothing.
    None,
    /// That messages come out of order.
    Order,
    /// That it goes on from an earlier moment.
    Memory,
}

/// A message: topic and number.
pub type Message = (String, u32);

/// What peers have said.
#[derive(Debug, Default)]
pub struct Ledger {
    /// What a client has taken from its script.
    pub accepted: BTreeSet<Message>,
    /// When it was acknowledged to the end: on which connection of its publisher.
    pub acknowledged: BTreeMap<Message, u32>,
    /// PUBREC had come when a connection was lost.
    pub owned: BTreeSet<Message>,
    /// How often a broker knew nothing of a message whose PUBREC it had sent.
    pub forgotten: u32,
    /// Identifiers under which the broker sent another message of QoS 2, not marked as sent again: as many were not
    /// new to whoever keeps the promise of QoS 2 [MQTT-4.3.3-10].
    pub reused: u32,
    /// In the order in which they came, with the connection of the subscriber.
    pub received: BTreeMap<String, Vec<(u32, u32)>>,
    /// The topics whose last message has come.
    pub ended: BTreeSet<String>,
    /// The last connection of each peer.
    pub connections: BTreeMap<String, u32>,
    /// Where each peer was connected, one connection after the other.
    pub ports: BTreeMap<String, Vec<u32>>,
    /// Peers that have subscribed.
    pub subscribed: u32,
    /// Peers that have published everything.
    pub published: u32,
    /// What must not happen.
    pub failed: Vec<String>,
}

impl Ledger {
    /// Takes a line of `peer.lua`.
    pub fn take(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |index: usize| words.get(index).and_then(|word| word.parse::<u32>().ok());
        let message = || Some(((*words.get(1)?).to_owned(), number(2)?));
        match (words[0], message(), number(3)) {
            ("subscribed", ..) => self.subscribed += 1,
            ("published", ..) => self.published += 1,
            ("connected", Some((name, connection)), port) => {
                self.ports.entry(name.clone()).or_default().extend(port);
                self.connections.insert(name, connection);
            }
            ("accepted", Some(message), _) => drop(self.accepted.insert(message)),
            ("acknowledged", Some(message), Some(connection)) => {
                self.acknowledged.insert(message, connection);
            }
            ("owned", Some(message), _) => drop(self.owned.insert(message)),
            ("forgotten", Some(message), _) => {
                self.owned.insert(message);
                self.forgotten += 1;
            }
            ("received", Some((topic, number)), Some(connection)) => {
                self.received.entry(topic).or_default().push((number, connection));
            }
            ("received", None, _) if words.get(2) == Some(&"end") => {
                self.ended.insert(words[1].to_owned());
            }
            _ => self.failed.push(line.to_owned()),
        }
    }

    /// Messages that were received, each as often as it came.
    pub fn received_count(&self) -> usize {
        self.received.values().map(Vec::len).sum()
    }

    /// Whether all that was accepted has come.
    pub fn is_complete(&self) -> bool {
        self.accepted.is_subset(&self.came())
    }

    /// Whether all that was accepted from this peer has come, and its last message.
    pub fn is_complete_of(&self, publisher: &str) -> bool {
        let came = self.came();
        let of = |topic: &str| publisher_of(topic) == publisher;
        self.accepted
            .iter()
            .filter(|(topic, _)| of(topic))
            .all(|message| came.contains(message) && self.ended.contains(&message.0))
    }

    /// Whether a peer published something, and all of it was acknowledged by this connection of its.
    pub fn was_done_by(&self, publisher: &str, connection: usize) -> bool {
        let own = self.acknowledged.iter().filter(|((topic, _), _)| publisher_of(topic) == publisher);
        let connections: Vec<u32> = own.map(|(_, connection)| *connection).collect();
        !connections.is_empty() && connections.iter().all(|other| *other as usize <= connection)
    }

    /// What was received, each message once.
    fn came(&self) -> BTreeSet<Message> {
        let of_topic = |(topic, came): (&String, &Vec<(u32, u32)>)| {
            came.iter().map(|(number, _)| (topic.clone(), *number)).collect::<Vec<_>>()
        };
        self.received.iter().flat_map(of_topic).collect()
    }

    /// Compares what was promised with what came, and answers in words. A broker with a lapse of [`Lapse::Memory`] goes
    /// on from an earlier moment: it may have forgotten what it acknowledged on a connection that was not its
    /// publisher's last, deliver again on another connection what it had delivered, and mistake its own identifiers.
    /// Otherwise nothing may be missing, nothing come twice at QoS 2, and without any lapse nothing out of order.
    ///
    /// # Errors
    /// The first of the promises that were broken.
    pub fn judge(&self, lapse: Lapse) -> Result<String, String> {
        let killed = lapse == Lapse::Memory;
        let mut wrong = self.failed.clone();
        let (mut forgotten, mut again, mut hidden, mut disordered) = (0, 0, 0, 0);
        let came = self.came();
        for message in self.accepted.difference(&came) {
            let acknowledged = self.acknowledged.get(message).copied();
            let earlier = acknowledged
                .is_some_and(|connection| Some(&connection) < self.connections.get(publisher_of(&message.0)));
            if killed && (earlier || self.owned.contains(message)) {
                forgotten += 1;
            } else if killed && message.0.contains("/qos2/") && hidden < self.reused {
                hidden += 1;
            } else {
                wrong.push(format!("lost: {message:?}, acknowledged on connection {acknowledged:?}"));
            }
        }
        for (topic, came) in &self.received {
            let mut first: BTreeMap<u32, u32> = BTreeMap::new();
            let mut highest = 0;
            for &(number, connection) in came {
                if let Some(&earlier) = first.get(&number) {
                    let other_connection = earlier < connection;
                    if topic.contains("/qos2/") && !(killed && other_connection) {
                        wrong.push(format!("twice: {topic} {number}, on connections {earlier} and {connection}"));
                    }
                    again += u32::from(topic.contains("/qos2/"));
                    continue;
                }
                if number < highest && lapse != Lapse::None {
                    disordered += 1;
                } else if number < highest {
                    wrong.push(format!("out of order: {topic} {number} after {highest}"));
                }
                highest = highest.max(number);
                first.insert(number, connection);
            }
        }
        let count = wrong.len();
        if count > 0 {
            wrong.truncate(20);
            return Err(format!("{count} broken promises, the first of them:\n{}", wrong.join("\n")));
        }
        let of = |qos: &str| self.accepted.iter().filter(|(topic, _)| topic.contains(qos)).count();
        let mut said = format!("{} of QoS 1 and {} of QoS 2 accepted", of("/qos1/"), of("/qos2/"));
        let repeated: usize =
            self.received.iter().filter(|(topic, _)| topic.contains("/qos1/")).map(|(_, c)| c.len()).sum();
        said.push_str(&format!(", {} distinct received, {repeated} times QoS 1", came.len()));
        if lapse == Lapse::Order {
            said.push_str(&format!(", {disordered} out of order"));
        }
        if killed {
            said.push_str(&format!(
                "; the broker forgot {forgotten} after acknowledging them (it said so of {}), hid {hidden} behind \
                 identifiers it used twice ({} of them), delivered {again} of QoS 2 again and {disordered} out of order",
                self.forgotten, self.reused
            ));
        }
        Ok(said)
    }
}

/// The first level of its topics.
pub fn publisher_of(topic: &str) -> &str {
    topic.split('/').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(lines: &[&str]) -> Ledger {
        let mut ledger = Ledger::default();
        lines.iter().for_each(|line| ledger.take(line));
        ledger
    }

    #[test]
    fn what_was_accepted_and_came_in_order_is_well() {
        let lines = [
            "accepted a/qos1/1 1",
            "accepted a/qos1/1 2",
            "accepted a/qos2/1 1",
            "acknowledged a/qos1/1 1 1",
            "received a/qos1/1 1 1",
            "received a/qos1/1 2 1",
            "received a/qos1/1 1 2",
            "received a/qos1/1 2 2",
            "received a/qos2/1 1 1",
            "received a/qos2/1 2 1",
            "received a/qos2/1 end 1",
            "published",
            "subscribed",
        ];
        let ledger = ledger(&lines);
        assert!(ledger.judge(Lapse::None).is_ok(), "QoS 1 comes twice, and one came that was not said to be accepted");
        assert_eq!((ledger.received_count(), ledger.published, ledger.subscribed, ledger.ended.len()), (6, 1, 1, 1));
    }

    #[test]
    fn a_loss_is_excused_only_where_a_killed_broker_had_acknowledged() {
        for (line, excused) in [
            ("acknowledged a/qos1/1 1 1", true),
            ("acknowledged a/qos1/1 1 2", false),
            ("owned a/qos1/1 1 1", true),
            ("forgotten a/qos1/1 1", true),
            ("subscribed", false),
        ] {
            let ledger = ledger(&["connected a 2", "accepted a/qos1/1 1", line]);
            assert!(ledger.judge(Lapse::None).unwrap_err().contains("lost"), "{line}");
            assert_eq!(ledger.judge(Lapse::Memory).is_ok(), excused, "{line}");
        }
    }

    #[test]
    fn qos_2_comes_twice_only_where_a_killed_broker_forgot_and_only_on_another_connection() {
        let twice = |second| ledger(&["accepted a/qos2/1 1", "received a/qos2/1 1 1", second]);
        let other = twice("received a/qos2/1 1 2");
        assert!(other.judge(Lapse::None).unwrap_err().contains("twice"));
        assert!(other.judge(Lapse::Memory).unwrap().contains("1 of QoS 2 again"));
        assert!(twice("received a/qos2/1 1 1").judge(Lapse::Memory).is_err());
    }

    #[test]
    fn a_peer_is_done_with_all_its_messages_and_the_last_ones() {
        let mut ledger = ledger(&["accepted a/qos1/1 1", "accepted b/qos1/1 1", "received a/qos1/1 1 1"]);
        assert!(!ledger.is_complete_of("a") && !ledger.is_complete());
        ledger.take("received a/qos1/1 end 1");
        assert!(ledger.is_complete_of("a") && !ledger.is_complete_of("b") && !ledger.is_complete());
        ledger.take("received b/qos1/1 1 1");
        assert!(ledger.is_complete() && !ledger.is_complete_of("b"));
    }

    #[test]
    fn a_publisher_is_done_once_everything_is_acknowledged() {
        let ledger = ledger(&["acknowledged a/qos1/1 1 1", "acknowledged a/qos1/1 2 2", "acknowledged b/qos1/1 1 1"]);
        assert!(!ledger.was_done_by("a", 1) && ledger.was_done_by("a", 2) && ledger.was_done_by("b", 1));
        assert!(!ledger.was_done_by("w", 9), "who publishes nothing is never done");
    }

    #[test]
    fn it_is_known_where_a_peer_was_connected() {
        let ledger = ledger(&["connected a 1 1883", "connected b 1 1883", "connected a 2 1884", "connected a 3 1883"]);
        assert_eq!(ledger.ports["a"], [1883, 1884, 1883]);
        assert_eq!((ledger.connections["a"], ledger.ports["b"].len()), (3, 1));
    }

    #[test]
    fn order_is_of_each_topic_and_of_what_comes_for_the_first_time() {
        let mixed = ledger(&[
            "received a/qos1/1 2 1",
            "received a/qos1/2 1 1",
            "received a/qos1/1 3 1",
            "received a/qos1/1 2 2",
        ]);
        assert!(mixed.judge(Lapse::None).is_ok());
        let wrong = ledger(&["received a/qos1/1 2 1", "received a/qos1/1 1 1"]);
        assert!(wrong.judge(Lapse::None).unwrap_err().contains("out of order"));
        for lapse in [Lapse::Order, Lapse::Memory] {
            assert!(wrong.judge(lapse).unwrap().contains("1 out of order"), "{lapse:?}");
        }
        assert!(ledger(&["accepted a/qos1/1 1"]).judge(Lapse::Order).unwrap_err().contains("lost"));
    }

    #[test]
    fn what_a_peer_says_that_nobody_understands_is_a_failure() {
        assert!(ledger(&["failed a/qos1/1 1 limit"]).judge(Lapse::None).is_err());
        assert!(ledger(&["moonwire: error"]).judge(Lapse::Memory).is_err());
    }
}
