//! Reads JSON as programs in Go write it.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use serde::Deserialize;

/// Reads null as the default: Go writes it for an empty list, and Docker for fields that an image does not have.
pub fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// Reads a map without the keys whose value is null.
pub fn without_nulls<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<BTreeMap<String, String>>, D::Error> {
    let read = Option::<BTreeMap<String, Option<String>>>::deserialize(deserializer)?;
    Ok(read.map(|map| map.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()))
}
