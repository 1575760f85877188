//! What a worker tells its parent, one JSON object a line.

use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
pub enum Event {
    /// The tests of the file, in the order in which they run.
    Plan {
        names: Vec<String>,
    },
    /// A test begins; the first has number 1.
    Begin {
        number: usize,
    },
    Passed {
        seconds: f64,
    },
    Skipped {
        reason: String,
        seconds: f64,
    },
    Failed {
        message: String,
        trace: String,
        seconds: f64,
    },
    /// The file could not be loaded.
    Broken {
        message: String,
        trace: String,
    },
    /// Nothing more will come.
    Done,
}
