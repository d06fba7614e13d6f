//! Where a key stands in coracle.yaml: the parser tells places only of what is wrong.
#![forbid(unsafe_code)]

/// The line and column, from 1, of a key such as `partitions.gpu.signers`; where the file has it in braces or in another
/// way that does not show it by its indentation, those of the last key on the way to it that is shown.
pub fn place_of(text: &str, keys: &[&str]) -> Option<(usize, usize)> {
    let lines: Vec<(usize, usize, &str)> = text.lines().enumerate().filter_map(line).collect();
    let (mut found, mut rest, mut outer) = (None, lines.as_slice(), None);
    for key in keys {
        // What is inside the key before, and nothing that comes behind it.
        let end = outer.and_then(|outer| rest.iter().position(|(_, indent, _)| *indent <= outer));
        rest = &rest[..end.unwrap_or(rest.len())];
        let Some(indent) = rest.first().map(|(_, indent, _)| *indent) else { break };
        let at = rest.iter().position(|(_, column, line)| *column == indent && is_key(line, key));
        let Some(at) = at else { break };
        found = Some((rest[at].0 + 1, indent + 1));
        (rest, outer) = (&rest[at + 1..], Some(indent));
    }
    found
}

/// A line with its number and indentation, if it is more than a comment.
fn line((number, line): (usize, &str)) -> Option<(usize, usize, &str)> {
    let rest = line.trim_start_matches(' ');
    let shown = !rest.is_empty() && !rest.starts_with('#') && rest != "---";
    shown.then_some((number, line.len() - rest.len(), rest))
}

fn is_key(line: &str, key: &str) -> bool {
    let rest = ['"', '\''].iter().find_map(|quote| line.strip_prefix(*quote)?.strip_prefix(key)?.strip_prefix(*quote));
    rest.or_else(|| line.strip_prefix(key)).is_some_and(|rest| rest.trim_start().starts_with(':'))
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
    }
}
