//! `devices:` of coracle.yaml: device nodes that containers have.
#![forbid(unsafe_code)]

use std::path::Path;

use glob::{MatchOptions, Pattern as Glob};
use serde::Deserialize;

/// Rules in the order of the file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct DeviceRules(Vec<DeviceRule>);

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct DeviceRule {
    path: Pattern,
    #[serde(default)]
    rule: AllowDeny,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
enum AllowDeny {
    #[default]
    Allow,
    Deny,
}

/// Pattern of device nodes below /dev: `*` and `?` match no slash, `**` matches any number of directories (glob(7)).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
struct Pattern(Glob);

impl TryFrom<String> for Pattern {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let below = text.strip_prefix("/dev/").filter(|rest| !rest.is_empty());
        if below.is_none_or(|rest| rest.split('/').any(|name| matches!(name, "" | "." | ".."))) {
            return Err(format!("{text:?} is no path below /dev"));
        }
        Glob::new(&text).map(Self).map_err(|error| format!("{text:?}: {}", error.msg))
    }
}

const PLAIN: MatchOptions =
    MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: false };

impl DeviceRules {
    /// Last rule about `path`, if there is one.
    pub fn allow(&self, path: &Path) -> Option<bool> {
        let about = |rule: &&DeviceRule| rule.path.0.matches_path_with(path, PLAIN);
        self.0.iter().rfind(about).map(|rule| rule.rule == AllowDeny::Allow)
    }
}
