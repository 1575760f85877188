//! Tables to packets.
//!
//! A field of the wrong type is the script's mistake and raises; a value that the protocol
//! does not allow is a [`Fault`].

use moonwire_runtime::mlua::{self, FromLua, LuaString, Table, Value as LuaValue};

use crate::mqtt::{
    Fault, Packet, Version,
    packet::{
        Ack, Acks, Connack, Connect, Filters, PacketType, Publish, Reason, Subscribe, Subscription, Subscriptions,
        Unsubscribe, Will,
    },
    property::{Form, Home, PROPERTIES, Property, PropertyList, Value},
    wire::{self, Writer},
};

/// Why a table did not become a packet.
pub(super) enum Refusal {
    /// The protocol does not allow it.
    Fault(Fault),
    /// The script got a type or a name wrong.
    Raise(mlua::Error),
}

impl From<mlua::Error> for Refusal {
    fn from(mistake: mlua::Error) -> Self {
        Self::Raise(mistake)
    }
}

fn raise<T>(message: String) -> Result<T, Refusal> {
    Err(Refusal::Raise(mlua::Error::runtime(message)))
}

/// The fields of a table, by name.
struct Fields<'a> {
    table: &'a Table,
    of: &'static str,
}

impl Fields<'_> {
    fn optional<T: FromLua>(&self, name: &'static str, wanted: &str) -> Result<Option<T>, Refusal> {
        match self.table.raw_get::<LuaValue>(name)? {
            LuaValue::Nil => Ok(None),
            value => match self.table.raw_get::<T>(name) {
                Ok(found) => Ok(Some(found)),
                Err(_) => raise(format!("{}: {name}: {wanted} wanted, not {}", self.of, value.type_name())),
            },
        }
    }

    fn flag(&self, name: &'static str) -> Result<bool, Refusal> {
        Ok(self.optional::<bool>(name, "boolean")?.unwrap_or(false))
    }

    /// An integer of at most `max`; absent is 0.
    fn number(&self, name: &'static str, max: u32) -> Result<u32, Refusal> {
        let Some(number) = self.optional::<i64>(name, "integer")? else { return Ok(0) };
        match u32::try_from(number) {
            Ok(number) if number <= max => Ok(number),
            _ => Err(Fault::too_large(format!("{}: {name}: {number}, from 0 to {max}", self.of)).into()),
        }
    }

    fn byte(&self, name: &'static str) -> Result<u8, Refusal> {
        Ok(self.number(name, u8::MAX.into())? as u8)
    }

    fn two(&self, name: &'static str) -> Result<u16, Refusal> {
        Ok(self.number(name, u16::MAX.into())? as u16)
    }

    fn bytes(&self, name: &'static str) -> Result<Option<Vec<u8>>, Refusal> {
        Ok(self.optional::<LuaString>(name, "string")?.map(|string| string.as_bytes().to_vec()))
    }

    fn text(&self, name: &'static str) -> Result<Option<String>, Refusal> {
        let Some(string) = self.optional::<LuaString>(name, "string")? else { return Ok(None) };
        Ok(Some(wire::text(&string.as_bytes(), name)?.to_owned()))
    }

    fn table(&self, name: &'static str) -> Result<Option<Table>, Refusal> {
        self.optional(name, "table")
    }

    fn properties(&self, home: Home) -> Result<PropertyList, Refusal> {
        match self.table("properties")? {
            Some(table) => properties(&table, home),
            None => Ok(PropertyList::new()),
        }
    }
}

/// Which packet a table is, by its `type`.
fn packet_type(fields: &Fields<'_>) -> Result<PacketType, Refusal> {
    let name = fields.text("type")?.unwrap_or_default();
    match PacketType::ALL.iter().find(|kind| kind.name().to_ascii_lowercase() == name) {
        Some(kind) => Ok(*kind),
        None => raise(format!("packet: type: no packet is called {name:?}")),
    }
}

/// Makes a packet of `table` and hands it to `put`.
pub(super) fn encode(
    table: &Table,
    version: Version,
    put: impl FnOnce(&Packet<'_>) -> Result<(), Fault>,
) -> Result<(), Refusal> {
    use PacketType as P;
    let kind = packet_type(&Fields { table, of: "packet" })?;
    let fields = Fields { table, of: kind.name() };
    if kind == P::Connect {
        return connect(&fields, version, put);
    }
    let list = fields.properties(Home::Packet(kind))?;
    let properties = list.view();
    match kind {
        P::Connect | P::Publish => {
            let topic = fields.text("topic")?.unwrap_or_default();
            let payload = fields.bytes("payload")?.unwrap_or_default();
            put(&Packet::Publish(Publish {
                topic: &topic,
                payload: &payload,
                qos: fields.byte("qos")?,
                retain: fields.flag("retain")?,
                dup: fields.flag("dup")?,
                packet_id: fields.two("packet_id")?,
                properties,
            }))?;
        }
        P::Connack => {
            let (session_present, reason_code) = (fields.flag("session_present")?, fields.byte("reason_code")?);
            put(&Packet::Connack(Connack { session_present, reason_code, properties }))?;
        }
        P::Puback | P::Pubrec | P::Pubrel | P::Pubcomp => {
            let (packet_id, reason_code) = (fields.two("packet_id")?, fields.byte("reason_code")?);
            put(&Packet::Ack(kind, Ack { packet_id, reason_code, properties }))?;
        }
        P::Subscribe => {
            let wire = subscriptions(&fields)?;
            let subscriptions = Subscriptions::unchecked(&wire);
            put(&Packet::Subscribe(Subscribe { packet_id: fields.two("packet_id")?, properties, subscriptions }))?;
        }
        P::Unsubscribe => {
            let wire = filters(&fields)?;
            let filters = Filters::unchecked(&wire);
            put(&Packet::Unsubscribe(Unsubscribe { packet_id: fields.two("packet_id")?, properties, filters }))?;
        }
        P::Suback | P::Unsuback => {
            let codes = match fields.table("reason_codes")? {
                Some(list) => list.sequence_values::<u8>().collect::<mlua::Result<Vec<u8>>>()?,
                None => Vec::new(),
            };
            put(&Packet::Acks(kind, Acks { packet_id: fields.two("packet_id")?, properties, reason_codes: &codes }))?;
        }
        P::Pingreq => put(&Packet::Pingreq)?,
        P::Pingresp => put(&Packet::Pingresp)?,
        P::Disconnect | P::Auth => {
            put(&Packet::Reason(kind, Reason { reason_code: fields.byte("reason_code")?, properties }))?;
        }
    }
    Ok(())
}

fn connect(
    fields: &Fields<'_>,
    version: Version,
    put: impl FnOnce(&Packet<'_>) -> Result<(), Fault>,
) -> Result<(), Refusal> {
    let list = fields.properties(Home::Packet(PacketType::Connect))?;
    let client_id = fields.text("client_id")?.unwrap_or_default();
    let (username, password) = (fields.text("username")?, fields.bytes("password")?);
    let will_table = fields.table("will")?;
    let will_parts = match &will_table {
        Some(table) => {
            let will = Fields { table, of: "will" };
            let parts = (
                will.text("topic")?.unwrap_or_default(),
                will.bytes("payload")?.unwrap_or_default(),
                will.properties(Home::Will)?,
            );
            Some((parts, will.byte("qos")?, will.flag("retain")?))
        }
        None => None,
    };
    let will = will_parts.as_ref().map(|((topic, payload, list), qos, retain)| Will {
        topic,
        payload,
        qos: *qos,
        retain: *retain,
        properties: list.view(),
    });
    put(&Packet::Connect(Connect {
        version,
        clean_start: fields.flag("clean_start")?,
        keep_alive: fields.two("keep_alive")?,
        properties: list.view(),
        client_id: &client_id,
        will,
        username: username.as_deref(),
        password: password.as_deref(),
    }))?;
    Ok(())
}

fn subscriptions(fields: &Fields<'_>) -> Result<Vec<u8>, Refusal> {
    let mut wire = Vec::new();
    let Some(list) = fields.table("subscriptions")? else { return Ok(wire) };
    let mut writer = Writer::new(&mut wire);
    for one in list.sequence_values::<Table>() {
        let one = one?;
        let fields = Fields { table: &one, of: "subscription" };
        let filter = fields.text("filter")?.unwrap_or_default();
        let (qos, retain_handling) = (fields.byte("qos")?, fields.byte("retain_handling")?);
        // Beyond their two bits they would touch their neighbours.
        if qos > 3 || retain_handling > 3 {
            return Err(Fault::protocol("subscription: qos and retain_handling are 0, 1 or 2").into());
        }
        let subscription = Subscription {
            filter: &filter,
            qos,
            no_local: fields.flag("no_local")?,
            retain_as_published: fields.flag("retain_as_published")?,
            retain_handling,
        };
        writer.text(subscription.filter, "filter")?;
        writer.u8(subscription.options());
    }
    Ok(wire)
}

fn filters(fields: &Fields<'_>) -> Result<Vec<u8>, Refusal> {
    let mut wire = Vec::new();
    let Some(list) = fields.table("filters")? else { return Ok(wire) };
    let mut writer = Writer::new(&mut wire);
    for filter in list.sequence_values::<LuaString>() {
        writer.text(wire::text(&filter?.as_bytes(), "filter")?, "filter")?;
    }
    Ok(wire)
}

/// Properties by name, in the order of their identifiers whatever the table's order is.
pub(super) fn properties(table: &Table, home: Home) -> Result<PropertyList, Refusal> {
    let mut values: [LuaValue; PROPERTIES.len()] = [const { LuaValue::Nil }; PROPERTIES.len()];
    for pair in table.pairs::<LuaValue, LuaValue>() {
        let (name, value) = pair?;
        let LuaValue::String(name) = name else {
            return raise(format!("{}: properties: names are strings, not {}", home.name(), name.type_name()));
        };
        let name = name.to_string_lossy();
        let Some(property) = Property::by_name(&name) else {
            return raise(format!("{}: properties: no {name:?}; did you mean {:?}?", home.name(), nearest(&name)));
        };
        values[property.position()] = value;
    }
    let mut list = PropertyList::new();
    for (property, value) in PROPERTIES.iter().zip(&values) {
        put_property(&mut list, property, value)?;
    }
    Ok(list)
}

fn put_property(list: &mut PropertyList, property: &Property, value: &LuaValue) -> Result<(), Refusal> {
    let name = property.name;
    match (property.form, value) {
        (_, LuaValue::Nil) => {}
        (Form::Flag, LuaValue::Boolean(flag)) => list.push(property, Value::Number((*flag).into()))?,
        (Form::VarintNotZero, LuaValue::Table(numbers)) => {
            for number in numbers.sequence_values::<LuaValue>() {
                list.push(property, Value::Number(integer(name, &number?)?))?;
            }
        }
        (Form::Text | Form::Topic, LuaValue::String(text)) => {
            list.push(property, Value::Text(wire::text(&text.as_bytes(), name)?))?;
        }
        (Form::Bytes, LuaValue::String(bytes)) => list.push(property, Value::Bytes(&bytes.as_bytes()))?,
        (Form::Pair, LuaValue::Table(pairs)) => {
            for pair in pairs.sequence_values::<LuaValue>() {
                let pair = match pair? {
                    LuaValue::Table(pair) => pair,
                    other => return raise(format!("{name}: a list of {{name, value}}, not of {}", other.type_name())),
                };
                let (key, value) = match (pair.raw_get(1)?, pair.raw_get(2)?) {
                    (LuaValue::String(key), LuaValue::String(value)) => (key, value),
                    _ => return raise(format!("{name}: name and value are strings")),
                };
                let (key, value) = (key.as_bytes(), value.as_bytes());
                list.push(property, Value::Pair(wire::text(&key, name)?, wire::text(&value, name)?))?;
            }
        }
        (Form::Text | Form::Topic | Form::Bytes, other) => {
            return raise(format!("{name}: string wanted, not {}", other.type_name()));
        }
        (Form::Pair, other) => return raise(format!("{name}: a list of {{name, value}}, not {}", other.type_name())),
        (_, number) => list.push(property, Value::Number(integer(name, number)?))?,
    }
    Ok(())
}

fn integer(name: &'static str, value: &LuaValue) -> Result<u32, Refusal> {
    let number = match value {
        LuaValue::Integer(number) => Some(*number),
        LuaValue::Number(number) if number.fract() == 0.0 => Some(*number as i64),
        _ => None,
    };
    let Some(number) = number else {
        return raise(format!("{name}: integer wanted, not {}", value.type_name()));
    };
    u32::try_from(number).map_err(|_| Fault::too_large(format!("{name}: {number}, from 0 to {}", u32::MAX)).into())
}

/// The property whose name is the nearest to `name`.
fn nearest(name: &str) -> &'static str {
    let distance = |property: &&Property| edits(name.as_bytes(), property.name.as_bytes());
    PROPERTIES.iter().min_by_key(distance).map_or("", |property| property.name)
}

/// How many single letters must change to make `one` of `other` (Levenshtein).
fn edits(one: &[u8], other: &[u8]) -> usize {
    let one = &one[..one.len().min(64)];
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.iter().enumerate() {
        let mut corner = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in other.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = (corner + usize::from(a != b)).min(above + 1).min(row[j] + 1);
            corner = above;
        }
    }
    row[other.len()]
}
