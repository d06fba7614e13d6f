//! Finds the place of a key in coracle.yaml: the parser reports places only of errors.
#![forbid(unsafe_code)]

/// Finds the line and column, from 1, of a key such as `partitions.gpu.signers`. If indentation does not show the key
/// (flow style in braces, for example), the result is the place of its last parent key that indentation shows.
pub fn place_of(text: &str, keys: &[&str]) -> Option<(usize, usize)> {
    let lines: Vec<(usize, usize, &str)> = text.lines().enumerate().flat_map(shown).collect();
    let (mut found, mut rest, mut outer) = (None, lines.as_slice(), None);
    for key in keys {
        // The content of the parent key ends where the indentation does.
        // Items of a list may have the same indentation as their key.
        let within = |outer: usize, indent: usize, line: &str| indent > outer || indent == outer && line == ITEM;
        let end = outer.and_then(|outer| rest.iter().position(|(_, indent, line)| !within(outer, *indent, line)));
        rest = &rest[..end.unwrap_or(rest.len())];
        let Some(indent) = rest.first().map(|(_, indent, _)| *indent) else { break };
        let number = key.strip_prefix('[').and_then(|number| number.strip_suffix(']')?.parse::<usize>().ok());
        let mut found_here = rest.iter().enumerate().filter(|(_, (_, column, line))| {
            *column == indent && if number.is_some() { *line == ITEM } else { is_key(line, key) }
        });
        let Some((at, _)) = found_here.nth(number.unwrap_or(0)) else { break };
        found = Some((rest[at].0 + 1, indent + 1));
        (rest, outer) = (&rest[at + 1..], Some(indent));
    }
    found
}

/// Start of a list item.
const ITEM: &str = "-";

/// Content of a line with its number and indentation; nothing for a comment. The start of a list item and the text
/// after it are two results.
fn shown((number, line): (usize, &str)) -> impl Iterator<Item = (usize, usize, &str)> {
    let rest = line.trim_start_matches(' ');
    let indent = line.len() - rest.len();
    let content = !rest.is_empty() && !rest.starts_with('#') && rest != "---";
    let item = rest.strip_prefix("- ").filter(|_| content);
    let first = content.then_some((number, indent, if item.is_some() { ITEM } else { rest }));
    let behind = item.map(|item| {
        let item_rest = item.trim_start_matches(' ');
        (number, line.len() - item_rest.len(), item_rest)
    });
    first.into_iter().chain(behind)
}

fn is_key(line: &str, key: &str) -> bool {
    let rest = ['"', '\''].iter().find_map(|quote| line.strip_prefix(*quote)?.strip_prefix(key)?.strip_prefix(*quote));
    rest.or_else(|| line.strip_prefix(key)).is_some_and(|rest| rest.trim_start().starts_with(':'))
}

/// Place of the key at the start of a message, such as `image_paths[1].owner: …`, or of the key below it that the
/// message names in backquotes.
pub(super) fn place_of_cause(text: &str, cause: &str) -> Option<(usize, usize)> {
    let path = cause.split(": ").next().filter(|path| *path != cause && !path.contains([' ', '`']))?;
    let path = path.replace('[', ".[");
    let mut keys: Vec<&str> = path.split('.').collect();
    keys.extend(cause.split('`').nth(1));
    place_of(text, &keys)
}

/// Place of the key that a message names in backquotes: some of the parser's errors have no place.
pub(super) fn find_key(text: &str, cause: &str) -> Option<(usize, usize)> {
    let key = cause.split('`').nth(1)?;
    text.lines().enumerate().find_map(|(index, line)| {
        let start = line.len() - line.trim_start_matches([' ', '-']).len();
        line[start..].strip_prefix(key)?.trim_start().starts_with(':').then_some((index + 1, start + 1))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_by_its_indentation() {
        let text = "version: 1\n# x\npartitions:\n  cpu:\n    signers: any\n  \"gpu\":\n    # no\n    required: yes\n\n    \
                    signers: [A]\nusers: {gpu: {signers: any}}\nsigners: any\n";
        for (keys, place) in [
            (&["version"][..], Some((1, 1))),
            (&["partitions", "gpu"], Some((6, 3))),
            (&["partitions", "cpu", "signers"], Some((5, 5))),
            (&["partitions", "gpu", "signers"], Some((10, 5))),
            (&["partitions", "cpu", "required"], Some((4, 3))),
            (&["users", "gpu", "signers"], Some((11, 1))),
            (&["signers"], Some((12, 1))),
            (&["groups", "gpu"], None),
        ] {
            assert_eq!(place_of(text, keys), place, "{keys:?}");
        }
        let text = "binds:\n- source: /a\n  mode: ro\n-   source: /b\n    mode: x\nimage_paths:\n  - path: /c\n  - /d\nlog: none\n";
        for (keys, place) in [
            (&["binds", "[0]", "mode"][..], (3, 3)),
            (&["binds", "[1]", "mode"], (5, 5)),
            (&["binds", "[1]", "source"], (4, 5)),
            (&["image_paths", "[0]", "path"], (7, 5)),
            (&["image_paths", "[1]"], (8, 3)),
            (&["image_paths", "[0]", "owner"], (7, 3)),
            (&["log"], (9, 1)),
        ] {
            assert_eq!(place_of(text, keys), Some(place), "{keys:?}");
        }
    }
}
