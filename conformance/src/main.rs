//! The conformance harness.
fn main() {}
