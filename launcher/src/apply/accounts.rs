//! Merges the image's /etc/passwd and /etc/group with the user's own lines for the container.
#![forbid(unsafe_code)]

use std::collections::HashSet;

/// Returns `image` with the added lines instead of the entries that they replace.
///
/// An added line replaces each entry with its name or number. The first match counts, so an image that gives the user's
/// number to `ubuntu` would make `id` print that name. Root's entry stays the image's, because its shell exists in the
/// image. `root` is root's line for an image without one.
pub fn merge(image: &str, added: &[String], root: &str) -> String {
    let added: Vec<&String> = added.iter().filter(|line| !line.is_empty() && number(line) != Some("0")).collect();
    let names: HashSet<_> = added.iter().map(|line| name(line)).collect();
    let numbers: HashSet<_> = added.iter().map(|line| number(line)).collect();
    let replaced =
        |line: &str| number(line) != Some("0") && (names.contains(&name(line)) || numbers.contains(&number(line)));
    let mut out = String::with_capacity(image.len() + 128);
    for line in image.lines().filter(|line| !line.is_empty() && !replaced(line)) {
        out.push_str(line);
        out.push('\n');
    }
    if !image.lines().any(|line| number(line) == Some("0")) {
        out.insert_str(0, root);
    }
    for line in added {
        out.push_str(line);
        out.push('\n');
    }
    out
}

/// Root's line for an /etc/passwd without one.
pub const PASSWD_ROOT: &str = "root:x:0:0:root:/root:/bin/sh\n";
/// Root's line for an /etc/group without one.
pub const GROUP_ROOT: &str = "root:x:0:\n";

fn name(line: &str) -> Option<&str> {
    line.split(':').next()
}

/// Third field of both files (passwd(5), group(5)).
fn number(line: &str) -> Option<&str> {
    line.split(':').nth(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: &str = "alice:x:2001:2001::/home/alice:/bin/bash";

    #[test]
    fn the_users_line_replaces_those_with_its_name_or_number() {
        let image = "root:x:0:0:root:/root:/bin/ash\nubuntu:x:2001:2001::/home/ubuntu:/bin/sh\nalice:x:7:7::/:/bin/sh\nlp:x:7:7::/:/bin/sh";
        let merged = merge(image, &[ALICE.to_owned()], PASSWD_ROOT);
        assert_eq!(merged, format!("root:x:0:0:root:/root:/bin/ash\nlp:x:7:7::/:/bin/sh\n{ALICE}\n"));
    }

    #[test]
    fn an_image_without_the_files_gets_root_and_the_user() {
        assert_eq!(merge("", &[ALICE.to_owned()], PASSWD_ROOT), format!("{PASSWD_ROOT}{ALICE}\n"));
        assert_eq!(merge("", &["proj:x:3001:".to_owned()], GROUP_ROOT), "root:x:0:\nproj:x:3001:\n");
    }

    #[test]
    fn root_stays_the_images() {
        let image = "root:x:0:0:root:/root:/bin/ash\n";
        assert_eq!(merge(image, &["root:x:0:0:root:/root:/bin/bash".to_owned()], PASSWD_ROOT), image);
    }
}
