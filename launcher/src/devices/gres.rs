//! Reads gres.conf(5): the device nodes of each unit of a generic resource, in Slurm's order.
//!
//! Slurm's numbers of GPUs (SLURM_STEP_GPUS) count the records of this file (gres_gpu.c, common_gres_set_env), not the
//! numbers in the names of device nodes. If slurm.conf has types in another order than this file, that order counts.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use super::gpu::{DRI, PARTS};

/// Name of GPUs among generic resources.
pub const GPU: &str = "gpu";
/// Resources that are parts of GPUs: their records name a GPU's files again.
const SHARES: &[&str] = &["mps", "shard"];
/// Maximum number of units; no node has that many.
const MAX_UNITS: usize = 4096;
/// Maximum length of a name with brackets, in bytes; a longer one is taken as it is.
const MAX_NAME: usize = 1024;

/// Device nodes that Slurm grants as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// Name of the resource.
    pub name: String,
    /// Device nodes; a MIG instance has several.
    pub files: Vec<PathBuf>,
}

impl Unit {
    /// True if the device node belongs to the unit.
    pub fn has(&self, file: &Path) -> bool {
        self.files.iter().any(|own| own == file)
    }

    /// True if the unit is a GPU, or a part of one with device nodes of its own.
    pub fn is_gpu(&self) -> bool {
        self.name == GPU
    }
}

/// Records of gres.conf for the node `host`, one for each line.
fn records<'a>(lines: impl IntoIterator<Item = &'a str>, host: &str) -> Vec<String> {
    let mut records = Vec::new();
    let mut record = String::new();
    for line in lines {
        let line = line.split('#').next().unwrap_or_default().trim_end();
        match line.strip_suffix('\\') {
            Some(line) => record.push_str(line),
            None => records.push(std::mem::take(&mut record) + line),
        }
    }
    records.push(record);
    let here = |nodes: &str| expand(nodes).iter().any(|node| node == host);
    records.retain(|record| value(record, "NodeName").is_none_or(here));
    records
}

/// Value of the key `wanted` in a record.
fn value<'a>(record: &'a str, wanted: &str) -> Option<&'a str> {
    let mut pairs = record.split_whitespace().filter_map(|word| word.split_once('='));
    pairs.find(|(key, _)| key.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.trim_matches('"'))
}

/// Units in `lines` of gres.conf for the node `host`. Records without files (AutoDetect) define none.
pub fn units<'a>(lines: impl IntoIterator<Item = &'a str>, host: &str) -> Vec<Unit> {
    records(lines, host).iter().flat_map(|record| of_record(record)).take(MAX_UNITS).collect()
}

fn of_record(record: &str) -> Vec<Unit> {
    let name = value(record, "Name").map(str::to_ascii_lowercase);
    let Some(name) = name.filter(|name| !SHARES.contains(&name.as_str())) else { return Vec::new() };
    let files = |list: &str| expand(list).into_iter().map(PathBuf::from).filter(|file| file.starts_with("/dev"));
    match (value(record, "MultipleFiles"), value(record, "File")) {
        (Some(list), _) => vec![Unit { name, files: files(list).collect() }],
        (None, Some(list)) => files(list).map(|file| Unit { name: name.clone(), files: vec![file] }).collect(),
        (None, None) => Vec::new(),
    }
}

/// True if records for the node `host` let Slurm detect the files of GPUs.
pub fn detects<'a>(lines: impl IntoIterator<Item = &'a str>, host: &str) -> bool {
    let records = records(lines, host);
    records.iter().filter_map(|record| value(record, "AutoDetect")).any(|how| !how.eq_ignore_ascii_case("off"))
}

/// Expands a list of Slurm: `n[1-3,07],x` is `n1`, `n2`, `n3`, `n07` and `x`.
fn expand(list: &str) -> Vec<String> {
    let mut depth = 0_usize;
    let names = list.split(|letter| {
        match letter {
            '[' => depth += 1,
            ']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        letter == ',' && depth == 0
    });
    names.flat_map(one).filter(|name| !name.is_empty()).take(MAX_UNITS).collect()
}

/// Expands one name with brackets.
fn one(name: &str) -> Vec<String> {
    if name.len() > MAX_NAME {
        return vec![name.to_owned()];
    }
    let (mut names, mut rest) = (vec![String::new()], name);
    while let Some((front, (inner, behind))) =
        rest.split_once('[').and_then(|(front, rest)| Some((front, rest.split_once(']')?)))
    {
        let middles: Vec<String> = inner.split(',').flat_map(range).take(MAX_UNITS).collect();
        let longer = names.iter().flat_map(|name| middles.iter().map(move |middle| format!("{name}{front}{middle}")));
        names = longer.take(MAX_UNITS).collect();
        rest = behind;
    }
    names.iter_mut().for_each(|name| name.push_str(rest));
    names
}

/// Expands a range: `07-10` is `07`, `08`, `09` and `10`.
fn range(text: &str) -> Vec<String> {
    let Some((first, last)) = text.split_once('-') else { return vec![text.to_owned()] };
    let width = if first.starts_with('0') { first.len() } else { 0 };
    match (first.parse::<usize>(), last.parse::<usize>()) {
        (Ok(first), Ok(last)) => (first..=last).take(MAX_UNITS).map(|number| format!("{number:0width$}")).collect(),
        _ => vec![text.to_owned()],
    }
}

/// GPUs of a node whose records name no files (AutoDetect), with each part of a GPU (MIG) as a unit. The order is that
/// of their files, as Slurm sorts them before it evaluates links between them (gres_gpu.c, _sort_gpu_by_file). `root`
/// is "/", except in tests.
pub fn detected<'a>(root: &Path, nodes: impl IntoIterator<Item = &'a Path>) -> Vec<Unit> {
    let number = |path: &Path, prefix: &str| -> Option<u32> { path.to_str()?.strip_prefix(prefix)?.parse().ok() };
    let (mut nvidia, mut render) = (Vec::new(), Vec::new());
    for node in nodes {
        nvidia.extend(number(node, "/dev/nvidia").map(|number| (number, node)));
        render.extend(number(node, "/dev/dri/renderD").map(|number| (number, node)));
    }
    // With NVIDIA's driver, its GPUs have both kinds of device nodes.
    let mut found = if nvidia.is_empty() { render } else { nvidia };
    found.sort();
    let files = found.into_iter().flat_map(|(number, node)| {
        let parts = if node.starts_with(DRI) { Vec::new() } else { parts(root, number) };
        let whole = parts.is_empty().then(|| vec![node.to_owned()]);
        whole.into_iter().chain(parts.into_iter().map(|caps| [vec![node.to_owned()], caps].concat()))
    });
    files.map(|files| Unit { name: GPU.to_owned(), files }).collect()
}

/// Parts of the NVIDIA GPU with this number: for each, the device nodes of its GPU instance and its compute instance
/// (MIG user guide, "/proc based capabilities").
fn parts(root: &Path, number: u32) -> Vec<Vec<PathBuf>> {
    let mig = root.join(format!("proc/driver/nvidia/capabilities/gpu{number}/mig"));
    let cap = |directory: &Path| {
        let text = std::fs::read_to_string(directory.join("access")).ok()?;
        let minor = text.lines().find_map(|line| line.strip_prefix("DeviceFileMinor:"))?;
        Some(Path::new(PARTS).join(format!("nvidia-cap{}", minor.trim())))
    };
    let mut found = Vec::new();
    for instance in numbered(&mig, "gi") {
        let Some(gpu) = cap(&instance) else { continue };
        found.extend(numbered(&instance, "ci").iter().filter_map(|compute| Some(vec![gpu.clone(), cap(compute)?])));
    }
    found
}

/// Directories in `directory` with names of `prefix` and a number, sorted by number.
fn numbered(directory: &Path, prefix: &str) -> Vec<PathBuf> {
    let Ok(entries) = directory.read_dir() else { return Vec::new() };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut numbers: Vec<u32> = names.filter_map(|name| name.strip_prefix(prefix)?.parse().ok()).collect();
    numbers.sort_unstable();
    numbers.into_iter().map(|number| directory.join(format!("{prefix}{number}"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(text: &str, host: &str) -> Vec<(String, Vec<String>)> {
        let shown = |file: &PathBuf| file.display().to_string();
        let units = units(text.lines(), host);
        units.into_iter().map(|unit| (unit.name, unit.files.iter().map(shown).collect())).collect()
    }

    #[test]
    fn each_file_is_a_unit_and_several_files_can_be_one() {
        let text = "# a comment\nAutoDetect=off\n\
            Name=gpu Type=a100 File=/dev/nvidia[2-3] Cores=0-7 # here\n\
            name=gpu type=1g.10gb \\\n  multiplefiles=/dev/nvidia0,/dev/nvidia-caps/nvidia-cap[12-13]\n\
            Name=mps Count=200 File=/dev/nvidia2\nName=fpga File=/dev/xdma0\nName=license Count=3\n";
        let gpu = |files: &[&str]| ("gpu".to_owned(), files.iter().map(|&file| file.to_owned()).collect::<Vec<_>>());
        let fpga = ("fpga".to_owned(), vec!["/dev/xdma0".to_owned()]);
        let mig = ["/dev/nvidia0", "/dev/nvidia-caps/nvidia-cap12", "/dev/nvidia-caps/nvidia-cap13"];
        assert_eq!(files(text, "n1"), [gpu(&["/dev/nvidia2"]), gpu(&["/dev/nvidia3"]), gpu(&mig), fpga]);
    }

    #[test]
    fn records_of_other_nodes_are_passed_over() {
        let text = "NodeName=n[1-3,08-10],login Name=gpu File=/dev/nvidia0\nNodeName=x Name=gpu File=/dev/nvidia1\n";
        for host in ["n1", "n3", "n08", "n10", "login"] {
            assert_eq!(files(text, host).len(), 1, "{host}");
        }
        for host in ["n4", "n8", "n", "n0"] {
            assert!(files(text, host).is_empty(), "{host}");
        }
        assert_eq!(files(text, "x")[0].1, ["/dev/nvidia1"]);
    }

    #[test]
    fn what_is_no_device_file_and_what_makes_no_sense_is_nothing() {
        assert!(files("Name=gpu File=/etc/passwd\nFile=/dev/nvidia0\nName=gpu\nName=gpu File=[\n", "n").is_empty());
        assert_eq!(files("Name=gpu File=/dev/nvidia[0-99999999]", "n").len(), MAX_UNITS);
        // No width of a number, and no number of brackets or names, takes all memory.
        assert_eq!(expand(&format!("n[{}1-2]", "0".repeat(70_000))).len(), 1);
        assert_eq!(expand(&"[1]".repeat(100_000)).len(), 1);
        assert_eq!(expand(&"[0-9]".repeat(200)).len(), MAX_UNITS);
        assert_eq!(expand(&"n[0-9999],".repeat(10_000)).len(), MAX_UNITS);
    }

    #[test]
    fn detected_gpus_are_in_the_order_of_their_numbers() {
        let nodes = ["/dev/nvidia10", "/dev/nvidia9", "/dev/nvidiactl", "/dev/dri/renderD128", "/dev/nvidia-uvm"];
        let root = tempfile::tempdir().unwrap();
        let found = detected(root.path(), nodes.iter().map(Path::new));
        assert_eq!(
            found.iter().map(|unit| unit.files[0].to_str().unwrap()).collect::<Vec<_>>(),
            ["/dev/nvidia9", "/dev/nvidia10"]
        );
        let amd = [Path::new("/dev/dri/renderD129"), Path::new("/dev/dri/card0")];
        assert_eq!(detected(root.path(), amd).len(), 1);
    }

    #[test]
    fn parts_of_a_detected_gpu_are_units() {
        let root = tempfile::tempdir().unwrap();
        let mig = root.path().join("proc/driver/nvidia/capabilities/gpu1/mig");
        for (directory, minor) in [("gi10", 30), ("gi10/ci0", 31), ("gi2", 12), ("gi2/ci0", 13), ("gi2/ci1", 14)] {
            std::fs::create_dir_all(mig.join(directory)).unwrap();
            let text = format!("DeviceFileMinor: {minor}\nDeviceFileMode: 292\n");
            std::fs::write(mig.join(directory).join("access"), text).unwrap();
        }
        let found = detected(root.path(), ["/dev/nvidia0", "/dev/nvidia1"].map(Path::new));
        let part = |caps: [u32; 2]| {
            let caps = caps.map(|cap| format!("/dev/nvidia-caps/nvidia-cap{cap}"));
            [vec!["/dev/nvidia1".to_owned()], caps.to_vec()].concat()
        };
        let wanted = [vec!["/dev/nvidia0".to_owned()], part([12, 13]), part([12, 14]), part([30, 31])];
        let shown = |unit: &Unit| unit.files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>();
        assert_eq!(found.iter().map(shown).collect::<Vec<_>>(), wanted);
    }

    #[test]
    fn only_records_of_the_node_leave_it_to_slurm_to_find_files() {
        assert!(detects(["AutoDetect=nvml"], "n1") && detects(["NodeName=n[1-2] autodetect=rsmi Name=gpu"], "n1"));
        assert!(!detects(["AutoDetect=off", "NodeName=n2 AutoDetect=nvml", "# AutoDetect=nvml", "Name=gpu"], "n1"));
    }
}
