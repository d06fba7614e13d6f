//! Reads the mounts in an image's `/etc/fstab` (fstab(5)): enroot performs them, Coracle does not.
#![forbid(unsafe_code)]

/// Path of the file in the image.
pub const PATH: &str = "/etc/fstab";
/// Maximum number of bytes that are read.
pub const LIMIT: u64 = 64 << 10;

/// Note about the mounts that `text` requests, if there are any.
pub fn note(text: &[u8]) -> Option<String> {
    let lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let places: Vec<String> = lines
        .filter(|line| !line.starts_with(b"#"))
        .filter_map(|line| line.split(u8::is_ascii_whitespace).filter(|field| !field.is_empty()).nth(1))
        .map(|place| String::from_utf8_lossy(place).into_owned())
        .collect();
    let first = places.first()?;
    let shown = if places.len() == 1 { first.clone() } else { format!("{first} and {} more", places.len() - 1) };
    Some(format!("mounts of the image's {PATH} are not made: {shown}; --container-bind makes them"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mounts_are_told_of() {
        for none in ["", "\n\n", "# UNCONFIGURED FSTAB FOR BASE SYSTEM\n", "  # /dev/sda1 / ext4\nword\n"] {
            assert_eq!(note(none.as_bytes()), None, "{none:?}");
        }
        let one = "# <file system>\n\n\t/data /mnt/data none bind,x-create=dir 0 0\n";
        let said = note(one.as_bytes()).unwrap();
        assert_eq!(said, "mounts of the image's /etc/fstab are not made: /mnt/data; --container-bind makes them");
        let two = "tmpfs /run tmpfs\nUUID=1 /\n";
        assert!(note(two.as_bytes()).unwrap().contains("not made: /run and 1 more;"));
    }
}
