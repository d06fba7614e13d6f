//! Compares the table with the parser, by changes to the examples of its keys.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::path::Path;

use coracle::options::OPTIONS;
use coracle::report::Refusal;
use serde_yaml::{Mapping, Value as Yaml};

use super::*;
use crate::config::Config;

/// Step from a value to one within it.
#[derive(Clone, PartialEq)]
enum Step {
    Key(&'static str),
    /// The first item or name that has the key behind it; any, if that is empty.
    Any,
}

/// Each key of the table with its path from the top level.
fn all() -> Vec<(Vec<Step>, &'static Key)> {
    fn add(path: &[Step], key: &'static Key, found: &mut Vec<(Vec<Step>, &'static Key)>) {
        let path = [path, &[Step::Key(key.name)]].concat();
        found.push((path.clone(), key));
        let within = if matches!(key.value, Value::Keys(_)) { path } else { [path, vec![Step::Any]].concat() };
        key.keys().iter().for_each(|key| add(&within, key, found));
    }
    let mut found = Vec::new();
    top().for_each(|key| add(&[], key, &mut found));
    found
}

/// Settings with the version, and with the example of the first key of a path.
fn example(path: &[Step]) -> Yaml {
    let Step::Key(name) = &path[0] else { panic!("a path starts with a key") };
    let key = top().find(|key| key.name == *name).unwrap();
    let lines: String =
        key.example.lines().map(|line| line.strip_prefix('#').unwrap_or(line).to_owned() + "\n").collect();
    let mut settings: Mapping = serde_yaml::from_str(&lines).unwrap_or_else(|error| panic!("{name}: {error}: {lines}"));
    settings.insert("version".into(), 1.into());
    Yaml::Mapping(settings)
}

/// Value that encloses the last key of a path.
fn parent<'a>(mut value: &'a mut Yaml, path: &[Step]) -> &'a mut Mapping {
    for (index, step) in path[..path.len() - 1].iter().enumerate() {
        let next = match &path[index + 1] {
            Step::Key(name) => Some(*name).filter(|name| !name.is_empty()),
            Step::Any => None,
        };
        let has = |value: &Yaml| next.is_none_or(|next| value.get(next).is_some());
        let found = match (step, value) {
            (Step::Key(name), Yaml::Mapping(keys)) => keys.get_mut(*name),
            (Step::Any, Yaml::Mapping(names)) => names.values_mut().find(|value| has(value)),
            (Step::Any, Yaml::Sequence(items)) => items.iter_mut().find(|value| has(value)),
            _ => None,
        };
        value = found.unwrap_or_else(|| panic!("the example has no {}", shown(path)));
    }
    value.as_mapping_mut().unwrap()
}

fn shown(path: &[Step]) -> String {
    let words = path.iter().map(|step| match step {
        Step::Key(name) => name,
        Step::Any => "*",
    });
    words.collect::<Vec<_>>().join(".")
}

fn parse(settings: &Yaml) -> Result<Config, Refusal> {
    Config::parse(Path::new("c.yaml"), &serde_yaml::to_string(settings).unwrap()).map_err(Refusal::from)
}

/// Settings of a key's example, with this value in place of the key's, or without the key.
fn with(path: &[Step], value: Option<&str>) -> Result<Config, Refusal> {
    let mut settings = example(path);
    let keys = parent(&mut settings, path);
    let Some(Step::Key(name)) = path.last() else { panic!("a path ends with a key") };
    match value {
        Some(value) => drop(keys.insert((*name).into(), serde_yaml::from_str(value).unwrap())),
        None => assert!(keys.remove(*name).is_some(), "the example has no {}", shown(path)),
    }
    parse(&settings)
}

#[track_caller]
fn accepted(path: &[Step], value: &str) {
    if let Err(refusal) = with(path, Some(value)) {
        panic!("{}: {value}: {refusal}", shown(path));
    }
}

#[track_caller]
fn refused(path: &[Step], value: &str) {
    let Err(refusal) = with(path, Some(value)) else { panic!("{}: {value} is accepted", shown(path)) };
    assert!(refusal.line().ends_with("[config]"), "{refusal}");
}

/// Names in backquotes behind "expected" in the parser's refusal of an unknown key.
fn expected(refusal: &Refusal) -> BTreeSet<String> {
    let (_, names) = refusal.cause.split_once(", expected ").unwrap_or_else(|| panic!("{refusal}"));
    names.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn names<'a>(keys: impl IntoIterator<Item = &'a Key>) -> BTreeSet<String> {
    keys.into_iter().map(|key| key.name.to_owned()).collect()
}

#[test]
fn each_structure_of_the_parser_has_the_keys_of_the_table() {
    let unknown = |path: &[Step]| {
        let mut settings = example(path);
        parent(&mut settings, path).insert("unknown".into(), 1.into());
        let refusal = parse(&settings).expect_err(&shown(path));
        assert!(refusal.cause.contains("unknown field `unknown`"), "{refusal}");
        assert!(refusal.hint.as_ref().is_some_and(|hint| hint.starts_with("no container starts")), "{refusal}");
        expected(&refusal)
    };
    assert_eq!(unknown(&[Step::Key("version")]), names(top()));
    let mut structures = 0;
    for (path, key) in all() {
        let within = |steps: &[Step]| unknown(&[&path, steps].concat());
        let (found, wanted) = match key.value {
            Value::Keys(keys) => (within(&[Step::Key(keys[0].name)]), names(keys)),
            Value::Items(keys) | Value::Named(_, keys) => (within(&[Step::Any, Step::Key(keys[0].name)]), names(keys)),
            Value::Rules(_) => (within(&[Step::Any, Step::Key("")]), names(of_rules())),
            _ => continue,
        };
        assert_eq!(found, wanted, "{}", shown(&path));
        structures += 1;
    }
    assert!(structures >= 15, "{structures}");
}

#[test]
fn each_key_takes_the_values_of_the_table_and_no_others() {
    for (path, key) in all() {
        parse(&example(&path)).unwrap_or_else(|refusal| panic!("{}: {refusal}", shown(&path)));
        // The example has the key.
        if key.unset != Unset::Refused {
            with(&path, None).unwrap_or_else(|refusal| panic!("{}: {refusal}", shown(&path)));
        }
        match key.value {
            Value::Words(words) => {
                words.iter().for_each(|(word, _)| accepted(&path, word));
                refused(&path, "unknown");
            }
            Value::YesNo => {
                ["yes", "no", "true", "false"].iter().for_each(|word| accepted(&path, word));
                refused(&path, "maybe");
            }
            Value::Number(least, most) => {
                [least, most].iter().for_each(|number| accepted(&path, &number.to_string()));
                [least - 1, most + 1].iter().for_each(|number| refused(&path, &number.to_string()));
            }
            Value::Size => {
                ["'4096'", "5k", "5m", "5g", "5t"].iter().for_each(|size| accepted(&path, size));
                refused(&path, "big");
            }
            Value::Path => {
                accepted(&path, "/a/b");
                refused(&path, "a/b");
            }
            Value::Text(_) => refused(&path, "[a]"),
            Value::List(_) | Value::Items(_) => refused(&path, "unknown"),
            Value::Keys(_) | Value::Named(..) | Value::Rules(_) | Value::Options => refused(&path, "7"),
        }
        if !key.or.is_empty() {
            accepted(&path, &key.or.replace(", …", ""));
        }
    }
}

#[test]
fn each_default_of_the_table_is_the_parsers() {
    let mut values = 0;
    for (path, key) in all() {
        let without = with(&path, None);
        match key.unset {
            Unset::Value(value) => {
                assert_eq!(with(&path, Some(value)).unwrap(), without.unwrap(), "{}: {value}", shown(&path));
                values += 1;
            }
            Unset::Refused => {
                let cause = without.expect_err(&shown(&path)).cause;
                assert!(cause.contains(&format!("missing field `{}`", key.name)), "{cause}");
            }
            Unset::Found(_) | Unset::Nothing => drop(without.unwrap()),
        }
    }
    assert!(values > 30, "{values}");
}

#[test]
fn a_rule_has_each_key_that_the_table_gives_to_scopes() {
    for scope in top().filter(|key| matches!(key.value, Value::Rules(_))) {
        for key in of_rules() {
            let top = [Step::Key(key.name)];
            let value = example(&top)[key.name].clone();
            let rule = Mapping::from_iter([(Yaml::from(key.name), value)]);
            let mut settings = example(&[Step::Key(scope.name)]);
            let names = settings[scope.name].as_mapping_mut().unwrap();
            names.values_mut().for_each(|value| *value = Yaml::Mapping(rule.clone()));
            let config = parse(&settings).unwrap_or_else(|refusal| panic!("{}.{}: {refusal}", scope.name, key.name));
            let everybody = parse(&example(&top)).unwrap().top();
            assert!(config.any_rule(|rule| *rule == everybody), "{}.{}", scope.name, key.name);
        }
    }
}

#[test]
fn options_of_the_site_are_those_of_the_table_of_options() {
    for spec in OPTIONS {
        let set = |value: &str| with(&[Step::Key("options")], Some(&format!("{{{}: {value}}}", spec.key)));
        let values = [spec.default.unwrap_or("auto"), "/directory", "VARIABLE"];
        assert_eq!(values.iter().any(|value| set(value).is_ok()), spec.site, "{}", spec.key);
    }
}

#[test]
fn names_and_texts_are_complete() {
    let mut known = BTreeSet::new();
    for (path, key) in all() {
        assert!(known.insert(shown(&path)), "{} is there twice", shown(&path));
        assert!(key.text.ends_with('.') && key.text.matches('`').count() % 2 == 0, "{}: {}", shown(&path), key.text);
        assert_eq!(key.example.is_empty(), path.len() > 1, "{}", shown(&path));
    }
}
