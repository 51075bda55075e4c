//! What is going on, to stderr.

/// Writes a line to stderr. Where stderr is closed there is nobody to tell.
macro_rules! progress {
    ($($part:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($part)*);
    }};
}

pub(crate) use progress;
