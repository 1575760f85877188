//! Promises of the runtime that need certificates, processes or several threads. The others are in `lua/test`.

mod descriptors;
mod failures;
mod stop;
mod support;
mod tls;
mod tls_refusals;
