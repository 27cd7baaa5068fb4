//! Values with a unit, as people write them: `100ms`, `32MiB`.
//!
//! Promises: a number without its unit is refused where the unit could be mistaken; zero is refused
//! where it has no meaning.
//! Must not: round. Fails: with a sentence that shows how to write it.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;

/// A length of time, more than nothing: `25s`, `100ms`, `1m 30s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Span(Duration);

impl From<Duration> for Span {
    fn from(duration: Duration) -> Self {
        Self(duration)
    }
}

impl From<Span> for Duration {
    fn from(span: Span) -> Self {
        span.0
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse()? {
            SpanOrZero(Duration::ZERO) => Err("must be longer than nothing".to_owned()),
            SpanOrZero(duration) => Ok(Self(duration)),
        }
    }
}

impl TryFrom<String> for Span {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// A length of time that may be nothing: `10m`, `0s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct SpanOrZero(Duration);

impl From<SpanOrZero> for Duration {
    fn from(span: SpanOrZero) -> Self {
        span.0
    }
}

impl FromStr for SpanOrZero {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        humantime::parse_duration(text.trim())
            .map(Self)
            .map_err(|_| format!("{text:?} is not a length of time; write it like 100ms or 25s"))
    }
}

impl TryFrom<String> for SpanOrZero {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// A number of bytes, more than nothing: `32MiB`, `900kB`, `4096B`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct ByteSize(usize);

/// What each unit stands for.
const UNITS: &[(&str, usize)] = &[
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

impl ByteSize {
    /// The number.
    pub fn bytes(self) -> usize {
        self.0
    }
}

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let shown = || format!("{text:?} is not a size; write it like 32MiB, 900kB or 4096B");
        let text = text.trim();
        let digits_end = text.find(|character: char| !character.is_ascii_digit());
        let (digits, unit) = text.split_at(digits_end.ok_or_else(shown)?);
        let number: usize = digits.parse().map_err(|_| shown())?;
        let unit = unit.trim_start();
        let (_, factor) =
            UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).ok_or_else(shown)?;
        match number.checked_mul(*factor) {
            None => Err(format!("{text:?} is more than this machine can count")),
            Some(0) => Err("must be more than nothing".to_owned()),
            Some(bytes) => Ok(Self(bytes)),
        }
    }
}

impl TryFrom<String> for ByteSize {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// Text that logs and errors must not show.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl FromStr for Secret {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("***")
    }
}

/// A size as people read it, with one decimal: `12.3 MiB`.
pub fn show_bytes(bytes: u64) -> String {
    let unit = UNITS[..3].iter().find(|(_, factor)| bytes >= *factor as u64);
    match unit {
        // Sizes that people look at are far below 2^53, so the division is exact enough.
        Some((name, factor)) => format!("{:.1} {name}", bytes as f64 / *factor as f64),
        None => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_lengths_of_time() {
        let span = |text: &str| text.parse::<Span>().map(Duration::from);
        assert_eq!(span("100ms"), Ok(Duration::from_millis(100)));
        assert_eq!(span("1m 30s"), Ok(Duration::from_secs(90)));
        assert!(span("0s").unwrap_err().contains("longer than nothing"));
        assert!(span("25").unwrap_err().contains("25s"), "a number has no unit");
        assert!(span("-1s").is_err());
        let window = |text: &str| text.parse::<SpanOrZero>().map(Duration::from);
        assert_eq!(window("0s"), Ok(Duration::ZERO));
        assert_eq!(window(" 10m"), Ok(Duration::from_secs(600)));
        assert!(window("10").unwrap_err().contains("25s"), "a number has no unit");
    }

    #[test]
    fn reads_sizes() {
        let size = |text: &str| text.parse::<ByteSize>().map(ByteSize::bytes);
        assert_eq!(size("32MiB"), Ok(32 << 20));
        assert_eq!(size("32 mib"), Ok(32 << 20));
        assert_eq!(size("900kB"), Ok(900_000));
        assert_eq!(size("7B"), Ok(7));
        for bad in ["32", "MiB", "3.5MiB", "-1B", "1TB", "", "99999999999999999999B"] {
            assert!(size(bad).unwrap_err().contains("32MiB"), "{bad}");
        }
        assert!(size("99999999999999GiB").unwrap_err().contains("more than"));
        assert!(size("0B").unwrap_err().contains("nothing"));
    }

    #[test]
    fn shows_sizes() {
        assert_eq!(show_bytes(17), "17 B");
        assert_eq!(show_bytes(1_536), "1.5 KiB");
        assert_eq!(show_bytes(5 << 30), "5.0 GiB");
    }

    #[test]
    fn a_secret_stays_one() {
        let secret: Secret = "postgres://u:hush@h/d".parse().unwrap();
        assert!(!format!("{secret:?}").contains("hush"));
    }
}
