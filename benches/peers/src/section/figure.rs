//! One figure: its rounds, their median, and how it is written.

use serde_json::{Value, json};

/// What a figure counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Operations per second: more is better.
    PerSecond,
    /// Bytes copied per second: more is better.
    BytesPerSecond,
    /// A time: less is better.
    Nanos,
    /// A size: less is better.
    Bytes,
    /// A size divided by a number of records: less is better.
    BytesPerRecord,
    /// A size divided by the bytes of live keys and values: less is better.
    TimesLive,
    /// A number.
    Count,
    /// Something divided by the same of another kind.
    Ratio,
}

impl Unit {
    /// For programs.
    pub fn name(self) -> &'static str {
        match self {
            Unit::PerSecond => "1/s",
            Unit::BytesPerSecond => "B/s",
            Unit::Nanos => "ns",
            Unit::Bytes => "B",
            Unit::BytesPerRecord => "B/record",
            Unit::TimesLive | Unit::Count | Unit::Ratio => "1",
        }
    }

    /// True if more is better.
    pub fn is_rate(self) -> bool {
        matches!(self, Unit::PerSecond | Unit::BytesPerSecond)
    }

    /// True if figures in this unit can be compared with those of others.
    pub fn is_compared(self) -> bool {
        !matches!(self, Unit::Count | Unit::Ratio)
    }

    /// For people: with a unit of a fitting size.
    pub fn text(self, value: f64) -> String {
        if value == 0.0 {
            return "0".to_string();
        }
        let scaled = |units: &[(f64, &str)]| {
            let (size, unit) =
                units.iter().find(|(size, _)| value >= *size).or(units.last()).copied().unwrap_or((1.0, ""));
            format!("{} {unit}", three_digits(value / size)).trim_end().to_string()
        };
        match self {
            Unit::PerSecond => scaled(&[(1e6, "M/s"), (1e3, "k/s"), (1.0, "/s")]),
            Unit::BytesPerSecond => scaled(&[(1e9, "GB/s"), (1e6, "MB/s"), (1.0, "B/s")]),
            Unit::Nanos => scaled(&[(1e9, "s"), (1e6, "ms"), (1e3, "us"), (1.0, "ns")]),
            Unit::Bytes => {
                scaled(&[(1024.0 * 1024.0 * 1024.0, "GiB"), (1024.0 * 1024.0, "MiB"), (1024.0, "KiB"), (1.0, "B")])
            }
            Unit::BytesPerRecord => format!("{value:.1} B"),
            Unit::TimesLive => format!("{} x live", three_digits(value)),
            Unit::Count if value < 1e3 => format!("{value:.0}"),
            Unit::Count => scaled(&[(1e6, "M"), (1e3, "k")]),
            Unit::Ratio => three_digits(value),
        }
    }
}

fn three_digits(value: f64) -> String {
    let decimals = match value.abs() {
        ..0.0995 => 4,
        ..9.995 => 2,
        9.995..99.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$}")
}

/// A figure, measured once or more often.
#[derive(Debug, Clone, Default)]
pub struct Measured {
    rounds: Vec<f64>,
    remark: Option<String>,
}

impl Measured {
    /// Adds a round.
    pub fn push(&mut self, value: f64) {
        self.rounds.push(value);
    }

    /// Adds a few words to be shown beside the figure.
    pub fn remark(&mut self, remark: String) {
        self.remark = Some(remark);
    }

    /// True if it was not measured.
    pub fn is_empty(&self) -> bool {
        self.rounds.is_empty()
    }

    /// The worst round of a figure of which less is better.
    pub fn max(&self) -> f64 {
        self.rounds.iter().copied().fold(f64::NAN, f64::max)
    }

    /// The median of the rounds.
    pub fn median(&self) -> f64 {
        median(&self.rounds)
    }

    /// The median of the rounds' ratios; of figures with different numbers of rounds, the ratio of the medians.
    pub fn ratio(over: &Measured, under: &Measured) -> Option<f64> {
        let ratio = if over.rounds.len() == under.rounds.len() {
            median(&over.rounds.iter().zip(&under.rounds).map(|(over, under)| over / under).collect::<Vec<_>>())
        } else {
            over.median() / under.median()
        };
        ratio.is_finite().then_some(ratio)
    }

    /// For people.
    pub fn text(&self, unit: Unit) -> String {
        let remark = self.remark.as_ref().map_or_else(String::new, |remark| format!(" ({remark})"));
        format!("{}{remark}", unit.text(self.median()))
    }

    /// For programs.
    pub fn json(&self) -> Value {
        json!({ "median": self.median(), "rounds": self.rounds, "remark": self.remark })
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(rounds: &[f64]) -> Measured {
        Measured { rounds: rounds.to_vec(), remark: None }
    }

    #[test]
    fn medians() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        // The machine was half as fast in the second round: the ratio does not see it.
        let ratio = Measured::ratio(&measured(&[2.0, 1.0]), &measured(&[4.0, 2.0]));
        assert_eq!(ratio, Some(0.5));
        assert_eq!(Measured::ratio(&measured(&[2.0, 4.0]), &measured(&[1.0])), Some(3.0));
        assert_eq!(Measured::ratio(&measured(&[2.0]), &measured(&[0.0])), None);
    }

    #[test]
    fn figures_for_people() {
        for (unit, value, text) in [
            (Unit::PerSecond, 1_234_567.0, "1.23 M/s"),
            (Unit::PerSecond, 45_678.0, "45.7 k/s"),
            (Unit::PerSecond, 12.0, "12.0 /s"),
            (Unit::BytesPerSecond, 1.99e10, "19.9 GB/s"),
            (Unit::Nanos, 421.0, "421 ns"),
            (Unit::Nanos, 32_400_000.0, "32.4 ms"),
            (Unit::Bytes, 3.5 * 1024.0 * 1024.0, "3.50 MiB"),
            (Unit::BytesPerRecord, 19.96, "20.0 B"),
            (Unit::Count, 500_000.0, "500 k"),
            (Unit::Count, 7.0, "7"),
            (Unit::Count, 0.0, "0"),
            (Unit::TimesLive, 1.155, "1.16 x live"),
            (Unit::Ratio, 0.5, "0.50"),
            (Unit::Ratio, 0.00123, "0.0012"),
            (Unit::Ratio, 10_983.5, "10984"),
        ] {
            assert_eq!(unit.text(value), text);
        }
    }
}
