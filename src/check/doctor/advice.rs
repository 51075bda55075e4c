//! Advice: a finding, how much it matters, and what to do about it.

use std::fmt;
use std::str::FromStr;

#[cfg(feature = "serde")]
use serde::{Deserialize, Serialize};

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(Serialize, Deserialize), serde(rename_all = "lowercase"))]
#[non_exhaustive]
pub enum Severity {
    /// Good to know; nothing need be done.
    Info,
    /// Costs time or space that can be had back.
    Warning,
    /// Costs much of either, or will end in an error if nothing is done.
    Critical,
}

impl Severity {
    /// Every severity, the least one first.
    const ALL: [Severity; 3] = [Severity::Info, Severity::Warning, Severity::Critical];
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Critical => "critical",
        })
    }
}

impl FromStr for Severity {
    type Err = ParseSeverityError;

    /// Reads the words that `Display` writes.
    fn from_str(text: &str) -> Result<Self, ParseSeverityError> {
        let named = |severity: &Severity| severity.to_string() == text;
        Severity::ALL.into_iter().find(named).ok_or_else(|| ParseSeverityError { text: text.to_string() })
    }
}

/// A text names no [`Severity`]. Its message tells the words that do.
///
/// ```
/// let error = "fatal".parse::<tophash::doctor::Severity>().unwrap_err();
/// assert_eq!(error.to_string(), "`fatal` is no severity: expected info, warning or critical");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseSeverityError {
    text: String,
}

impl fmt::Display for ParseSeverityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [info, warning, critical] = Severity::ALL;
        write!(f, "`{}` is no severity: expected {info}, {warning} or {critical}", self.text)
    }
}

impl std::error::Error for ParseSeverityError {}

/// A finding with what to do about it.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(Serialize, Deserialize))]
#[non_exhaustive]
pub struct Advice {
    /// The rule's stable name, as in `dead-log`.
    pub rule: String,
    /// How much it matters.
    pub severity: Severity,
    /// What was found, in words and figures.
    #[cfg_attr(feature = "serde", serde(default))]
    pub finding: String,
    /// Why that matters.
    #[cfg_attr(feature = "serde", serde(default))]
    pub reason: String,
    /// The command, option or call that acts on it.
    #[cfg_attr(feature = "serde", serde(default))]
    pub action: String,
    /// What the rule measured.
    #[cfg_attr(feature = "serde", serde(default))]
    pub measured: f64,
    /// The least figure of this severity.
    #[cfg_attr(feature = "serde", serde(default))]
    pub threshold: f64,
}

impl Advice {
    /// Advice of a rule that the caller has of its own, to be shown beside the store's. Texts are empty and figures
    /// zero until they are set.
    ///
    /// ```
    /// use tophash::doctor::{Advice, Severity};
    /// let mut advice = Advice::new("old-backup", Severity::Warning);
    /// advice.finding = "the last copy is 40 days old".into();
    /// advice.action = "copy the store tonight".into();
    /// ```
    #[must_use]
    pub fn new(rule: impl Into<String>, severity: Severity) -> Self {
        Advice {
            rule: rule.into(),
            severity,
            finding: String::new(),
            reason: String::new(),
            action: String::new(),
            measured: 0.0,
            threshold: 0.0,
        }
    }
}
