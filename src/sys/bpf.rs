//! Sets device rules of a control group of version 2: a program that the kernel runs whenever a device node is opened
//! or made (bpf(2); Documentation/admin-guide/cgroup-v2.rst, "Device controller"; linux/bpf.h).

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use nix::errno::Errno;

use super::{Error, Result, check, show};

/// Maximum number of rules of one program: it then has fewer than the 4096 instructions that every kernel accepts.
pub const MAX_DEVICE_RULES: usize = 800;

/// Device that may be opened, and whose node may be made.
///
/// Making a node needs a capability that a user does not have. Root makes no other device nodes in a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeviceRule {
    /// True for a block device, false for a character device.
    pub block: bool,
    /// The driver's number.
    pub major: u32,
    /// The driver's number for the device; `None` stands for all of them.
    pub minor: Option<u32>,
}

const PROG_LOAD: libc::c_long = 5;
const PROG_ATTACH: libc::c_long = 8;
const PROG_QUERY: libc::c_long = 16;
const TYPE_CGROUP_DEVICE: u32 = 15;
const CGROUP_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 2;
/// Requested size of the verifier's log, in bytes.
const LOG: usize = 64 * 1024;

/// `struct bpf_insn` of linux/bpf.h. `registers` holds the destination in the lower half and the source in the upper
/// one; on a big-endian machine it is the other way round.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: u32,
}

/// dst = *(u32 *)(src + off)
const LOAD: u8 = 0x61;
/// (u32) dst &= imm
const AND: u8 = 0x54;
/// dst = imm
const SET: u8 = 0xb7;
/// if ((u32) dst != imm) pc += off
const UNLESS: u8 = 0x56;
/// return r0
const EXIT: u8 = 0x95;

/// Registers: the answer, `struct bpf_cgroup_dev_ctx`, and its three numbers.
const ANSWER: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const MAJOR: u8 = 3;
const MINOR: u8 = 4;

/// BPF_DEVCG_DEV_BLOCK and BPF_DEVCG_DEV_CHAR.
const BLOCK: u32 = 1;
const CHARACTER: u32 = 2;

impl Instruction {
    fn new(code: u8, destination: u8, offset: i16, immediate: u32) -> Self {
        Self { code, registers: registers(destination, 0), offset, immediate }
    }

    fn load(destination: u8, offset: i16) -> Self {
        Self { registers: registers(destination, CONTEXT), ..Self::new(LOAD, destination, offset, 0) }
    }
}

const fn registers(destination: u8, source: u8) -> u8 {
    if cfg!(target_endian = "big") { destination << 4 | source } else { source << 4 | destination }
}

/// Returns the program that answers 1 for every access to a device that a rule allows, and 0 for all others.
fn instructions(rules: &[DeviceRule]) -> Vec<Instruction> {
    // The kind of access is in the upper half of the first number.
    let mut program = vec![
        Instruction::load(KIND, 0),
        Instruction::new(AND, KIND, 0, 0xffff),
        Instruction::load(MAJOR, 4),
        Instruction::load(MINOR, 8),
    ];
    for rule in rules {
        let kind = if rule.block { BLOCK } else { CHARACTER };
        let wanted = [Some((KIND, kind)), Some((MAJOR, rule.major)), rule.minor.map(|minor| (MINOR, minor))];
        // Jumps to the next rule: over the remaining comparisons and the answer.
        let mut over = if rule.minor.is_some() { 5 } else { 4 };
        for (register, number) in wanted.into_iter().flatten() {
            over -= 1;
            program.push(Instruction::new(UNLESS, register, over, number));
        }
        program.extend([Instruction::new(SET, ANSWER, 0, 1), Instruction::new(EXIT, 0, 0, 0)]);
    }
    program.extend([Instruction::new(SET, ANSWER, 0, 0), Instruction::new(EXIT, 0, 0, 0)]);
    program
}

/// Fields of `union bpf_attr` that BPF_PROG_LOAD reads.
#[repr(C)]
#[derive(Default)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel: u32,
    flags: u32,
    name: [u8; 16],
}

/// Fields of it that BPF_PROG_ATTACH reads.
#[repr(C)]
struct Attach {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

/// Fields of it that BPF_PROG_QUERY reads and writes. Newer kernels write fields behind those that are named here
/// (`revision` since 6.6), so the whole of `union bpf_attr` is passed; older ones want the rest to be zero.
#[repr(C)]
struct Query {
    target: u32,
    kind: u32,
    flags: u32,
    attach_flags: u32,
    programs: u64,
    count: u32,
    padding: u32,
    rest: [u64; 28],
}

/// Allows these devices, and no others, to the processes in and below a control group of version 2; `group` is its
/// directory. The rules end with the group.
///
/// Rules that were attached in the same way to a group above hold as well (BPF_F_ALLOW_MULTI). systemd attaches such
/// rules.
pub fn allow_devices(group: impl AsFd, rules: &[DeviceRule]) -> Result<()> {
    let group = group.as_fd();
    let program = load(rules)?;
    let target = group.as_raw_fd().cast_unsigned();
    let attach =
        Attach { target, program: program.as_raw_fd().cast_unsigned(), kind: CGROUP_DEVICE, flags: ALLOW_MULTI };
    // SAFETY: BPF_PROG_ATTACH reads as many bytes as are passed, which `attach` has; it holds numbers only.
    let result = unsafe { libc::syscall(libc::SYS_bpf, PROG_ATTACH, &raw const attach, size_of::<Attach>()) };
    check(result, || format!("bpf(BPF_PROG_ATTACH, {}, BPF_CGROUP_DEVICE)", show(group)))?;
    Ok(())
}

/// True if a control group of version 2 has device rules of its own; `group` is its directory.
pub fn has_device_rules(group: impl AsFd) -> Result<bool> {
    let group = group.as_fd();
    let target = group.as_raw_fd().cast_unsigned();
    let mut query = Query {
        target,
        kind: CGROUP_DEVICE,
        flags: 0,
        attach_flags: 0,
        programs: 0,
        count: 0,
        padding: 0,
        rest: [0; 28],
    };
    // SAFETY: BPF_PROG_QUERY reads and writes within the bytes that are passed, which `query` has. Without space for
    // them, it only counts the programs.
    let result = unsafe { libc::syscall(libc::SYS_bpf, PROG_QUERY, &raw mut query, size_of::<Query>()) };
    check(result, || format!("bpf(BPF_PROG_QUERY, {}, BPF_CGROUP_DEVICE)", show(group)))?;
    Ok(query.count > 0)
}

fn load(rules: &[DeviceRule]) -> Result<OwnedFd> {
    let call = || format!("bpf(BPF_PROG_LOAD, BPF_PROG_TYPE_CGROUP_DEVICE, {} rules)", rules.len());
    if rules.len() > MAX_DEVICE_RULES {
        return Err(Error::new(call(), Errno::E2BIG));
    }
    let program = instructions(rules);
    load_with(&program, &mut []).map_err(|errno| {
        // Only the verifier's log says why it refuses a program.
        let mut log = vec![0; LOG];
        let _ = load_with(&program, &mut log);
        let text = CStr::from_bytes_until_nul(&log).map(CStr::to_string_lossy).unwrap_or_default();
        let last = text.lines().rev().find(|line| !line.starts_with("processed ")).unwrap_or_default();
        Error::new(format!("{}{}{last}", call(), if last.is_empty() { "" } else { ": " }), errno)
    })
}

fn load_with(program: &[Instruction], log: &mut [u8]) -> std::result::Result<OwnedFd, Errno> {
    let short = |length: usize| u32::try_from(length).map_err(|_| Errno::E2BIG);
    let load = Load {
        kind: TYPE_CGROUP_DEVICE,
        count: short(program.len())?,
        instructions: program.as_ptr().expose_provenance() as u64,
        license: c"".as_ptr().expose_provenance() as u64,
        log_level: u32::from(!log.is_empty()),
        log_size: short(log.len())?,
        log: if log.is_empty() { 0 } else { log.as_mut_ptr().expose_provenance() as u64 },
        name: *b"coracle_devices\0",
        ..Load::default()
    };
    // SAFETY: BPF_PROG_LOAD reads as many bytes of `load` as are passed, `count` instructions and a NUL-terminated
    // license, and writes at most `log_size` bytes to `log`; all of them outlive the call.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, PROG_LOAD, &raw const load, size_of::<Load>()) };
    match libc::c_int::try_from(fd) {
        // SAFETY: the kernel has just made this descriptor, close-on-exec, and nothing else owns it.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(Errno::last()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Runs the few instructions in use as the kernel does: the answer for a `struct bpf_cgroup_dev_ctx`.
    fn run(program: &[Instruction], context: [u32; 3]) -> u32 {
        let (mut registers, mut at) = ([0xdead_beef_u32; 16], 0);
        loop {
            let Instruction { code, registers: named, offset, immediate } = program[at];
            let destination = usize::from(if cfg!(target_endian = "big") { named >> 4 } else { named & 15 });
            at += 1;
            match code {
                LOAD => registers[destination] = context[usize::try_from(offset).unwrap() / 4],
                AND => registers[destination] &= immediate,
                SET => registers[destination] = immediate,
                UNLESS if registers[destination] != immediate => at += usize::try_from(offset).unwrap(),
                UNLESS => {}
                EXIT => return registers[0],
                other => panic!("{other:#x}"),
            }
        }
    }

    fn character(major: u32, minor: Option<u32>) -> DeviceRule {
        DeviceRule { block: false, major, minor }
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn the_instructions_are_these() {
        let rules = [character(195, Some(255)), DeviceRule { block: true, major: 8, minor: None }];
        let bytes: Vec<String> = instructions(&rules)
            .iter()
            .map(|one| format!("{:02x} {:02x} {} {:#x}", one.code, one.registers, one.offset, one.immediate))
            .collect();
        let wanted = [
            "61 12 0 0x0",    // r2 = *(u32 *)(r1 + 0)
            "54 02 0 0xffff", // w2 &= 0xffff
            "61 13 4 0x0",    // r3 = *(u32 *)(r1 + 4)
            "61 14 8 0x0",    // r4 = *(u32 *)(r1 + 8)
            "56 02 4 0x2",    // if w2 != 2 goto +4
            "56 03 3 0xc3",   // if w3 != 195 goto +3
            "56 04 2 0xff",   // if w4 != 255 goto +2
            "b7 00 0 0x1",    // r0 = 1
            "95 00 0 0x0",    // exit
            "56 02 3 0x1",    // if w2 != 1 goto +3
            "56 03 2 0x8",    // if w3 != 8 goto +2
            "b7 00 0 0x1",    // r0 = 1
            "95 00 0 0x0",    // exit
            "b7 00 0 0x0",    // r0 = 0
            "95 00 0 0x0",    // exit
        ];
        assert_eq!(bytes, wanted);
    }

    #[test]
    fn the_structures_have_the_kernels_sizes() {
        assert_eq!((size_of::<Instruction>(), size_of::<Load>()), (8, 64));
        assert_eq!((size_of::<Attach>(), size_of::<Query>()), (16, 256));
    }

    #[test]
    fn too_many_rules_are_refused_and_as_many_as_may_be_fit() {
        let many = vec![character(1, Some(3)); MAX_DEVICE_RULES];
        assert!(instructions(&many).len() <= 4096);
        let error = load(&[many.as_slice(), &many[..1]].concat()).unwrap_err();
        assert_eq!(error.errno(), Errno::E2BIG);
    }

    proptest! {
        #[test]
        fn what_a_rule_allows_is_allowed_and_nothing_else(
            rules in prop::collection::vec((any::<bool>(), 0..4u32, prop::option::of(0..4u32)), 0..12),
            asked in (any::<bool>(), 0..4u32, 0..4u32),
            access in 1..8u32,
            far in any::<bool>(),
        ) {
            // Numbers that differ only in their highest bits, as well.
            let number = |small: u32| if far { small << 30 | 1 } else { small };
            let rule = |(block, major, minor): (bool, u32, Option<u32>)| {
                DeviceRule { block, major: number(major), minor: minor.map(number) }
            };
            let rules: Vec<DeviceRule> = rules.into_iter().map(rule).collect();
            let (block, major, minor) = (asked.0, number(asked.1), number(asked.2));
            let allowed = rules.iter().any(|rule| {
                rule.block == block && rule.major == major && rule.minor.is_none_or(|one| one == minor)
            });
            let kind = if block { BLOCK } else { CHARACTER };
            prop_assert_eq!(run(&instructions(&rules), [access << 16 | kind, major, minor]), u32::from(allowed));
        }
    }
}
