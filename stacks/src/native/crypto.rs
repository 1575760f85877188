//! `crypto`: digests, HMAC, PBKDF2, bytes that nobody can guess. Bytes in, raw bytes out; `hex` prints them.

use std::{cell::RefCell, ops::RangeInclusive};

use hmac::{Hmac, KeyInit, Mac};
use md5::Md5;
use mlua::{Lua, LuaString, Table, UserData, UserDataMethods, Variadic};
use moonwire_runtime::{Error, Kind, mlua};
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha512, Sha512_256, digest::DynDigest};
use subtle::ConstantTimeEq;

use super::arguments::{Bytes, misuse, suggestion};

/// How many bytes one `random_bytes` gives.
const RANDOM_MAX: usize = 1024 * 1024;
/// How many bytes one `pbkdf2` derives.
const DERIVED_MAX: usize = 1024;
/// How many rounds one `pbkdf2` takes, over all blocks: about a second, during which nothing else
/// runs. Servers choose the number, so that more is an error of the outside world.
const ROUNDS_MAX: u64 = 2_000_000;

/// The module `crypto`.
pub(crate) fn module(lua: &Lua) -> mlua::Result<Table> {
    let module = lua.create_table()?;
    for algorithm in Algorithm::ALL {
        let digest =
            lua.create_function(move |lua, data: Bytes| lua.create_string(data.with(|data| algorithm.digest(data))))?;
        module.raw_set(algorithm.name(), digest)?;
    }
    let new_digest = lua.create_function(|lua, name: LuaString| {
        let hasher = Algorithm::named(lua, "crypto.new_digest", &name)?.hasher();
        Ok(Stream(RefCell::new(Some(hasher))))
    })?;
    module.raw_set("new_digest", new_digest)?;
    let hmac = lua.create_function(|lua, (name, key, data): (LuaString, Bytes, Bytes)| {
        let algorithm = Algorithm::named(lua, "crypto.hmac", &name)?;
        let key = key.to_vec();
        lua.create_string(data.with(|data| algorithm.hmac(&key, data)))
    })?;
    module.raw_set("hmac", hmac)?;
    module.raw_set("pbkdf2", lua.create_function(pbkdf2)?)?;
    let equal = lua.create_function(|_, (one, other): (Bytes, Bytes)| {
        let one = one.to_vec();
        Ok(other.with(|other| bool::from(one.ct_eq(other))))
    })?;
    module.raw_set("equal", equal)?;
    module.raw_set("random_bytes", lua.create_function(random_bytes)?)?;
    Ok(module)
}

type Answer = mlua::Result<Result<LuaString, Error>>;

fn pbkdf2(lua: &Lua, (name, password, salt, rounds, len): (LuaString, Bytes, Bytes, i64, Option<i64>)) -> Answer {
    const OP: &str = "crypto.pbkdf2";
    let algorithm = Algorithm::named(lua, OP, &name)?;
    let len = within(lua, OP, "length", len.unwrap_or(algorithm.size() as i64), 1..=DERIVED_MAX as i64)? as usize;
    let rounds = within(lua, OP, "iterations", rounds, 1..=i64::from(u32::MAX))? as u32;
    if u64::from(rounds) * len.div_ceil(algorithm.size()) as u64 > ROUNDS_MAX {
        let message = format!("{rounds} iterations for {len} bytes are more than {ROUNDS_MAX} rounds in all");
        return Ok(Err(Error::new(Kind::Limit, OP, message)));
    }
    let salt = salt.to_vec();
    lua.create_string(password.with(|password| algorithm.pbkdf2(password, &salt, rounds, len))).map(Ok)
}

fn random_bytes(lua: &Lua, count: i64) -> Answer {
    const OP: &str = "crypto.random_bytes";
    let mut bytes = vec![0; within(lua, OP, "the count", count, 0..=RANDOM_MAX as i64)? as usize];
    match getrandom::fill(&mut bytes) {
        Ok(()) => lua.create_string(bytes).map(Ok),
        Err(error) => Ok(Err(Error::new(Kind::Io, OP, error.to_string()))),
    }
}

fn within(lua: &Lua, op: &str, what: &str, value: i64, range: RangeInclusive<i64>) -> mlua::Result<i64> {
    if range.contains(&value) {
        return Ok(value);
    }
    Err(misuse(lua, &format!("{op}: {what} must be from {} to {}, not {value}", range.start(), range.end())))
}

/// A digest algorithm, by the name that scripts use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Algorithm {
    Md5,
    Sha1,
    Sha256,
    Sha512,
    Sha512_256,
}

/// Runs `$work` with `$D` standing for the type that does the algorithm.
macro_rules! dispatch {
    ($algorithm:expr, $D:ident => $work:expr) => {
        match $algorithm {
            Algorithm::Md5 => {
                type $D = Md5;
                $work
            }
            Algorithm::Sha1 => {
                type $D = Sha1;
                $work
            }
            Algorithm::Sha256 => {
                type $D = Sha256;
                $work
            }
            Algorithm::Sha512 => {
                type $D = Sha512;
                $work
            }
            Algorithm::Sha512_256 => {
                type $D = Sha512_256;
                $work
            }
        }
    };
}

impl Algorithm {
    const ALL: [Algorithm; 5] =
        [Algorithm::Md5, Algorithm::Sha1, Algorithm::Sha256, Algorithm::Sha512, Algorithm::Sha512_256];

    fn named(lua: &Lua, op: &str, name: &LuaString) -> mlua::Result<Self> {
        let name = name.to_string_lossy();
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name).ok_or_else(|| {
            let hint = suggestion(&name, &Self::ALL.map(Algorithm::name));
            misuse(lua, &format!("{op}: unknown algorithm {name:?}{hint}"))
        })
    }

    const fn name(self) -> &'static str {
        match self {
            Algorithm::Md5 => "md5",
            Algorithm::Sha1 => "sha1",
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha512 => "sha512",
            Algorithm::Sha512_256 => "sha512_256",
        }
    }

    /// Bytes of one digest.
    fn size(self) -> usize {
        dispatch!(self, D => <D as Digest>::output_size())
    }

    fn digest(self, data: &[u8]) -> Vec<u8> {
        dispatch!(self, D => D::digest(data).to_vec())
    }

    fn hasher(self) -> Box<dyn DynDigest> {
        dispatch!(self, D => Box::new(D::new()))
    }

    fn hmac(self, key: &[u8], data: &[u8]) -> Vec<u8> {
        dispatch!(self, D => {
            let mut mac = Hmac::<D>::new_from_slice(key).expect("HMAC takes keys of any length");
            mac.update(data);
            mac.finalize().into_bytes().to_vec()
        })
    }

    fn pbkdf2(self, password: &[u8], salt: &[u8], rounds: u32, len: usize) -> Vec<u8> {
        let mut derived = vec![0; len];
        dispatch!(self, D => pbkdf2::pbkdf2_hmac::<D>(password, salt, rounds, &mut derived));
        derived
    }
}

/// `crypto.Digest`: empty once it is finished.
struct Stream(RefCell<Option<Box<dyn DynDigest>>>);

const FINISHED: &str = "crypto.Digest: finish() has already been called";

impl UserData for Stream {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_function("update", |lua, (me, pieces): (mlua::AnyUserData, Variadic<Bytes>)| {
            let stream = me.borrow::<Stream>()?;
            let mut hasher = stream.0.borrow_mut();
            let Some(hasher) = hasher.as_mut() else { return Err(misuse(lua, FINISHED)) };
            for piece in pieces.iter() {
                piece.with(|bytes| hasher.update(bytes));
            }
            Ok(me.clone())
        });
        methods.add_method("finish", |lua, stream, ()| {
            let Some(hasher) = stream.0.take() else { return Err(misuse(lua, FINISHED)) };
            lua.create_string(hasher.finalize())
        });
    }
}
