//! The `moonwire` command.
fn main() {}
