//! Times as text: RFC 3339 in UTC with milliseconds, such as `2026-03-14T09:26:53.589Z`.
//!
//! Outside the store every time is text, since a number would make its reader guess the unit.
//! It writes one form and reads any that RFC 3339 allows. It reads no clock.

use jiff::Timestamp;
use superstep_protocol::UnixMillis;

/// A text that is no time, or one before 1970.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "`{0}` is not a time; write it as RFC 3339 with an offset, such as 2026-03-14T09:26:53.589Z"
)]
pub struct ParseTimeError(pub String);

/// `time` as text. What lies after the year 9999, which the text has no form for, becomes its
/// last second.
pub fn to_rfc3339(time: UnixMillis) -> String {
    let stamp = i64::try_from(time.0)
        .ok()
        .and_then(|millis| Timestamp::from_millisecond(millis).ok())
        .unwrap_or(Timestamp::MAX);
    format!("{stamp:.3}")
}

/// The time that `text` says, to the millisecond, rounded down.
///
/// # Errors
/// If it is not RFC 3339 with an offset, or before 1970.
pub fn from_rfc3339(text: &str) -> Result<UnixMillis, ParseTimeError> {
    text.parse::<Timestamp>()
        .ok()
        .and_then(|stamp| u64::try_from(stamp.as_millisecond()).ok())
        .map(UnixMillis)
        .ok_or_else(|| ParseTimeError(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(millis: u64, text: &str) {
        assert_eq!(to_rfc3339(UnixMillis(millis)), text);
        assert_eq!(from_rfc3339(text), Ok(UnixMillis(millis)));
    }

    #[test]
    fn times_go_to_text_and_back() {
        check(0, "1970-01-01T00:00:00.000Z");
        check(1, "1970-01-01T00:00:00.001Z");
        check(1_773_480_413_589, "2026-03-14T09:26:53.589Z");
        check(4_102_444_800_000, "2100-01-01T00:00:00.000Z");
    }

    #[test]
    fn other_offsets_and_precisions_are_read() {
        let expected = Ok(UnixMillis(1_773_480_413_589));
        assert_eq!(from_rfc3339("2026-03-14T10:26:53.589+01:00"), expected);
        assert_eq!(from_rfc3339("2026-03-14T09:26:53.5899999Z"), expected);
    }

    #[test]
    fn what_is_no_time_is_an_error() {
        for text in [
            "",
            "now",
            "2026-03-14",
            "2026-03-14T09:26:53",
            "1969-12-31T23:59:59.000Z",
        ] {
            assert_eq!(from_rfc3339(text), Err(ParseTimeError(text.to_owned())));
        }
    }

    #[test]
    fn a_time_beyond_the_calendar_is_its_end() {
        assert_eq!(to_rfc3339(UnixMillis(u64::MAX)), "9999-12-30T22:00:00.999Z");
    }
}
