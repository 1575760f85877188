//! Measures what the project claims: each row runs our side and a reference in turn and tells their ratio.
//!
//! The references are the least Rust programs that do the same: mio and rustls with nothing in between. They, and
//! the load generators, are roles of this executable, which starts itself (`moonwire-bench role NAME name=value ...`).
//! Figures move with the machine, ratios of one run hardly do; so nothing here passes or fails by the clock: a row
//! that misses its claim says so in the table and the exit status stays 0.

mod child;
mod http;
mod load;
mod machine;
mod mail;
mod mqtt;
mod report;
mod roles;
mod rows;
mod rpc;
mod servers;
mod stats;
mod tls;
mod web;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use crate::report::Table;
use crate::rows::{Bench, Row, Side};

/// What can go wrong while measuring, as a sentence.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const AFTER_HELP: &str = "\
Without a ROW all are measured, in about five minutes. Build both programs first:

  cargo build --release -p moonwire -p moonwire-bench
  cargo run --release -p moonwire-bench -- echo lines --runs 9";

/// Measure what Moonwire claims, beside references in Rust.
#[derive(Parser)]
#[command(name = "moonwire-bench", after_help = AFTER_HELP)]
struct Options {
    /// What to measure
    #[arg(value_name = "ROW")]
    rows: Vec<Row>,

    /// How often each side of each row runs; medians are told
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,

    /// The moonwire program to measure; the one built beside this program if not given
    #[arg(long, value_name = "PATH")]
    moonwire: Option<PathBuf>,
}

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1).peekable();
    let done =
        if words.next_if(|word| word == "role").is_some() { roles::play(words) } else { measure(Options::parse()) };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("moonwire-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the rows, every one once before any a second time, and prints the table.
fn measure(options: Options) -> Result<()> {
    let bench = Bench::new(options.moonwire)?;
    let rows = if options.rows.is_empty() { bench.possible_rows() } else { options.rows };
    let mut table = Table::new(&rows);
    for run in 0..options.runs {
        for (at, row) in rows.iter().enumerate() {
            // Whoever runs first may find the machine in another state: take turns.
            let order = if run % 2 == 0 { [Side::Ours, Side::Reference] } else { [Side::Reference, Side::Ours] };
            for side in order {
                eprintln!("run {} of {}: {row}, {side}", run + 1, options.runs);
                table.add(at, side, row.measure(side, &bench).map_err(|error| format!("{row}, {side}: {error}"))?);
            }
        }
    }
    print!("{table}");
    Ok(())
}
