//! Random packets that are right: any seed makes its own, always the same.

use moonwire_runtime::Buffer;

use crate::mqtt::{
    PACKET_MAX, Packet, Version, encode,
    packet::{
        Ack, Acks, Connack, Connect, Filters, PacketType, Publish, Reason, Subscribe, Subscription, Subscriptions,
        Unsubscribe, Will,
    },
    property::{Form, Home, PROPERTIES, Property, PropertyList, Value},
    reason,
    wire::Writer,
};

/// The seed of a random test: `MOONWIRE_SEED`, or always the same.
pub fn seed() -> u64 {
    let seed = std::env::var("MOONWIRE_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(2_611_221);
    println!("MOONWIRE_SEED={seed}");
    seed
}

/// Random numbers (xorshift64*).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        ((self.next() >> 33) as usize) % n
    }

    pub fn flag(&mut self) -> bool {
        self.next() >> 63 == 1
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    pub fn bytes(&mut self, most: usize) -> Vec<u8> {
        (0..self.below(most + 1)).map(|_| self.next() as u8).collect()
    }

    /// Text without wildcards, slashes and U+0000.
    pub fn text(&mut self, most: usize) -> String {
        (0..self.below(most + 1)).map(|_| self.pick(&['a', 'z', '0', ' ', '$', 'ä', '\u{FEFF}', '\u{2A6D4}'])).collect()
    }

    pub fn topic(&mut self) -> String {
        format!("t/{}/{}", self.text(8), self.text(8))
    }

    pub fn filter(&mut self) -> String {
        let level = self.text(4);
        self.pick(&["#", "+", "a/+/b", "a/#", "$SYS/#", "/", "+/+"]).replace('a', &format!("x{level}"))
    }

    pub fn id(&mut self) -> u16 {
        (1 + self.below(65_535)) as u16
    }
}

/// What a sample may contain.
#[derive(Clone, Copy)]
pub struct Shape {
    /// How many of the allowed properties, of ten.
    pub properties: usize,
    /// How often those repeat that may.
    pub repeats: usize,
}

fn value(random: &mut Random, property: &Property, put: &mut dyn FnMut(Value<'_>)) {
    let number = |number: u64| Value::Number(number as u32);
    match property.form {
        Form::Flag | Form::Bit => put(number(random.next() >> 63)),
        Form::Two => put(number(random.next() >> 48)),
        Form::TwoNotZero => put(number(random.id().into())),
        Form::Four => put(number(random.next() >> 32)),
        Form::FourNotZero => put(number(random.next() >> 32 | 1)),
        Form::VarintNotZero => {
            let bits = random.pick(&[36, 43, 50, 57]);
            put(number(random.next() >> bits | 1));
        }
        Form::Text => put(Value::Text(&random.text(12))),
        Form::Topic => put(Value::Text(&random.topic())),
        Form::Bytes => put(Value::Bytes(&random.bytes(12))),
        Form::Pair => put(Value::Pair(&random.text(6), &random.text(6))),
    }
}

fn properties(random: &mut Random, shape: Shape, version: Version, home: Home) -> PropertyList {
    let mut list = PropertyList::new();
    if version == Version::V311 {
        return list;
    }
    let mut has_method = false;
    for property in PROPERTIES.iter().filter(|property| property.allowed_in(home)) {
        if random.below(10) >= shape.properties || (property.name == "authentication_data" && !has_method) {
            continue;
        }
        has_method |= property.name == "authentication_method";
        let times = if property.repeats_in(home) { 1 + random.below(shape.repeats) } else { 1 };
        for _ in 0..times {
            value(random, property, &mut |value| list.push(property, value).unwrap());
        }
    }
    list
}

fn code(random: &mut Random, kind: PacketType, version: Version) -> u8 {
    let codes: Vec<u8> = (0..=255).filter(|&code| reason::allowed(kind, version, code)).collect();
    random.pick(&codes)
}

/// A random packet of `kind`, as bytes.
pub fn sample(random: &mut Random, kind: PacketType, version: Version, shape: Shape) -> Vec<u8> {
    use PacketType as P;
    let list = properties(random, shape, version, Home::Packet(kind));
    let properties_view = list.view();
    let mut out = Buffer::new();
    let mut put = |packet: Packet<'_>| encode(&mut out, &packet, version, PACKET_MAX).unwrap();
    match kind {
        P::Connect => {
            let (client_id, name, password) = (random.text(20), random.text(8), random.bytes(8));
            let (topic, payload) = (random.topic(), random.bytes(20));
            let will_list = properties(random, shape, version, Home::Will);
            let will = Will {
                topic: &topic,
                payload: &payload,
                qos: random.below(3) as u8,
                retain: random.flag(),
                properties: will_list.view(),
            };
            let username = random.flag().then_some(&*name);
            let may_have_password = version == Version::V5 || username.is_some();
            put(Packet::Connect(Connect {
                version,
                clean_start: random.flag(),
                keep_alive: random.next() as u16,
                properties: properties_view,
                client_id: &client_id,
                will: random.flag().then_some(will),
                username,
                password: (may_have_password && random.flag()).then_some(&*password),
            }));
        }
        P::Connack => {
            let reason_code = code(random, kind, version);
            let session_present = reason_code == 0 && random.flag();
            put(Packet::Connack(Connack { session_present, reason_code, properties: properties_view }));
        }
        P::Publish => {
            let qos = random.below(3) as u8;
            put(Packet::Publish(Publish {
                topic: &random.topic(),
                payload: &random.bytes(300),
                qos,
                retain: random.flag(),
                dup: qos > 0 && random.flag(),
                packet_id: if qos > 0 { random.id() } else { 0 },
                properties: properties_view,
            }));
        }
        P::Puback | P::Pubrec | P::Pubrel | P::Pubcomp => {
            let reason_code = code(random, kind, version);
            put(Packet::Ack(kind, Ack { packet_id: random.id(), reason_code, properties: properties_view }));
        }
        P::Subscribe => {
            let mut wire = Vec::new();
            for _ in 0..=random.below(4) {
                let v5 = version == Version::V5;
                let subscription = Subscription {
                    filter: &random.filter(),
                    qos: random.below(3) as u8,
                    no_local: v5 && random.flag(),
                    retain_as_published: v5 && random.flag(),
                    retain_handling: if v5 { random.below(3) as u8 } else { 0 },
                };
                let mut writer = Writer::new(&mut wire);
                writer.text(subscription.filter, "filter").unwrap();
                writer.u8(subscription.options());
            }
            let subscriptions = Subscriptions::unchecked(&wire);
            put(Packet::Subscribe(Subscribe { packet_id: random.id(), properties: properties_view, subscriptions }));
        }
        P::Unsubscribe => {
            let mut wire = Vec::new();
            for _ in 0..=random.below(4) {
                Writer::new(&mut wire).text(&random.filter(), "filter").unwrap();
            }
            let filters = Filters::unchecked(&wire);
            put(Packet::Unsubscribe(Unsubscribe { packet_id: random.id(), properties: properties_view, filters }));
        }
        P::Suback | P::Unsuback => {
            let none = kind == P::Unsuback && version == Version::V311;
            let count = if none { 0 } else { 1 + random.below(4) };
            let codes: Vec<u8> = (0..count).map(|_| code(random, kind, version)).collect();
            let packet = Acks { packet_id: random.id(), properties: properties_view, reason_codes: &codes };
            put(Packet::Acks(kind, packet));
        }
        P::Pingreq => put(Packet::Pingreq),
        P::Pingresp => put(Packet::Pingresp),
        P::Disconnect | P::Auth => {
            let has_method = properties_view.get("authentication_method").is_some();
            let (reason_code, properties) = match (kind, has_method) {
                (P::Auth, false) => (0, Default::default()),
                _ => (code(random, kind, version), properties_view),
            };
            put(Packet::Reason(kind, Reason { reason_code, properties }));
        }
    }
    out.as_slice().to_vec()
}

/// Every packet of every version, several times.
pub fn all(random: &mut Random, times: usize, shape: Shape) -> Vec<(PacketType, Version, Vec<u8>)> {
    let mut packets = Vec::new();
    for version in [Version::V311, Version::V5] {
        for kind in PacketType::ALL {
            if kind == PacketType::Auth && version == Version::V311 {
                continue;
            }
            for _ in 0..times {
                packets.push((kind, version, sample(random, kind, version, shape)));
            }
        }
    }
    packets
}
