//! Reports the release of the running kernel, and lists the first releases with features that containers use.
#![forbid(unsafe_code)]

/// First kernel that maps owners of a squashfs.
pub const SQUASHFS_MAPPED: (u32, u32) = (6, 2);
/// First kernel whose overlays accept layers with mapped owners: on earlier ones, such a layer could make a container
/// fail.
pub const OVERLAYS_MAPPED: (u32, u32) = (5, 19);

/// Returns the release as reported by uname(2).
pub fn release() -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    release.trim_end().to_owned()
}

/// Returns major and minor number of the release; 0.0, which is older than any, if it is unknown.
pub fn version() -> (u32, u32) {
    let release = release();
    let mut numbers = release.split(|character: char| !character.is_ascii_digit()).map_while(|part| part.parse().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}
