//! Finds the device nodes that belong to a GPU besides those that Slurm knows.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

/// Vendor of a GPU's driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Vendor {
    /// NVIDIA's proprietary driver.
    Nvidia,
    /// amdgpu, with /dev/kfd for computing.
    Amd,
    /// i915 or xe.
    Intel,
}

/// Device nodes of the driver, without which no NVIDIA GPU works (nvidia-modprobe(1)).
const NVIDIA_CONTROL: &[&str] = &["/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/nvidia-modeset"];
/// Memory of other nodes (IMEX). Slurm creates a step's channels in a directory of its own (switch/nvidia_imex).
pub const NVIDIA_CHANNELS: &str = "/dev/nvidia-caps-imex-channels";
/// GPUDirect Storage.
const NVIDIA_STORAGE: &str = "/dev/nvidia-fs";
/// Switches between NVIDIA GPUs.
const NVIDIA_SWITCHES: &str = "/dev/nvidia-nvswitchctl";
const AMD_CONTROL: &str = "/dev/kfd";
/// Directory of the device nodes of GPU instances of NVIDIA (MIG).
pub const PARTS: &str = "/dev/nvidia-caps";
/// Directory of the device nodes of graphics cards.
pub const DRI: &str = "/dev/dri";
const DRM: &str = "/sys/class/drm";

impl Vendor {
    /// Vendor of the GPU that the device node belongs to, if any. `root` is "/", except in tests.
    pub fn of(root: &Path, file: &Path) -> Option<Self> {
        if is_nvidia(file) {
            return Some(Self::Nvidia);
        }
        let node = file.strip_prefix(DRI).ok()?;
        let driver = std::fs::read_link(below(root, DRM).join(node).join("device/driver")).ok();
        match driver.as_deref().and_then(Path::file_name).and_then(|name| name.to_str()) {
            Some("nvidia") => Some(Self::Nvidia),
            Some("amdgpu") => Some(Self::Amd),
            Some("i915" | "xe") => Some(Self::Intel),
            Some(_) => None,
            None => Some(if below(root, AMD_CONTROL).exists() { Self::Amd } else { Self::Intel }),
        }
    }

    /// Name of the vendor.
    pub fn word(self) -> &'static str {
        match self {
            Self::Nvidia => "NVIDIA",
            Self::Amd => "AMD",
            Self::Intel => "Intel",
        }
    }

    /// True if the driver's device node at `path` serves all of its GPUs.
    pub fn shares(self, path: &Path) -> bool {
        match self {
            Self::Nvidia => {
                is_one_of(NVIDIA_CONTROL, path) || path.to_str().is_some_and(|path| path.starts_with(NVIDIA_STORAGE))
            }
            Self::Amd => path == Path::new(AMD_CONTROL),
            Self::Intel => false,
        }
    }
}

/// True if the device node is an NVIDIA GPU or a part of one.
pub fn is_nvidia(file: &Path) -> bool {
    let number = file.to_str().and_then(|file| file.strip_prefix("/dev/nvidia")).unwrap_or_default();
    file.starts_with(PARTS) || (!number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// True if a driver needs the device node for each of its GPUs, so that the node identifies none of them.
pub fn is_control(file: &Path) -> bool {
    is_one_of(NVIDIA_CONTROL, file) || is_one_of(&[AMD_CONTROL, NVIDIA_SWITCHES], file)
}

fn is_one_of(files: &[&str], file: &Path) -> bool {
    files.iter().any(|known| file == Path::new(known))
}

/// True if the device node belongs to a GPU or serves one: only steps with a granted GPU may see it.
pub fn is_gpus(path: &Path) -> bool {
    let name = path.to_str().unwrap_or_default();
    name.starts_with("/dev/nvidia") || path == Path::new(AMD_CONTROL) || path.starts_with(DRI)
}

/// Other device nodes of the same card: `card1` of `renderD129` (drm-uapi, "render nodes").
pub fn siblings(root: &Path, file: &Path) -> Vec<PathBuf> {
    let Ok(node) = file.strip_prefix(DRI) else { return Vec::new() };
    let Ok(entries) = below(root, DRM).join(node).join("device/drm").read_dir() else { return Vec::new() };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let is_node = |name: &String| {
        let number = name.strip_prefix("card").or_else(|| name.strip_prefix("renderD"));
        number.is_some_and(|number| number.parse::<u32>().is_ok())
    };
    let nodes = names.filter(is_node);
    nodes.map(|name| Path::new(DRI).join(name)).filter(|other| other != file).collect()
}

/// Directory of IMEX channels, if the node has it, and the major number of its driver, if that is loaded. Its content
/// differs from step to step, so tasks see the directory itself.
pub fn channels(root: &Path) -> Option<(PathBuf, Option<u32>)> {
    below(root, NVIDIA_CHANNELS).is_dir().then_some(())?;
    let name = NVIDIA_CHANNELS.trim_start_matches("/dev/");
    let drivers = std::fs::read_to_string(below(root, "/proc/devices")).unwrap_or_default();
    let mut lines = drivers.lines().filter_map(|line| line.trim().split_once(' '));
    let number = lines.find(|(_, driver)| *driver == name).and_then(|(number, _)| number.parse().ok());
    Some((NVIDIA_CHANNELS.into(), number))
}

/// Links below /dev/dri/by-path that lead to one of `shown`; Level Zero finds GPUs by them.
pub fn links(root: &Path, shown: &dyn Fn(&Path) -> bool) -> Vec<(PathBuf, PathBuf)> {
    let directory = Path::new(DRI).join("by-path");
    let Ok(entries) = below(root, &directory).read_dir() else { return Vec::new() };
    let mut found: Vec<_> = entries
        .filter_map(|entry| {
            let name = entry.ok()?.file_name();
            let target = std::fs::read_link(below(root, &directory).join(&name)).ok()?;
            let leads_to = Path::new(DRI).join(target.strip_prefix("..").ok()?);
            shown(&leads_to).then(|| (directory.join(name), target))
        })
        .collect();
    found.sort();
    found
}

fn below(root: &Path, path: impl AsRef<Path>) -> PathBuf {
    let path = path.as_ref();
    root.join(path.strip_prefix("/").unwrap_or(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{create_dir_all, write};
    use std::os::unix::fs::symlink;

    #[test]
    fn a_card_is_known_by_its_driver_and_its_nodes_by_the_card() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let device = root.join("sys/devices/pci/0000:03:00.0");
        for name in ["card1", "renderD129", "card1-DP-1"] {
            create_dir_all(device.join("drm").join(name)).unwrap();
        }
        create_dir_all(root.join("sys/bus/pci/drivers/amdgpu")).unwrap();
        symlink("../../../bus/pci/drivers/amdgpu", device.join("driver")).unwrap();
        create_dir_all(root.join("sys/class/drm/renderD129")).unwrap();
        symlink("../../../devices/pci/0000:03:00.0", root.join("sys/class/drm/renderD129/device")).unwrap();
        let file = Path::new("/dev/dri/renderD129");
        assert_eq!(Vendor::of(root, file), Some(Vendor::Amd));
        assert_eq!(siblings(root, file), [PathBuf::from("/dev/dri/card1")]);
        assert_eq!(Vendor::of(root, Path::new("/dev/dri/renderD130")), Some(Vendor::Intel));
        create_dir_all(root.join("dev")).unwrap();
        write(root.join("dev/kfd"), "").unwrap();
        assert_eq!(Vendor::of(root, Path::new("/dev/dri/renderD130")), Some(Vendor::Amd));
    }

    #[test]
    fn nvidias_files_are_known_by_their_names() {
        let vendor = |file: &str| Vendor::of(Path::new("/nowhere"), Path::new(file));
        assert_eq!(vendor("/dev/nvidia12"), Some(Vendor::Nvidia));
        assert_eq!(vendor("/dev/nvidia-caps/nvidia-cap30"), Some(Vendor::Nvidia));
        assert_eq!(vendor("/dev/nvidiactl"), None);
        assert!(Vendor::Nvidia.shares(Path::new("/dev/nvidia-uvm")));
        assert!(!Vendor::Nvidia.shares(Path::new("/dev/nvidia-caps/nvidia-cap1")));
        assert!(is_gpus(Path::new("/dev/nvidia-caps/nvidia-cap1")) && !is_gpus(Path::new("/dev/null")));
    }

    #[test]
    fn channels_are_a_directory_and_the_number_of_a_driver() {
        let root = tempfile::tempdir().unwrap();
        create_dir_all(root.path().join("proc")).unwrap();
        write(root.path().join("proc/devices"), "Character devices:\n  1 mem\n506 nvidia-caps-imex-channels\n")
            .unwrap();
        assert_eq!(channels(root.path()), None);
        create_dir_all(root.path().join("dev/nvidia-caps-imex-channels")).unwrap();
        assert_eq!(channels(root.path()), Some((NVIDIA_CHANNELS.into(), Some(506))));
    }

    #[test]
    fn only_links_to_what_is_shown_are_shown() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("dev/dri/by-path");
        create_dir_all(&directory).unwrap();
        for (name, target) in [("pci-a-render", "../renderD128"), ("pci-b-render", "../renderD129"), ("x", "/etc")] {
            symlink(target, directory.join(name)).unwrap();
        }
        let found = links(root.path(), &|path| path == Path::new("/dev/dri/renderD129"));
        assert_eq!(found, [("/dev/dri/by-path/pci-b-render".into(), "../renderD129".into())]);
    }
}
