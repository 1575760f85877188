//! Promises of the runtime that need certificates, processes or several threads. The others are in `lua/test`.

mod blocking;
mod descriptors;
mod embedding;
mod failures;
mod stop;
mod support;
mod tls;
mod tls_refusals;
