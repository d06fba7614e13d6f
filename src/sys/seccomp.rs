//! Compiles and installs filters of system calls (seccomp(2), SECCOMP_SET_MODE_FILTER).
//!
//! A filter is a list of the calls that are allowed. It is compiled to a binary search for the number of a call: the
//! kernel tries every number when a filter is installed, for which a sequence of comparisons takes 0.3 ms.

use nix::errno::Errno;

use super::{Error, Result, check};

/// A bit pattern that an argument must have.
#[derive(Debug, Clone, Copy)]
pub struct Argument {
    /// Number of the argument, from 0.
    pub index: u8,
    /// Bits that are compared.
    pub mask: u64,
    /// Value of these bits.
    pub value: u64,
}

/// An entry of a filter.
#[derive(Debug, Clone, Copy)]
pub enum Call<'a> {
    /// Allowed with any arguments.
    Any(libc::c_long),
    /// Allowed if one of these holds; refused otherwise.
    With(libc::c_long, &'a [Argument]),
    /// Answered with ENOSYS, as by a kernel that does not have it.
    Absent(libc::c_long),
}

/// A filter in the form that the kernel takes.
#[derive(Debug)]
pub struct Filter(Vec<libc::sock_filter>);

/// First number that was given to no call when this list was written (asm-generic/unistd.h). Since 424, all
/// architectures have the same numbers.
const FIRST_UNKNOWN: u32 = 463;
/// Kind of the calls of this program (linux/audit.h, AUDIT_ARCH_X86_64 and AUDIT_ARCH_AARCH64).
const ARCHITECTURE: Option<u32> = match () {
    () if cfg!(target_arch = "x86_64") => Some(0xc000_003e),
    () if cfg!(target_arch = "aarch64") => Some(0xc000_00b7),
    () => None,
};

/// Offsets in `struct seccomp_data`: the number of the call, the architecture, and the lower half of the first argument.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;
/// A = *(u32 *)(data + k)
const LOAD: u16 = 0x20;
/// A &= k
const AND: u16 = 0x54;
/// if (A == k) pc += jt else pc += jf
const EQUAL: u16 = 0x15;
/// if (A >= k) pc += jt else pc += jf
const AT_LEAST: u16 = 0x35;
/// pc += k
const JUMP: u16 = 0x05;
/// return k
const RETURN: u16 = 0x06;

const ALLOW: libc::sock_filter = instruction(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW);
const KILL: libc::sock_filter = instruction(RETURN, 0, 0, libc::SECCOMP_RET_KILL_PROCESS);
const REFUSE: libc::sock_filter = refuse(Errno::EPERM);
const ABSENT: libc::sock_filter = refuse(Errno::ENOSYS);

const fn instruction(code: u16, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}

const fn refuse(errno: Errno) -> libc::sock_filter {
    instruction(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | (errno as i32).cast_unsigned())
}

impl Filter {
    /// Compiles the list. All other calls return EPERM. A number that is unknown here returns ENOSYS: the C library
    /// tries new calls first and then falls back, but only after ENOSYS. A call of another architecture (32 bits)
    /// kills: its numbers mean other calls.
    ///
    /// ENOTSUP on a processor whose calls have no list; EINVAL for a number or argument that no call has.
    pub fn new(calls: &[Call<'_>]) -> Result<Self> {
        let architecture = ARCHITECTURE.ok_or_else(|| Error::new("seccomp filter: processor", Errno::ENOTSUP))?;
        let mut blocks = Vec::new();
        let mut verdicts = [Verdict::Refuse; FIRST_UNKNOWN as usize];
        for call in calls {
            let (number, verdict) = match call {
                Call::Any(number) => (number, Verdict::Allow),
                Call::Absent(number) => (number, Verdict::Absent),
                Call::With(number, one_of) => {
                    blocks.push(conditions(one_of).ok_or_else(invalid)?);
                    (number, Verdict::Block(blocks.len() - 1))
                }
            };
            let place = usize::try_from(*number).ok().and_then(|number| verdicts.get_mut(number));
            *place.ok_or_else(invalid)? = verdict;
        }
        let mut ranges: Vec<(u32, Verdict)> = Vec::new();
        for (number, verdict) in (0..).zip(verdicts).chain([(FIRST_UNKNOWN, Verdict::Absent)]) {
            if ranges.last().is_none_or(|(_, last)| *last != verdict) {
                ranges.push((number, verdict));
            }
        }
        let mut program = vec![
            instruction(LOAD, 0, 0, ARCH),
            instruction(EQUAL, 1, 0, architecture),
            KILL,
            instruction(LOAD, 0, 0, NUMBER),
        ];
        search(&ranges, 0, ranges.len() - 1, &mut program).ok_or_else(invalid)?;
        program.extend([ALLOW, REFUSE, ABSENT]);
        // Blocks may be further away than the search can jump.
        let mut over = blocks.len();
        for block in &blocks {
            over -= 1;
            program.push(instruction(JUMP, 0, 0, u32::try_from(over).map_err(|_| invalid())?));
            over += block.len();
        }
        program.extend(blocks.into_iter().flatten());
        Ok(Self(program))
    }

    /// Installs the filter for this thread and its descendants. It cannot be removed. Needs no_new_privs.
    ///
    /// The process executes no code of others, so the kernel need not protect parts of it from each other: without
    /// SECCOMP_FILTER_FLAG_SPEC_ALLOW, kernels before 5.16 slow it down (spec_store_bypass_disable=seccomp).
    pub fn install(&self) -> Result<()> {
        self.set(0)
    }

    /// Like [`Self::install`], for all threads of the process; an error (ESRCH) if one of them cannot have it.
    pub fn install_in_all_threads(&self) -> Result<()> {
        self.set(libc::SECCOMP_FILTER_FLAG_TSYNC)
    }

    fn set(&self, flags: libc::c_ulong) -> Result<()> {
        let call = || format!("seccomp(SECCOMP_SET_MODE_FILTER, {} instructions)", self.0.len());
        let len = u16::try_from(self.0.len()).map_err(|_| Error::new(call(), Errno::EINVAL))?;
        let flags = flags | libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
        let program = libc::sock_fprog { len, filter: self.0.as_ptr().cast_mut() };
        // SAFETY: the kernel reads the structure and `len` instructions, which `self` owns, and writes none.
        let result =
            unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) };
        check(result, call)?;
        // With TSYNC, the id of a thread that has another filter (seccomp(2)).
        if result > 0 {
            return Err(Error::new(call(), Errno::ESRCH));
        }
        Ok(())
    }
}

/// Outcome for a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Allow,
    Refuse,
    Absent,
    /// Depends on arguments, by these conditions.
    Block(usize),
}

impl Verdict {
    /// Place in the instructions behind the search.
    fn place(self) -> usize {
        match self {
            Self::Allow => 0,
            Self::Refuse => 1,
            Self::Absent => 2,
            Self::Block(block) => 3 + block,
        }
    }
}

/// Appends the search for a number in `ranges`, of which each begins at its number. Its first instruction is the one
/// with this number of all `count`, behind which are the verdicts. `None` if a jump would be too long.
fn search(ranges: &[(u32, Verdict)], at: usize, count: usize, program: &mut Vec<libc::sock_filter>) -> Option<()> {
    let (lower, upper) = ranges.split_at_checked(ranges.len() / 2).filter(|(lower, _)| !lower.is_empty())?;
    // The search in the lower half follows this instruction, and that in the upper half follows it.
    let jump = |half: &[(u32, Verdict)], follows: usize| {
        let target = if let [(_, verdict)] = half { count + verdict.place() } else { follows };
        u8::try_from(target - at - 1).ok()
    };
    let upper_at = at + lower.len();
    program.push(instruction(AT_LEAST, jump(upper, upper_at)?, jump(lower, at + 1)?, upper.first()?.0));
    for (half, at) in [(lower, at + 1), (upper, upper_at)] {
        if half.len() > 1 {
            search(half, at, count, program)?;
        }
    }
    Some(())
}

fn invalid() -> Error {
    Error::new("seccomp filter: number of a call or argument", Errno::EINVAL)
}

/// Instructions that allow the call if one of `arguments` holds. They end in a verdict, so the number of the call is
/// not needed again.
fn conditions(arguments: &[Argument]) -> Option<Vec<libc::sock_filter>> {
    let mut block = Vec::new();
    for Argument { index, mask, value } in arguments {
        let lower = ARGUMENTS + 8 * u32::from(*index);
        // In memory, the lower half of a number is the first on both architectures.
        let halves = [(lower, half(*mask), half(*value)), (lower + 4, half(mask >> 32), half(value >> 32))];
        let compared: Vec<_> = halves.into_iter().filter(|(_, mask, _)| *mask != 0).collect();
        if *index > 5 || mask & value != *value {
            return None;
        }
        for (at, (offset, mask, value)) in compared.iter().enumerate() {
            // Over the rest of this alternative: three instructions for each half, and the verdict.
            let over = u8::try_from(3 * (compared.len() - at - 1) + 1).ok()?;
            block.extend([
                instruction(LOAD, 0, 0, *offset),
                instruction(AND, 0, 0, *mask),
                instruction(EQUAL, 0, over, *value),
            ]);
        }
        block.push(ALLOW);
    }
    block.push(REFUSE);
    Some(block)
}

fn half(number: u64) -> u32 {
    let bytes = number.to_le_bytes();
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a filter on a call, as the kernel does.
    fn verdict(filter: &Filter, architecture: u32, number: u32, arguments: [u64; 6]) -> u32 {
        let mut data = Vec::new();
        data.extend(number.to_le_bytes());
        data.extend(architecture.to_le_bytes());
        data.extend(0_u64.to_le_bytes());
        arguments.iter().for_each(|argument| data.extend(argument.to_le_bytes()));
        let (mut at, mut value) = (0, 0_u32);
        loop {
            let libc::sock_filter { code, jt, jf, k } = filter.0[at];
            at += 1;
            let jump = |taken: bool| usize::from(if taken { jt } else { jf });
            match code {
                LOAD => value = u32::from_le_bytes(data[k as usize..][..4].try_into().unwrap()),
                AND => value &= k,
                EQUAL => at += jump(value == k),
                JUMP => at += k as usize,
                AT_LEAST => at += jump(value >= k),
                RETURN => return k,
                code => panic!("{code}"),
            }
        }
    }

    #[test]
    fn a_filter_allows_what_is_listed_and_nothing_else() {
        let own = ARCHITECTURE.unwrap();
        let wide = 1 << 40 | 5;
        let filter = Filter::new(&[
            Call::Any(3),
            Call::With(
                7,
                &[
                    Argument { index: 0, mask: 0xff, value: 2 },
                    Argument { index: 5, mask: u64::MAX, value: wide },
                    Argument { index: 1, mask: 0xf << 32, value: 3 << 32 },
                ],
            ),
            Call::Absent(9),
        ])
        .unwrap();
        let (allow, refuse, absent) = (ALLOW.k, REFUSE.k, ABSENT.k);
        let call = |number, arguments| verdict(&filter, own, number, arguments);
        assert_eq!((call(3, [9; 6]), call(4, [0; 6]), call(9, [0; 6])), (allow, refuse, absent));
        // Numbers of the future, and those of x32, which are the usual ones with bit 30.
        assert_eq!((call(462, [0; 6]), call(463, [0; 6]), call(1 << 30 | 3, [0; 6])), (refuse, absent, absent));
        assert_eq!(call(7, [0; 6]), refuse);
        assert_eq!(call(7, [0x1_0000_0f02, 0, 0, 0, 0, 0]), allow);
        assert_eq!(call(7, [0, 0, 0, 0, 0, wide]), allow);
        assert_eq!((call(7, [0, 0, 0, 0, 0, 5]), call(7, [0, 0, 0, 0, 0, 1 << 40])), (refuse, refuse));
        assert_eq!((call(7, [0, 3 << 32, 0, 0, 0, 0]), call(7, [0, 3, 0, 0, 0, 0])), (allow, refuse));
        assert_eq!(verdict(&filter, own ^ 1, 3, [0; 6]), KILL.k);
    }

    #[test]
    fn each_number_has_its_verdict() {
        // Every other number, so that the search is as long as one of real lists.
        let two = [Argument { index: 0, mask: 0xff, value: 2 }];
        let calls: Vec<Call<'_>> = (0..460)
            .filter_map(|number| match number % 6 {
                0 if number < 440 => Some(Call::Any(number)),
                3 if number > 400 => Some(Call::With(number, &two)),
                4 if number > 440 => Some(Call::Absent(number)),
                _ => None,
            })
            .collect();
        let filter = Filter::new(&calls).unwrap();
        for number in 0..500 {
            let call = |arguments| verdict(&filter, ARCHITECTURE.unwrap(), number, arguments);
            let (without, with) = (call([0; 6]), call([2; 6]));
            let listed = calls.iter().find(|call| {
                matches!(call, Call::Any(other) | Call::With(other, _) | Call::Absent(other) if *other == i64::from(number))
            });
            let wanted = match listed {
                Some(Call::Any(_)) => (ALLOW.k, ALLOW.k),
                Some(Call::With(..)) => (REFUSE.k, ALLOW.k),
                Some(Call::Absent(_)) => (ABSENT.k, ABSENT.k),
                None if number >= FIRST_UNKNOWN => (ABSENT.k, ABSENT.k),
                None => (REFUSE.k, REFUSE.k),
            };
            assert_eq!((without, with), wanted, "{number}");
        }
    }

    #[test]
    fn an_entry_that_no_call_can_match_is_an_error() {
        let with = |argument| Filter::new(&[Call::With(1, &[argument])]).map_err(|error| error.errno());
        assert_eq!(with(Argument { index: 6, mask: 1, value: 1 }).unwrap_err(), Errno::EINVAL);
        assert_eq!(with(Argument { index: 0, mask: 1, value: 2 }).unwrap_err(), Errno::EINVAL);
        assert!(Filter::new(&[Call::Any(-1)]).is_err());
    }
}
