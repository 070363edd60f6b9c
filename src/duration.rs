//! Durations in the form `750ms`, `1.5s`, `2m`.

use std::time::Duration;

/// The longest duration that is accepted: a longer one is probably a wrong unit.
const MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Reads a duration: a number, perhaps with a fraction, and a unit out of ms, s, m, h.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("'{text}' is not a duration (examples: 750ms, 1.5s, 2m)");
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
    let (number, unit) = text.split_at(digits);
    let seconds = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(wrong()),
    };
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let duration = Duration::try_from_secs_f64(number * seconds).map_err(|_| wrong())?;
    if duration > MAX {
        return Err(format!("'{text}' is longer than the maximum of 24h"));
    }
    Ok(duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_with_units_are_read() {
        for (text, ms) in
            [("750ms", 750), ("1.5s", 1_500), ("10s", 10_000), ("2m", 120_000), ("0s", 0), ("1h", 3_600_000)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
    }

    #[test]
    fn other_texts_are_not_durations() {
        for text in ["", "5", "s", "-1s", "1 s", "1e3s", "1..5s", ".s", "NaNs", "1d", "1s2", "99999h", "1sm", "٣s"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
