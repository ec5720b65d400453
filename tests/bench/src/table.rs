//! One quantity, measured for several subjects in the same rounds.
//!
//! In:  samples by subject and round; which subjects the others are held against; targets.
//! Out: medians with their spread, ratios round by round, and whether a target is met; as text
//!      and as JSON.
//! Not here: measuring.
//!
//! A ratio is taken within each round before the median: what slows a round down slows both.

use std::fmt;

use comfy_table::{CellAlignment, ContentArrangement, presets};
use serde::{Serialize, Serializer};

/// The samples of one subject, one a round.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Row {
    pub(crate) subject: String,
    pub(crate) samples: Vec<f64>,
}

impl Row {
    pub(crate) fn new(subject: impl Into<String>) -> Self {
        Self {
            subject: subject.into(),
            samples: Vec::new(),
        }
    }
}

/// What a number must not pass.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Bound {
    fn holds(self, value: f64) -> bool {
        match self {
            Self::AtLeast(least) => value >= least,
            Self::AtMost(most) => value <= most,
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(least) => write!(f, "≥ {least}"),
            Self::AtMost(most) => write!(f, "≤ {most}"),
        }
    }
}

/// What a subject must reach.
#[derive(Clone, PartialEq, Debug)]
struct Target {
    subject: String,
    /// The other subject of a ratio; none for the value itself.
    against: Option<String>,
    bound: Bound,
}

/// Median and extremes.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Spread {
    /// Of these samples; `None` when there are none.
    fn of(samples: &[f64]) -> Option<Self> {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let upper = *sorted.get(middle)?;
        let lower = if sorted.len().is_multiple_of(2) {
            *sorted.get(middle.checked_sub(1)?)?
        } else {
            upper
        };
        Some(Self {
            median: f64::midpoint(lower, upper),
            least: *sorted.first()?,
            most: *sorted.last()?,
        })
    }

    fn text(&self, show: impl Fn(f64) -> String) -> String {
        let Self {
            median,
            least,
            most,
        } = *self;
        format!("{} ({}–{})", show(median), show(least), show(most))
    }
}

/// One quantity of several subjects.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Table {
    title: String,
    unit: &'static str,
    rows: Vec<Row>,
    baselines: Vec<String>,
    targets: Vec<Target>,
}

impl Table {
    pub(crate) fn new(title: impl Into<String>, unit: &'static str, rows: Vec<Row>) -> Self {
        Self {
            title: title.into(),
            unit,
            rows,
            baselines: Vec::new(),
            targets: Vec::new(),
        }
    }

    /// Shows a column of ratios to this subject.
    pub(crate) fn against(mut self, baseline: &str) -> Self {
        self.baselines.push(baseline.to_owned());
        self
    }

    /// The ratio of `subject` to `against` must keep to this.
    pub(crate) fn ratio_target(mut self, subject: &str, against: &str, bound: Bound) -> Self {
        self.targets.push(Target {
            subject: subject.to_owned(),
            against: Some(against.to_owned()),
            bound,
        });
        self
    }

    /// The value of `subject` must keep to this.
    pub(crate) fn target(mut self, subject: &str, bound: Bound) -> Self {
        self.targets.push(Target {
            subject: subject.to_owned(),
            against: None,
            bound,
        });
        self
    }

    fn row(&self, subject: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.subject == subject)
    }

    fn ratio(&self, row: &Row, against: &str) -> Option<Spread> {
        let base = self.row(against)?;
        let ratios: Vec<f64> = row
            .samples
            .iter()
            .zip(&base.samples)
            .map(|(value, base)| value / base)
            .collect();
        Spread::of(&ratios)
    }

    /// A target of this row: what must hold, and whether it does.
    fn verdict(&self, row: &Row, target: &Target) -> Option<bool> {
        let value = match &target.against {
            Some(against) => self.ratio(row, against)?.median,
            None => Spread::of(&row.samples)?.median,
        };
        Some(target.bound.holds(value))
    }

    fn targets_of<'a>(&'a self, row: &'a Row) -> impl Iterator<Item = &'a Target> {
        self.targets
            .iter()
            .filter(|target| target.subject == row.subject)
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = comfy_table::Table::new();
        shown
            .load_preset(presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Disabled);
        let mut header = vec![String::new(), self.unit.to_owned()];
        header.extend(self.baselines.iter().map(|name| format!("/ {name}")));
        if !self.targets.is_empty() {
            header.push("target".to_owned());
        }
        shown.set_header(header);
        for row in &self.rows {
            let text = |spread: Option<Spread>, show: fn(f64) -> String| {
                spread.map_or_else(|| "-".to_owned(), |spread| spread.text(show))
            };
            let mut cells = vec![row.subject.clone(), text(Spread::of(&row.samples), number)];
            cells.extend(
                self.baselines
                    .iter()
                    .map(|base| text(self.ratio(row, base), |ratio| format!("{ratio:.3}"))),
            );
            let targets: Vec<String> = self
                .targets_of(row)
                .map(|target| {
                    let against = match &target.against {
                        Some(name) => format!(" × {name}"),
                        None => format!(" {}", self.unit),
                    };
                    let met = match self.verdict(row, target) {
                        Some(true) => "met",
                        Some(false) => "MISSED",
                        None => "not measured",
                    };
                    format!("{}{against}: {met}", target.bound)
                })
                .collect();
            cells.push(targets.join(", "));
            shown.add_row(cells);
        }
        for column in shown.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        write!(f, "{} (median, extremes)\n{shown}", self.title)
    }
}

/// Enough digits to see a per mille, no more.
fn number(value: f64) -> String {
    let magnitude = value.abs();
    if magnitude >= 1000.0 {
        format!("{value:.0}")
    } else if magnitude >= 100.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.3}")
    }
}

impl Serialize for Table {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let rows: Vec<_> = self
            .rows
            .iter()
            .map(|row| {
                let ratios: serde_json::Map<_, _> = self
                    .baselines
                    .iter()
                    .map(|base| (base.clone(), serde_json::json!(self.ratio(row, base))))
                    .collect();
                let targets: Vec<_> = self
                    .targets_of(row)
                    .map(|target| {
                        serde_json::json!({
                            "against": target.against,
                            "bound": target.bound,
                            "met": self.verdict(row, target),
                        })
                    })
                    .collect();
                serde_json::json!({
                    "subject": row.subject,
                    "samples": row.samples,
                    "spread": Spread::of(&row.samples),
                    "ratios": ratios,
                    "targets": targets,
                })
            })
            .collect();
        serde_json::json!({ "title": self.title, "unit": self.unit, "rows": rows })
            .serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let row = |subject: &str, samples: &[f64]| Row {
            subject: subject.to_owned(),
            samples: samples.to_vec(),
        };
        // The machine was slow in the second round, for both.
        Table::new(
            "speed",
            "MB/s",
            vec![
                row("base", &[100.0, 50.0, 110.0]),
                row("ours", &[98.0, 49.0, 99.0]),
            ],
        )
        .against("base")
    }

    #[test]
    fn a_ratio_is_taken_within_its_round() {
        let table = table();
        let ratio = table.ratio(&table.rows[1], "base").unwrap();
        assert_eq!((ratio.median, ratio.most), (0.98, 0.98));
        assert!((ratio.least - 0.9).abs() < 1e-9);
    }

    #[test]
    fn a_missed_target_shows() {
        let met = table().ratio_target("ours", "base", Bound::AtLeast(0.98));
        assert!(met.to_string().contains("≥ 0.98 × base: met"), "{met}");
        let missed = table()
            .ratio_target("ours", "base", Bound::AtLeast(0.99))
            .target("base", Bound::AtMost(90.0));
        let text = missed.to_string();
        assert!(text.contains("≥ 0.99 × base: MISSED"), "{text}");
        assert!(text.contains("≤ 90 MB/s: MISSED"), "{text}");
        let json = serde_json::to_value(&missed).unwrap();
        assert_eq!(json["rows"][1]["targets"][0]["met"], false);
        assert_eq!(json["rows"][1]["ratios"]["base"]["median"], 0.98);
    }

    #[test]
    fn the_middle_of_an_even_number_lies_between_two() {
        let spread = Spread::of(&[4.0, 1.0, 2.0, 3.0]).unwrap();
        assert_eq!((spread.least, spread.median, spread.most), (1.0, 2.5, 4.0));
        assert_eq!(Spread::of(&[]), None);
    }
}
