//! Provides the times that are written into images.
#![forbid(unsafe_code)]

use std::time::{SystemTime, UNIX_EPOCH};

use coracle::report::{Kind, Refusal};

/// Time of creation of an image, in seconds since 1970.
pub fn creation() -> Result<i64, Refusal> {
    Ok(source_date_epoch()?.unwrap_or_else(now))
}

/// Seconds since 1970.
pub fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).ok().and_then(|since| i64::try_from(since.as_secs()).ok()).unwrap_or(0)
}

/// Time of all files of a reproducible image (reproducible-builds.org, SOURCE_DATE_EPOCH), in seconds.
pub fn source_date_epoch() -> Result<Option<i64>, Refusal> {
    let Some(text) = std::env::var_os("SOURCE_DATE_EPOCH") else { return Ok(None) };
    let number = text.to_str().and_then(|text| text.parse::<u32>().ok());
    let refuse =
        || Refusal::new(Kind::Usage, "SOURCE_DATE_EPOCH", format!("{text:?} is no number of seconds since 1970"));
    number.map(|number| Some(i64::from(number))).ok_or_else(refuse)
}
