//! What the verifier says of each program that this process loads: instructions looked at, and time taken.
//!
//! The loader asks for the verifier's log only when a program is refused. So this module stands between the loader and
//! the kernel: it defines the C library's `syscall`, asks for the statistics (kernel 5.2) on every BPF_PROG_LOAD that asks for no
//! log, and keeps them.

use std::{
    ffi::{CStr, c_int, c_long},
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

const BPF_PROG_LOAD: usize = 5;
const LOG_STATISTICS: u32 = 4;
const LOG_BYTES: usize = 1 << 20;
/// Every step of every path; less keeps the last path only.
const LOG_STEPS: u32 = 2;
const LONG_LOG_BYTES: usize = 1 << 29;
/// Variable that names a folder for the verifier's every step, a file a program.
pub const LOG_FOLDER: &str = "SKEP_VERIFIER_LOG";
// Offsets in the kernel's `union bpf_attr`, program load.
const AT_LOG_LEVEL: usize = 24;
const AT_LOG_SIZE: usize = 28;
const AT_LOG_BUFFER: usize = 32;
const AT_NAME: usize = 48;
const NAME_BYTES: usize = 16;

/// Whether the program before was refused for its length.
static TOO_LONG: AtomicBool = AtomicBool::new(false);
/// Names of what the loader itself tries.
const NOT_OURS: [&str; 2] = ["", "aya_name_check"];
static SEEN: Mutex<Vec<Verified>> = Mutex::new(Vec::new());

/// One program that the verifier accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Its name, as the kernel keeps it: 15 characters at most.
    pub name: String,
    /// Instructions that the verifier looked at.
    pub instructions: u64,
    /// How long it took.
    pub time: Duration,
    /// Bytes of stack, one number for each subprogram.
    pub stack: String,
    /// Why the program was refused, if so: the verifier's words.
    pub refused: Option<String>,
}

/// Programs loaded so far, each once: where one was loaded several times, the fastest.
#[must_use]
pub fn seen() -> Vec<Verified> {
    let mut rows = SEEN.lock().unwrap_or_else(PoisonError::into_inner).clone();
    rows.retain(|row| row.refused.is_none() && !NOT_OURS.contains(&row.name.as_str()));
    rows.sort_by(|a, b| (&a.name, a.time).cmp(&(&b.name, b.time)));
    rows.dedup_by(|later, first| later.name == first.name);
    rows
}

/// The program that the verifier looked at last.
#[must_use]
pub fn last() -> Option<Verified> {
    SEEN.lock().unwrap_or_else(PoisonError::into_inner).last().cloned()
}

fn parse(name: String, log: &str) -> Option<Verified> {
    let after = |word: &str| log.lines().find_map(|line| line.trim().strip_prefix(word)).map(str::trim);
    let number = |text: Option<&str>| text?.split(' ').next()?.parse::<u64>().ok();
    Some(Verified {
        name,
        instructions: number(after("processed "))?,
        time: Duration::from_micros(number(after("verification time ")).unwrap_or_default()),
        stack: after("stack depth ").unwrap_or_default().split(' ').next().unwrap_or_default().to_owned(),
        refused: None,
    })
}

/// The C library's function of this name.
///
/// # Safety
/// As for any system call: the arguments must be what the kernel expects for `number`.
// SAFETY: nothing else in the program defines the symbol; the C library itself does not call it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn syscall(
    number: c_long,
    a: usize,
    b: usize,
    c: usize,
    d: usize,
    e: usize,
    f: usize,
) -> c_long {
    let arguments = [a, b, c, d, e, f];
    let result = if number == libc::SYS_bpf && a == BPF_PROG_LOAD && c >= AT_NAME + NAME_BYTES {
        // SAFETY: the caller passes `union bpf_attr` of at least this size.
        unsafe { load(number, arguments) }
    } else {
        // SAFETY: handed on as it came.
        unsafe { raw(number, arguments) }
    };
    if (-4095..0).contains(&result) {
        // SAFETY: the location of this thread's errno is always valid.
        unsafe { *libc::__errno_location() = -result as c_int };
        return -1;
    }
    result
}

unsafe fn load(number: c_long, arguments: [usize; 6]) -> c_long {
    let attributes = arguments[1] as *mut u8;
    let read = |at: usize| {
        // SAFETY: inside the attributes, whose size the caller has checked.
        unsafe { attributes.add(at).cast::<u32>().read_unaligned() }
    };
    if read(AT_LOG_LEVEL) != 0 || read(AT_LOG_SIZE) != 0 {
        if TOO_LONG.swap(false, Ordering::Relaxed) {
            // The loader asks again for a log: of a million instructions, which says nothing and takes minutes.
            return -c_long::from(libc::E2BIG);
        }
        // SAFETY: handed on as it came.
        return unsafe { raw(number, arguments) };
    }
    let folder = std::env::var_os(LOG_FOLDER);
    let (level, size) = if folder.is_some() {
        (LOG_STATISTICS | LOG_STEPS, LONG_LOG_BYTES)
    } else {
        (LOG_STATISTICS, LOG_BYTES)
    };
    let mut log = vec![0u8; size];
    // SAFETY: fields inside the attributes; the log lives longer than the call and is taken out again.
    let (result, name) = unsafe {
        attributes.add(AT_LOG_LEVEL).cast::<u32>().write_unaligned(level);
        attributes.add(AT_LOG_SIZE).cast::<u32>().write_unaligned(size as u32);
        attributes.add(AT_LOG_BUFFER).cast::<u64>().write_unaligned(log.as_mut_ptr() as u64);
        let result = raw(number, arguments);
        attributes.add(AT_LOG_LEVEL).cast::<u32>().write_unaligned(0);
        attributes.add(AT_LOG_SIZE).cast::<u32>().write_unaligned(0);
        attributes.add(AT_LOG_BUFFER).cast::<u64>().write_unaligned(0);
        (result, std::slice::from_raw_parts(attributes.add(AT_NAME), NAME_BYTES))
    };
    let text = |bytes: &[u8]| {
        CStr::from_bytes_until_nul(bytes).map(|text| text.to_string_lossy().into_owned()).unwrap_or_default()
    };
    if let Some(folder) = folder {
        let path = Path::new(&folder).join(format!("{}.verifier", text(name)));
        // For a person at a terminal, who sees that it is missing.
        let _ = std::fs::write(path, text(&log));
    }
    if let Some(mut row) = parse(text(name), &text(&log)) {
        row.refused = (result < 0).then(|| text(&log));
        TOO_LONG.store(result == -c_long::from(libc::E2BIG), Ordering::Relaxed);
        SEEN.lock().unwrap_or_else(PoisonError::into_inner).push(row);
    }
    result
}

#[cfg(target_arch = "x86_64")]
unsafe fn raw(number: c_long, arguments: [usize; 6]) -> c_long {
    let [a, b, c, d, e, f] = arguments;
    let mut result = number;
    // SAFETY: the kernel's calling convention; what the call does is the caller's promise.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") result, in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e, in("r9") f,
            lateout("rcx") _, lateout("r11") _, options(nostack)
        );
    }
    result
}

#[cfg(target_arch = "aarch64")]
unsafe fn raw(number: c_long, arguments: [usize; 6]) -> c_long {
    let [a, b, c, d, e, f] = arguments;
    let mut result = a as c_long;
    // SAFETY: the kernel's calling convention; what the call does is the caller's promise.
    unsafe {
        std::arch::asm!(
            "svc 0",
            in("x8") number, inlateout("x0") result, in("x1") b, in("x2") c, in("x3") d, in("x4") e, in("x5") f,
            options(nostack)
        );
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_verifiers_statistics() {
        let log = "verification time 1234 usec\nstack depth 88+0\nprocessed 3210 insns (limit 1000000) max_states_per_insn 4\n";
        let row = parse("skep_from_pod".into(), log).unwrap();
        assert_eq!(
            (row.instructions, row.time, row.stack.as_str()),
            (3210, Duration::from_micros(1234), "88+0")
        );
        assert_eq!(parse("x".into(), ""), None);
    }

    #[test]
    fn other_system_calls_pass_through() {
        let pid = std::process::id();
        // SAFETY: getpid takes nothing.
        assert_eq!(unsafe { syscall(libc::SYS_getpid, 0, 0, 0, 0, 0, 0) }, c_long::from(pid));
        // SAFETY: a bad descriptor is an error and nothing more.
        assert_eq!(unsafe { syscall(libc::SYS_close, usize::MAX, 0, 0, 0, 0, 0) }, -1);
        assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::EBADF));
    }
}
