//! Keys and values from the command line, and the parsers of options that clap has none for.

use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use data_encoding::HEXLOWER_PERMISSIVE;
use tophash::SyncPolicy;

use crate::exit::BadInput;

/// The bytes of a key or value: as they are, or written in hex.
pub fn bytes(argument: &OsStr, hex: bool, what: &str) -> anyhow::Result<Vec<u8>> {
    // On Unix an OsStr is any bytes, and these are exactly them.
    let raw = argument.as_encoded_bytes();
    if hex { from_hex(raw, what) } else { Ok(raw.to_vec()) }
}

/// Decodes hex digits; white space around them is ignored, so that `xxd -p` output can be piped in.
pub fn from_hex(digits: &[u8], what: &str) -> anyhow::Result<Vec<u8>> {
    HEXLOWER_PERMISSIVE
        .decode(digits.trim_ascii())
        .map_err(|error| BadInput(format!("the {what} is not hex: {error}; without --hex it is taken as it is")).into())
}

/// True for the file name that means stdin or stdout.
pub fn is_dash(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// A file, or stdin for `-`.
pub fn open_input(path: &Path) -> anyhow::Result<Box<dyn BufRead>> {
    if is_dash(path) {
        Ok(Box::new(BufReader::with_capacity(1 << 16, io::stdin())))
    } else {
        let file = std::fs::File::open(path).with_context(|| format!("open {}", path.display()))?;
        Ok(Box::new(BufReader::with_capacity(1 << 16, file)))
    }
}

/// Parses `manual`, `always` or `every=MILLISECONDS`.
pub fn sync_policy(text: &str) -> Result<SyncPolicy, String> {
    let millis = match text {
        "manual" => return Ok(SyncPolicy::Manual),
        "always" => return Ok(SyncPolicy::Always),
        _ => text.strip_prefix("every=").and_then(|millis| millis.parse::<u64>().ok()),
    };
    match millis {
        Some(0) => Err("an interval of zero: use always".to_string()),
        Some(millis) => Ok(SyncPolicy::Every(Duration::from_millis(millis))),
        None => Err("expected manual, always or every=MILLISECONDS, as in every=100".to_string()),
    }
}

/// Parses how long a record lives: numbers with units, as in `30m` or `1h 30m`.
pub fn lifetime(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(time) if time.as_millis() == 0 => {
            Err("a record that expires at once; `tophash del` removes a key".to_string())
        }
        Ok(time) => Ok(time),
        Err(error) => Err(format!("{error}; expected a length of time, as in 90s, 30m, 12h or 7days")),
    }
}

/// Parses when a record expires: a time in UTC that has not passed, as in `2030-12-24T18:00:00Z`.
pub fn deadline(text: &str) -> Result<SystemTime, String> {
    let time = humantime::parse_rfc3339_weak(text)
        .map_err(|error| format!("{error}; expected a time in UTC, as in 2030-12-24T18:00:00Z"))?;
    if time <= SystemTime::now() {
        return Err("that time has passed; `tophash del` removes a key".to_string());
    }
    Ok(time)
}

/// Parses a number of bytes: digits, and K, M, G or T for powers of 1024 (KiB and KB are taken for the same).
pub fn byte_size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        unit => return Err(format!("unknown unit {unit}; use K, M, G or T")),
    };
    let number: u64 = digits.replace('_', "").parse().map_err(|_| "expected a number, as in 64M".to_string())?;
    number.checked_mul(1 << shift).ok_or_else(|| "too large".to_string())
}

/// Permissions of files in octal, as `chmod` takes them: readable and writable for the owner, executable for nobody.
pub fn file_mode(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8).map_err(|_| "expected permissions in octal, as in 640".to_string())?;
    if mode & !0o666 != 0 || mode & 0o600 != 0o600 {
        return Err("files are read and written by their owner, and at most that by others: from 600 to 666".into());
    }
    Ok(mode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_raw_or_hex() {
        assert_eq!(bytes(OsStr::new("ab"), false, "key").unwrap(), b"ab");
        assert_eq!(bytes(OsStr::new("00fF"), true, "key").unwrap(), [0, 0xff]);
        assert_eq!(bytes(OsStr::new(""), true, "key").unwrap(), b"");
        assert_eq!(from_hex(b" 6162\n", "value").unwrap(), b"ab");
        for bad in ["0", "zz", "00 11"] {
            let error = bytes(OsStr::new(bad), true, "key").unwrap_err();
            assert!(error.is::<BadInput>(), "{bad}");
        }
    }

    #[test]
    fn sync_policies() {
        assert_eq!(sync_policy("manual"), Ok(SyncPolicy::Manual));
        assert_eq!(sync_policy("always"), Ok(SyncPolicy::Always));
        assert_eq!(sync_policy("every=250"), Ok(SyncPolicy::Every(Duration::from_millis(250))));
        for bad in ["", "every", "every=", "every=0", "every=-1", "never"] {
            assert!(sync_policy(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn lifetimes() {
        assert_eq!(lifetime("30m"), Ok(Duration::from_secs(1800)));
        assert_eq!(lifetime("1h 30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(lifetime("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(lifetime("1.5h"), Ok(Duration::from_secs(5400)));
        for bad in ["", "30", "m", "-30m", "0s", "1us", "1h 30", "half an hour", "99999999999999999999d"] {
            assert!(lifetime(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn deadlines() {
        let millis =
            |text: &str| deadline(text).map(|time| time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis());
        assert_eq!(millis("3000-01-01T00:00:00.123Z"), Ok(32_503_680_000_123));
        assert_eq!(millis("3000-01-01 00:00:00"), Ok(32_503_680_000_000));
        for bad in ["", "tomorrow", "3000", "3000-01-01", "3000-13-01T00:00:00Z", "2001-02-03T04:05:06Z"] {
            assert!(deadline(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn file_modes() {
        assert_eq!(file_mode("600"), Ok(0o600));
        assert_eq!(file_mode("0664"), Ok(0o664));
        for bad in ["", "0", "400", "700", "755", "680", "1600", "-600", "u+r"] {
            assert!(file_mode(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn byte_sizes() {
        assert_eq!(byte_size("0"), Ok(0));
        assert_eq!(byte_size("512MiB"), Ok(512 << 20));
        assert_eq!(byte_size("64k"), Ok(64 << 10));
        assert_eq!(byte_size("1_000"), Ok(1000));
        for bad in ["", "M", "1x", "-1", "1.5G", "99999999999999999999", "99999999T", "é"] {
            assert!(byte_size(bad).is_err(), "{bad}");
        }
    }
}
