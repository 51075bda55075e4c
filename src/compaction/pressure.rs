//! What writers have to do about a log that is over its bound.

/// How far the log is over its bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub(super) enum Pressure {
    None = 0,
    /// Writers help.
    Help = 1,
    /// Writers wait a little: what would free space is the checkpoint that is under way. Moving more records
    /// before it is done would only make the log longer.
    Wait = 2,
    /// The log is at its bound: writers wait for the checkpoint, or for whatever else is missing.
    Full = 3,
}

impl Pressure {
    /// The one that the number stands for.
    pub(super) fn from_word(word: u32) -> Self {
        match word {
            0 => Pressure::None,
            1 => Pressure::Help,
            2 => Pressure::Wait,
            _ => Pressure::Full,
        }
    }
}
