//! Release of the running kernel, and releases from which on it can do something that containers have.
#![forbid(unsafe_code)]

/// The first kernel that maps owners of a squashfs.
pub const SQUASHFS_MAPPED: (u32, u32) = (6, 2);
/// The first kernel whose overlays take layers with mapped owners: before, a container could be refused for that.
pub const OVERLAYS_MAPPED: (u32, u32) = (5, 19);

/// Returns the release, as uname(2) has it.
pub fn release() -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    release.trim_end().to_owned()
}

/// Returns major and minor number of the release; nothing is older than 0.0.
pub fn version() -> (u32, u32) {
    let release = release();
    let mut numbers = release.split(|character: char| !character.is_ascii_digit()).map_while(|part| part.parse().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}
