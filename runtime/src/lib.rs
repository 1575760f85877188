//! A small cosocket runtime: sequential Lua code on non-blocking sockets.
//!
//! A script that waits for a socket, a timer or another task parks its coroutine; one loop per
//! [`Runtime`] resumes it when its operation is complete. Scripts see the module `cosocket`, which
//! `lua/meta/cosocket.lua` describes.
//!
//! ```
//! use moonwire_runtime::{Runtime, mlua::Value};
//!
//! let runtime = Runtime::builder()
//!     .module("answer", |_| Ok(Value::Integer(42)))
//!     .sources([("greeting", "return { text = 'hello' }")])
//!     .build()?;
//! let handle = runtime.handle();
//! std::thread::spawn(move || handle.stop(0));
//! let status = runtime.run_source(
//!     "=demo",
//!     r#"
//!     local cosocket = require "cosocket"
//!     assert(require "answer" == 42 and require "greeting".text == "hello")
//!     local one, other = cosocket.pair()
//!     cosocket.spawn(function() one:write("ping\n") end)
//!     assert(other:read_line() == "ping")
//!     cosocket.sleep(3600) -- until the other thread stops it
//!     "#,
//! )?;
//! assert_eq!(status, 0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The rooms, from the kernel up: `reactor` (descriptors and events), `socket` (streams, listeners,
//! datagrams, TLS), `dial` and `resolve` (from a name to a connection), `scheduler` and `clock`
//! (tasks and time), [`blocking`] (work on threads), `ffi` (raw Lua functions that try and park; the only unsafe code), `lua` and
//! `prelude` (what scripts see), `runtime` (the loop).

pub mod blocking;
mod buffer;
mod clock;
mod collector;
mod complaint;
mod dial;
mod error;
mod failure;
mod ffi;
mod handle;
mod lua;
mod os;
mod reactor;
mod resolve;
mod runtime;
mod scheduler;
mod shared;
mod socket;
mod waiting;

pub use buffer::{Buffer, Order};
pub use error::{Code, Error, Kind};
pub use failure::{RunError, TaskFailure};
pub use ffi::{Arguments, BufferRef, FIELDS_MAX, Native, Outcome, Record, native_function};
pub use handle::Handle;
pub use mlua;
pub use runtime::{Builder, Runtime};
