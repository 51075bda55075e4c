//! Reading a trace.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use anyhow::{Context, anyhow, bail};

use super::{Entry, HEAD};
use crate::exit::Interrupted;
use crate::interrupt;

/// A line that is longer than this is none.
const LINE_BYTES_MAX: u64 = 4096;

/// Calls `each` with every call of the trace in a file.
pub fn each(path: &Path, each: &mut dyn FnMut(Entry)) -> anyhow::Result<()> {
    let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    lines(&mut BufReader::with_capacity(1 << 20, file), each).with_context(|| format!("read {}", path.display()))
}

fn lines(reader: &mut impl BufRead, each: &mut dyn FnMut(Entry)) -> anyhow::Result<()> {
    let mut line = String::new();
    for number in 1u64.. {
        if number.is_multiple_of(4096) && interrupt::requested() {
            return Err(Interrupted("the trace was not read to its end".into()).into());
        }
        line.clear();
        let bytes = reader.by_ref().take(LINE_BYTES_MAX).read_line(&mut line)?;
        if bytes == 0 {
            if number == 1 {
                bail!("it is empty; a trace begins with the line `{HEAD}`");
            }
            return Ok(());
        }
        if bytes as u64 == LINE_BYTES_MAX {
            bail!("line {number} is too long");
        }
        let text = line.trim_end();
        match number {
            1 if text == HEAD => {}
            1 => bail!("it is no trace that this version reads: a trace begins with the line `{HEAD}`"),
            _ if text.is_empty() || text.starts_with('#') => {}
            _ => each(text.parse().map_err(|why| anyhow!("line {number}: {why}"))?),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::Call;

    fn read(text: &str) -> Result<Vec<Call>, String> {
        let mut calls = Vec::new();
        lines(&mut text.as_bytes(), &mut |entry| calls.push(entry.call)).map_err(|error| error.to_string())?;
        Ok(calls)
    }

    #[test]
    fn remarks_and_empty_lines_are_passed_over() {
        let text = "tophash-trace 1\n# phase fill\n\n1 0 sync\n2 0 clear";
        assert_eq!(read(text), Ok(vec![Call::Sync, Call::Clear]));
    }

    #[test]
    fn what_is_no_trace_is_refused_by_its_line() {
        assert!(read("").unwrap_err().contains("empty"));
        assert!(read("{}\n").unwrap_err().contains("begins with"));
        assert!(read("tophash-trace 2\n").unwrap_err().contains("begins with"));
        assert!(read("tophash-trace 1\n\n1 0 jump\n").unwrap_err().starts_with("line 3: `jump`"));
        assert!(read(&format!("tophash-trace 1\n{}", "1".repeat(5000))).unwrap_err().contains("too long"));
    }
}
