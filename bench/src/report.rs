//! The table: medians of both sides, their ratio with its spread, and whether the claim is met.

use std::fmt;

use crate::rows::{Claim, Measured, Metric, Row, Side};
use crate::stats::{median, spread};

/// What was measured of one metric, a value a run.
struct Line {
    metric: &'static Metric,
    ours: Vec<Measured>,
    reference: Vec<Measured>,
}

/// All that was measured.
pub struct Table {
    rows: Vec<Vec<Line>>,
}

impl Table {
    /// An empty table of these rows.
    pub fn new(rows: &[Row]) -> Self {
        let lines = |row: &Row| row.metrics().iter().map(Line::new).collect();
        Table { rows: rows.iter().map(lines).collect() }
    }

    /// Adds what a side of a row answered in one run, metric by metric.
    pub fn add(&mut self, row: usize, side: Side, values: Vec<Measured>) {
        for (line, value) in self.rows[row].iter_mut().zip(values) {
            match side {
                Side::Ours => line.ours.push(value),
                Side::Reference => line.reference.push(value),
            }
        }
    }
}

impl Line {
    fn new(metric: &'static Metric) -> Self {
        Line { metric, ours: Vec::new(), reference: Vec::new() }
    }

    /// Ours to the reference, run by run: what both had of the machine in that run is in both.
    fn ratios(&self) -> Vec<f64> {
        self.ours.iter().zip(&self.reference).map(|(ours, reference)| ours.value / reference.value).collect()
    }

    /// The cells of this line, or nothing if it was not measured.
    fn cells(&self) -> Option<[String; 7]> {
        let values = |measured: &[Measured]| measured.iter().map(|one| one.value).collect::<Vec<_>>();
        let cost = |measured: &[Measured]| median(&measured.iter().filter_map(|one| one.cost).collect::<Vec<_>>());
        let (ours, reference) = (median(&values(&self.ours))?, median(&values(&self.reference))?);
        let ratios = self.ratios();
        let (ratio, (least, greatest)) = (median(&ratios)?, spread(&ratios)?);
        let unit = self.metric.unit;
        Some([
            self.metric.name.to_owned(),
            format!("{} {unit}", figure(ours)),
            format!("{} {unit}", figure(reference)),
            format!("{ratio:.2} ({least:.2} to {greatest:.2})"),
            match (cost(&self.ours), cost(&self.reference)) {
                (Some(ours), Some(reference)) => format!("{} / {} us", figure(ours), figure(reference)),
                _ => String::new(),
            },
            match self.metric.claim {
                Claim::RatioAtLeast(bound) => format!("ratio >= {bound}"),
                Claim::AtMost(bound) => format!("<= {bound} {unit}"),
                Claim::AtLeast(bound) => format!(">= {} {unit}", figure(bound)),
            },
            if self.metric.claim.is_met(ours, ratio) { "yes" } else { "no" }.to_owned(),
        ])
    }
}

/// A value with three significant digits, large ones in thousands.
fn figure(value: f64) -> String {
    match value {
        value if value >= 100_000.0 => format!("{:.0}k", value / 1000.0),
        value if value >= 10_000.0 => format!("{:.1}k", value / 1000.0),
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

const HEADER: [&str; 7] = ["row", "ours", "reference", "ratio (spread)", "server time each", "claim", "met"];

impl fmt::Display for Table {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body = self.rows.iter().flatten().filter_map(Line::cells);
        let cells: Vec<[String; 7]> = std::iter::once(HEADER.map(str::to_owned)).chain(body).collect();
        let width = |column: usize| cells.iter().map(|line| line[column].len()).max().unwrap_or(0);
        let widths: [usize; 7] = std::array::from_fn(width);
        for (at, line) in cells.iter().enumerate() {
            for (cell, width) in line.iter().zip(widths) {
                write!(out, "| {cell:width$} ")?;
            }
            writeln!(out, "|")?;
            if at == 0 {
                widths.iter().try_for_each(|width| write!(out, "|{:-<1$}", "", width + 2))?;
                writeln!(out, "|")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(ours: &[f64], reference: &[f64]) -> String {
        let mut table = Table::new(&[Row::Echo]);
        for (side, values) in [(Side::Ours, ours), (Side::Reference, reference)] {
            for &value in values {
                table.add(0, side, vec![Measured { value, cost: None }]);
            }
        }
        table.to_string()
    }

    #[test]
    fn the_ratio_is_the_median_of_the_ratios_of_each_run() {
        // The machine was half as fast in the last run: for both.
        assert!(told(&[190.0, 192.0, 95.0], &[200.0, 200.0, 100.0]).contains("0.95 (0.95 to 0.96)"));
    }

    #[test]
    fn a_missed_claim_is_said() {
        assert!(told(&[90.0], &[100.0]).trim_end().ends_with("| no  |"));
        assert!(told(&[95.0], &[100.0]).trim_end().ends_with("| yes |"));
    }

    #[test]
    fn a_claim_of_a_figure_minds_no_ratio() {
        assert!(Claim::AtLeast(700.0).is_met(700.0, 0.05));
        assert!(!Claim::AtLeast(700.0).is_met(699.0, 2.0));
    }

    #[test]
    fn a_row_that_was_not_measured_is_not_told() {
        assert_eq!(Table::new(&[Row::Hello]).to_string().lines().count(), 2);
    }

    #[test]
    fn figures_have_three_digits() {
        assert_eq!([1.456, 14.56, 145.6, 14_560.0, 145_600.0].map(figure), ["1.46", "14.6", "146", "14.6k", "146k"]);
    }
}
