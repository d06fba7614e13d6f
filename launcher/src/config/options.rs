//! `options` of coracle.yaml: defaults for options that the user does not give.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::values::SiteValue;
use coracle::options::{OPTIONS, RawOptions};
use coracle::report::Refusal;
use coracle::request::Settings;

/// Defaults for options, with their names without `--container-` as keys.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Default)]
#[serde(try_from = "BTreeMap<String, SiteValue>")]
pub struct SiteOptions(pub Settings);

impl TryFrom<BTreeMap<String, SiteValue>> for SiteOptions {
    type Error = String;
    fn try_from(map: BTreeMap<String, SiteValue>) -> Result<Self, String> {
        let mut raw = RawOptions::default();
        for (key, value) in map {
            let spec = OPTIONS.iter().find(|spec| spec.key == key && spec.site);
            let spec = spec.ok_or_else(|| format!("unknown option `{key}`"))?;
            let values = match value {
                SiteValue::Flag(flag) => vec![if flag { "yes" } else { "no" }.to_owned()],
                SiteValue::Number(number) => vec![number.to_string()],
                SiteValue::Text(text) => vec![text],
                SiteValue::List(list) if spec.repeats => list,
                SiteValue::List(_) => return Err(format!("`{key}` takes one value, not a list")),
            };
            values.into_iter().for_each(|value| raw.take(spec, value.into()));
        }
        Settings::parse(&raw, Path::new("/")).map(Self).map_err(|error| {
            let refusal = Refusal::from(error);
            format!("{:?}: {}", refusal.object, refusal.cause)
        })
    }
}
