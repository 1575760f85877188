//! A small cosocket runtime.

mod buffer;
mod error;
mod ffi;
mod os;
mod runtime;

pub use buffer::{Buffer, Order};
pub use error::{Code, Error, Kind};
pub use ffi::BufferRef;
pub use mlua;
pub use runtime::{Builder, Runtime};
