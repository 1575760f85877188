//! Packets to tables.

use moonwire_runtime::mlua::{self, IntoLua, Lua, LuaString, Table};

use crate::mqtt::{
    Packet,
    packet::{Acks, Connack, Connect, PacketType, Publish, Subscription},
    property::{Form, PROPERTIES, Properties, Value},
};

/// The strings that tables are made with, so that no packet makes them anew.
pub(super) struct Names {
    types: Vec<LuaString>,
    properties: Vec<LuaString>,
    field: Fields,
}

macro_rules! fields {
    ($($name:ident = $text:literal),* $(,)?) => {
        struct Fields { $($name: LuaString),* }

        impl Fields {
            fn new(lua: &Lua) -> mlua::Result<Self> {
                Ok(Self { $($name: lua.create_string($text)?),* })
            }
        }
    };
}

fields! {
    kind = "type",
    topic = "topic",
    payload = "payload",
    qos = "qos",
    retain = "retain",
    dup = "dup",
    packet_id = "packet_id",
    properties = "properties",
    reason_code = "reason_code",
    reason_codes = "reason_codes",
    session_present = "session_present",
    protocol_version = "protocol_version",
    clean_start = "clean_start",
    keep_alive = "keep_alive",
    client_id = "client_id",
    will = "will",
    username = "username",
    password = "password",
    subscriptions = "subscriptions",
    filters = "filters",
    filter = "filter",
    no_local = "no_local",
    retain_as_published = "retain_as_published",
    retain_handling = "retain_handling",
}

impl Names {
    pub(super) fn new(lua: &Lua) -> mlua::Result<Self> {
        let types = PacketType::ALL.iter().map(|kind| lua.create_string(kind.name().to_ascii_lowercase()));
        let properties = PROPERTIES.iter().map(|property| lua.create_string(property.name));
        Ok(Self {
            types: types.collect::<mlua::Result<_>>()?,
            properties: properties.collect::<mlua::Result<_>>()?,
            field: Fields::new(lua)?,
        })
    }
}

/// A table in the making.
struct Record<'a> {
    lua: &'a Lua,
    names: &'a Names,
    table: Table,
}

impl<'a> Record<'a> {
    fn new(lua: &'a Lua, names: &'a Names, fields: usize) -> mlua::Result<Self> {
        Ok(Self { lua, names, table: lua.create_table_with_capacity(0, fields)? })
    }

    fn set(&self, name: &LuaString, value: impl IntoLua) -> mlua::Result<()> {
        self.table.raw_set(name, value)
    }

    fn bytes(&self, name: &LuaString, bytes: &[u8]) -> mlua::Result<()> {
        self.table.raw_set(name, self.lua.create_string(bytes)?)
    }

    /// Sets `properties`, unless there are none.
    fn properties(&self, properties: Properties<'_>) -> mlua::Result<()> {
        if properties.is_empty() {
            return Ok(());
        }
        self.set(&self.names.field.properties, property_table(self.lua, self.names, properties)?)
    }
}

/// The table of one packet.
pub(super) fn packet(lua: &Lua, names: &Names, packet: &Packet<'_>) -> mlua::Result<Table> {
    let kind = packet.packet_type();
    let record = Record::new(lua, names, fields_of(packet))?;
    let field = &names.field;
    record.set(&field.kind, &names.types[kind as usize - 1])?;
    match packet {
        Packet::Publish(packet) => publish(&record, packet)?,
        Packet::Connect(packet) => connect(&record, packet)?,
        Packet::Connack(Connack { session_present, reason_code, properties }) => {
            record.set(&field.session_present, *session_present)?;
            record.set(&field.reason_code, *reason_code)?;
            record.properties(*properties)?;
        }
        Packet::Ack(_, packet) => {
            record.set(&field.packet_id, packet.packet_id)?;
            record.set(&field.reason_code, packet.reason_code)?;
            record.properties(packet.properties)?;
        }
        Packet::Subscribe(packet) => {
            record.set(&field.packet_id, packet.packet_id)?;
            record.properties(packet.properties)?;
            let list = lua.create_table()?;
            for one in packet.subscriptions.iter() {
                list.raw_push(subscription(lua, names, &one)?)?;
            }
            record.set(&field.subscriptions, list)?;
        }
        Packet::Unsubscribe(packet) => {
            record.set(&field.packet_id, packet.packet_id)?;
            record.properties(packet.properties)?;
            record.set(&field.filters, lua.create_sequence_from(packet.filters.iter())?)?;
        }
        Packet::Acks(_, Acks { packet_id, properties, reason_codes }) => {
            record.set(&field.packet_id, *packet_id)?;
            record.properties(*properties)?;
            record.set(&field.reason_codes, lua.create_sequence_from(reason_codes.iter().copied())?)?;
        }
        Packet::Pingreq | Packet::Pingresp => {}
        Packet::Reason(_, packet) => {
            record.set(&field.reason_code, packet.reason_code)?;
            record.properties(packet.properties)?;
        }
    }
    Ok(record.table)
}

/// How many fields the table of a packet will have: for the one that comes most often no more than that.
fn fields_of(packet: &Packet<'_>) -> usize {
    match packet {
        Packet::Publish(publish) => {
            let Publish { qos, retain, dup, properties, .. } = publish;
            4 + usize::from(*qos > 0) + usize::from(*retain) + usize::from(*dup) + usize::from(!properties.is_empty())
        }
        Packet::Connect(_) => 8,
        _ => 4,
    }
}

/// `retain` and `dup` are there only when they are true: most messages have neither.
fn publish(record: &Record<'_>, packet: &Publish<'_>) -> mlua::Result<()> {
    let field = &record.names.field;
    record.set(&field.topic, packet.topic)?;
    record.bytes(&field.payload, packet.payload)?;
    record.set(&field.qos, packet.qos)?;
    if packet.qos > 0 {
        record.set(&field.packet_id, packet.packet_id)?;
    }
    if packet.retain {
        record.set(&field.retain, true)?;
    }
    if packet.dup {
        record.set(&field.dup, true)?;
    }
    record.properties(packet.properties)
}

fn connect(record: &Record<'_>, packet: &Connect<'_>) -> mlua::Result<()> {
    let field = &record.names.field;
    record.set(&field.protocol_version, packet.version as u8)?;
    record.set(&field.clean_start, packet.clean_start)?;
    record.set(&field.keep_alive, packet.keep_alive)?;
    record.properties(packet.properties)?;
    record.set(&field.client_id, packet.client_id)?;
    if let Some(will) = packet.will {
        let inner = Record::new(record.lua, record.names, 5)?;
        inner.set(&field.topic, will.topic)?;
        inner.bytes(&field.payload, will.payload)?;
        inner.set(&field.qos, will.qos)?;
        inner.set(&field.retain, will.retain)?;
        inner.properties(will.properties)?;
        record.set(&field.will, inner.table)?;
    }
    if let Some(username) = packet.username {
        record.set(&field.username, username)?;
    }
    if let Some(password) = packet.password {
        record.bytes(&field.password, password)?;
    }
    Ok(())
}

fn subscription(lua: &Lua, names: &Names, one: &Subscription<'_>) -> mlua::Result<Table> {
    let record = Record::new(lua, names, 5)?;
    let field = &names.field;
    record.set(&field.filter, one.filter)?;
    record.set(&field.qos, one.qos)?;
    record.set(&field.no_local, one.no_local)?;
    record.set(&field.retain_as_published, one.retain_as_published)?;
    record.set(&field.retain_handling, one.retain_handling)?;
    Ok(record.table)
}

fn property_table(lua: &Lua, names: &Names, properties: Properties<'_>) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    let mut pairs = None;
    let mut numbers = None;
    for (property, value) in properties.iter() {
        let name = &names.properties[property.position()];
        match value {
            Value::Number(number) if property.form == Form::Flag => table.raw_set(name, number != 0)?,
            Value::Number(number) if property.form == Form::VarintNotZero => {
                list(lua, &table, name, &mut numbers)?.raw_push(number)?;
            }
            Value::Number(number) => table.raw_set(name, number)?,
            Value::Text(text) => table.raw_set(name, text)?,
            Value::Bytes(bytes) => table.raw_set(name, lua.create_string(bytes)?)?,
            Value::Pair(key, value) => {
                list(lua, &table, name, &mut pairs)?.raw_push(lua.create_sequence_from([key, value])?)?;
            }
        }
    }
    Ok(table)
}

/// The list of a property that may repeat, made when it is first met.
fn list<'a>(lua: &Lua, table: &Table, name: &LuaString, list: &'a mut Option<Table>) -> mlua::Result<&'a Table> {
    if list.is_none() {
        let made = lua.create_table()?;
        table.raw_set(name, &made)?;
        *list = Some(made);
    }
    list.as_ref().ok_or_else(|| mlua::Error::runtime("unreachable: the list was just made"))
}
