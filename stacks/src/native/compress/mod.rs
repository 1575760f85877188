//! `compress`: content codings of HTTP, piece by piece, from one buffer to another. Decoders know when they are being
//! fooled: both how much comes out and how much more than went in is limited.

mod zstd;

use std::cell::RefCell;

use brotli_decompressor::{BrotliDecompressStream, BrotliResult, BrotliState, StandardAlloc};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use mlua::{Lua, LuaString, Table, UserData, UserDataMethods};
use moonwire_runtime::{BufferRef, Error, Kind, mlua};

use self::zstd::Zstd;
use super::arguments::{Bytes, Options, misuse, suggestion};

/// Bytes that one `decode` makes, unless the call says otherwise.
const ROOM: i64 = 64 * 1024;
/// Most bytes that one `decode` may be asked for.
const ROOM_MAX: i64 = 16 * 1024 * 1024;
/// Bytes made at once before they are moved to the output.
const PIECE: usize = 32 * 1024;
/// How many bytes may come out for each that went in, unless the options say otherwise.
const RATIO_MAX: i64 = 200;
/// Up to here nobody asks for the ratio: small bodies of spaces are no attack.
const RATIO_FROM: u64 = 1024 * 1024;
/// Window of gzip and deflate, as a power of two: what the formats have at most.
const WINDOW_BITS: u8 = 15;

/// The names of the decoders, as `Content-Encoding` has them.
const CODINGS: [&str; 4] = ["gzip", "deflate", "br", "zstd"];

/// The module `compress`.
pub(crate) fn module(lua: &Lua) -> mlua::Result<Table> {
    let module = lua.create_table()?;
    let decoder = lua.create_function(|lua, (coding, options): (LuaString, Option<Table>)| {
        let options = Options::new(lua, "compress.decoder", options, &["size_max", "ratio_max"])?;
        let name = coding.to_string_lossy();
        let Some(known) = CODINGS.into_iter().find(|known| *known == name) else {
            return Err(misuse(
                lua,
                &format!("compress.decoder: unknown coding {name:?}{}", suggestion(&name, &CODINGS)),
            ));
        };
        Ok(Decoder(RefCell::new(Limited {
            name: known,
            coding: Coding::named(known),
            complete: false,
            size_max: options.integer("size_max", 0..=i64::MAX, i64::MAX)? as u64,
            ratio_max: options.integer("ratio_max", 1..=i64::from(u32::MAX), RATIO_MAX)? as u64,
            taken: 0,
            made: 0,
            broken: None,
        })))
    })?;
    module.raw_set("decoder", decoder)?;
    let encoder = lua.create_function(|lua, (coding, options): (LuaString, Option<Table>)| {
        let options = Options::new(lua, "compress.encoder", options, &["level"])?;
        let name = coding.to_string_lossy();
        if name != "gzip" {
            return Err(misuse(lua, &format!("compress.encoder: unknown coding {name:?}; known: gzip")));
        }
        let level = Compression::new(options.integer("level", 0..=9, 6)? as u32);
        Ok(Encoder(RefCell::new(Some(Compress::new_gzip(level, WINDOW_BITS)))))
    })?;
    module.raw_set("encoder", encoder)?;
    Ok(module)
}

/// How far one step of a decoder came.
struct Step {
    /// Bytes of the input that are done with.
    taken: usize,
    /// Bytes that were made.
    made: usize,
    /// Whether it goes on without more input, given room.
    more: bool,
}

/// A format in the middle of a body. A fault is words about what is broken.
enum Coding {
    Gzip {
        inflate: Decompress,
        at_end: bool,
    },
    /// zlib (RFC 9110, 8.4.1.2), or what some servers send instead: raw deflate.
    Deflate {
        inflate: Option<Decompress>,
        first: Option<u8>,
        at_end: bool,
    },
    Brotli {
        state: Box<BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>>,
        at_end: bool,
    },
    Zstd(Box<Zstd>),
}

const AFTER_THE_END: &str = "bytes follow after its end";

impl Coding {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "gzip" => Self::Gzip { inflate: Decompress::new_gzip(WINDOW_BITS), at_end: false },
            "deflate" => Self::Deflate { inflate: None, first: None, at_end: false },
            "br" => {
                let alloc = StandardAlloc::default;
                Self::Brotli { state: Box::new(BrotliState::new_strict(alloc(), alloc(), alloc())), at_end: false }
            }
            "zstd" => Self::Zstd(Box::new(Zstd::new())),
            _ => return None,
        })
    }

    /// Whether the body may end here.
    fn is_complete(&self) -> bool {
        match self {
            Self::Gzip { at_end, .. } | Self::Deflate { at_end, .. } | Self::Brotli { at_end, .. } => *at_end,
            Self::Zstd(zstd) => zstd.is_complete(),
        }
    }

    fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, String> {
        match self {
            Self::Gzip { inflate, at_end } => {
                if *at_end && !input.is_empty() {
                    // RFC 1952, 2.2: members follow one another.
                    *inflate = Decompress::new_gzip(WINDOW_BITS);
                    *at_end = false;
                }
                inflate_step(inflate, at_end, input, output)
            }
            Self::Deflate { at_end: true, .. } | Self::Brotli { at_end: true, .. } if !input.is_empty() => {
                Err(AFTER_THE_END.to_owned())
            }
            Self::Deflate { inflate: Some(inflate), at_end, .. } => inflate_step(inflate, at_end, input, output),
            Self::Deflate { inflate, first, at_end } => {
                // RFC 1950, 2.2: the first two bytes are a multiple of 31, and the method is 8.
                let (one, two, skip) = match (*first, input) {
                    (Some(one), [two, ..]) => (one, *two, 0),
                    (None, [one, two, ..]) => (*one, *two, 1),
                    (None, [one]) => {
                        *first = Some(*one);
                        return Ok(Step { taken: 1, made: 0, more: false });
                    }
                    (_, []) => return Ok(Step { taken: 0, made: 0, more: false }),
                };
                let zlib = one & 15 == 8 && (u16::from(one) << 8 | u16::from(two)) % 31 == 0;
                let made = inflate.insert(Decompress::new(zlib));
                let head = inflate_step(made, at_end, &[one], output)?;
                if *at_end {
                    return Err(AFTER_THE_END.to_owned());
                }
                Ok(Step { taken: skip, made: head.made, more: true })
            }
            Self::Brotli { state, at_end } => {
                let (mut left, mut taken, mut room, mut made, mut total) = (input.len(), 0, output.len(), 0, 0);
                let result = BrotliDecompressStream(
                    &mut left, &mut taken, input, &mut room, &mut made, output, &mut total, state,
                );
                match result {
                    BrotliResult::ResultFailure => Err(format!("{:?}", state.error_code)),
                    BrotliResult::ResultSuccess if left > 0 => Err(AFTER_THE_END.to_owned()),
                    BrotliResult::ResultSuccess => {
                        *at_end = true;
                        Ok(Step { taken, made, more: false })
                    }
                    BrotliResult::NeedsMoreInput => Ok(Step { taken, made, more: false }),
                    BrotliResult::NeedsMoreOutput => Ok(Step { taken, made, more: true }),
                }
            }
            Self::Zstd(zstd) => zstd.step(input, output),
        }
    }
}

fn inflate_step(inflate: &mut Decompress, at_end: &mut bool, input: &[u8], output: &mut [u8]) -> Result<Step, String> {
    let (before_in, before_out) = (inflate.total_in(), inflate.total_out());
    let status = inflate.decompress(input, output, FlushDecompress::None).map_err(|fault| fault.to_string())?;
    let taken = (inflate.total_in() - before_in) as usize;
    let made = (inflate.total_out() - before_out) as usize;
    *at_end = matches!(status, Status::StreamEnd);
    let more = taken < input.len() || (made == output.len() && !*at_end);
    if more && taken == 0 && made == 0 && !*at_end {
        return Err("it does not go on".to_owned());
    }
    Ok(Step { taken, made, more })
}

/// A coding under its limits.
struct Limited {
    name: &'static str,
    /// What decodes, of several MiB perhaps. The collector does not know how much that is, so that it goes as soon as
    /// nothing more is to be expected of it.
    coding: Option<Coding>,
    /// Whether the body may end here.
    complete: bool,
    size_max: u64,
    ratio_max: u64,
    taken: u64,
    made: u64,
    /// Why nothing more will come out.
    broken: Option<Error>,
}

const DECODE: &str = "compress.decode";

impl Limited {
    /// One step; `Err` once for all.
    fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, Error> {
        if let Some(error) = &self.broken {
            return Err(error.clone());
        }
        if self.coding.is_none() && input.is_empty() {
            return Ok(Step { taken: 0, made: 0, more: false });
        }
        let outcome = self
            .run(input, output)
            .map_err(|fault| Error::new(Kind::Protocol, DECODE, format!("the {} data is broken: {fault}", self.name)));
        let outcome = outcome.and_then(|step| {
            self.taken += step.taken as u64;
            self.made += step.made as u64;
            if self.made > self.size_max {
                let message = format!("decoded, the body is larger than {} bytes", self.size_max);
                return Err(Error::new(Kind::Limit, DECODE, message));
            }
            if self.made > RATIO_FROM && self.made / self.ratio_max > self.taken {
                let message = format!(
                    "decoded, the body is more than {} times as large as it came ({} bytes of {}); ratio_max allows more",
                    self.ratio_max, self.made, self.taken
                );
                return Err(Error::new(Kind::Limit, DECODE, message));
            }
            Ok(step)
        });
        if let Err(error) = &outcome {
            self.broken = Some(error.clone());
            self.coding = None;
        }
        outcome
    }

    fn run(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, String> {
        let coding = match &mut self.coding {
            Some(coding) => coding,
            // RFC 1952, 2.2, and RFC 8878, 3.1: members, and frames, follow one another.
            None if matches!(self.name, "gzip" | "zstd") => {
                self.coding.insert(Coding::named(self.name).ok_or(AFTER_THE_END)?)
            }
            None => return Err(AFTER_THE_END.to_owned()),
        };
        let step = coding.step(input, output)?;
        self.complete = coding.is_complete();
        if self.complete && !step.more {
            self.coding = None;
        }
        Ok(step)
    }

    /// Lets go of what decodes, in the middle of a body.
    fn close(&mut self) {
        self.coding = None;
        if !self.complete && self.broken.is_none() {
            self.broken = Some(Error::new(Kind::Closed, DECODE, "the decoder was closed"));
        }
    }
}

/// `compress.Decoder`.
struct Decoder(RefCell<Limited>);

impl Decoder {
    /// Takes from `input` and appends at most `room` bytes to `output`; whether all of the input is done with.
    fn decode(&self, input: &BufferRef, output: &BufferRef, mut room: usize) -> Result<bool, Error> {
        thread_local! {
            static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; PIECE]);
        }
        let mut decoder = self.0.borrow_mut();
        SCRATCH.with_borrow_mut(|scratch| {
            while room > 0 {
                let piece = &mut scratch[..room.min(PIECE)];
                let step = input.with(|input| {
                    let step = decoder.step(input.as_slice(), piece)?;
                    input.skip(step.taken);
                    Ok::<_, Error>(step)
                })?;
                output.with(|output| output.extend(&piece[..step.made]));
                room -= step.made;
                if !step.more {
                    return Ok(true);
                }
            }
            Ok(false)
        })
    }
}

impl UserData for Decoder {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_method("decode", |lua, me, (input, output, room): (BufferRef, BufferRef, Option<i64>)| {
            let room = room.unwrap_or(ROOM);
            if !(1..=ROOM_MAX).contains(&room) {
                return Err(misuse(lua, &format!("{DECODE}: the room must be from 1 to {ROOM_MAX}, not {room}")));
            }
            Ok(me.decode(&input, &output, room as usize))
        });
        methods.add_method("finish", |_, me, ()| {
            let decoder = me.0.borrow();
            if let Some(error) = &decoder.broken {
                return Ok(Err(error.clone()));
            }
            if !decoder.complete {
                let message = format!("the {} data ends before its end", decoder.name);
                return Ok(Err(Error::new(Kind::Protocol, DECODE, message)));
            }
            Ok(Ok(true))
        });
        methods.add_method("close", |_, me, ()| {
            me.0.borrow_mut().close();
            Ok(true)
        });
    }
}

/// `compress.Encoder`: empty once it is finished.
struct Encoder(RefCell<Option<Compress>>);

/// Moves everything there is of `input` through `compress`, and of what it holds with `flush`.
fn deflate(compress: &mut Compress, mut input: &[u8], flush: FlushCompress, output: &BufferRef) -> Result<(), Error> {
    let mut piece = vec![0; PIECE];
    loop {
        let (before_in, before_out) = (compress.total_in(), compress.total_out());
        let status = compress
            .compress(input, &mut piece, flush)
            .map_err(|fault| Error::new(Kind::Io, "compress.encode", fault.to_string()))?;
        input = &input[(compress.total_in() - before_in) as usize..];
        let made = (compress.total_out() - before_out) as usize;
        output.with(|output| output.extend(&piece[..made]));
        if matches!(status, Status::StreamEnd) || (input.is_empty() && made < piece.len()) {
            return Ok(());
        }
    }
}

const FINISHED: &str = "compress.Encoder: finish() has already been called";

impl UserData for Encoder {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_method("encode", |lua, me, (input, output, flush): (Bytes, BufferRef, Option<bool>)| {
            let mut encoder = me.0.borrow_mut();
            let Some(compress) = encoder.as_mut() else { return Err(misuse(lua, FINISHED)) };
            let flush = if flush == Some(true) { FlushCompress::Sync } else { FlushCompress::None };
            // A copy: input and output may be one buffer.
            Ok(deflate(compress, &input.to_vec(), flush, &output).map(|()| true))
        });
        methods.add_method("finish", |lua, me, output: BufferRef| {
            let Some(mut compress) = me.0.take() else { return Err(misuse(lua, FINISHED)) };
            Ok(deflate(&mut compress, &[], FlushCompress::Finish, &output).map(|()| true))
        });
    }
}
