//! Asks a kernel what it can do, by trying: each answer has the name that tests/kernels.toml uses.

use std::io;

use serde_json::{Map, Value};

const BPF_PROG_LOAD: libc::c_long = 5;
const SOCKET_FILTER: u32 = 1;
const CGROUP_SOCK_ADDR: u32 = 18;
const CONNECT4: u32 = 10;
const HELPER_LOOP: i32 = 181;
const HELPER_SET_RETVAL: i32 = 187;

/// One instruction: operation, registers (source << 4 | destination), offset, immediate.
#[repr(C)]
#[derive(Clone, Copy)]
struct Instruction(u8, u8, i16, i32);

const EXIT: Instruction = Instruction(0x95, 0, 0, 0);
const RETURN_1: Instruction = Instruction(0xb7, 0, 0, 1);

const fn call(helper: i32) -> Instruction {
    Instruction(0x85, 0, 0, helper)
}

/// The part of `union bpf_attr` that loading a program needs.
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
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    ifindex: u32,
    expected_attach: u32,
}

/// Loads a program; the error carries the verifier's words.
fn load(kind: u32, expected_attach: u32, program: &[Instruction]) -> Result<(), (io::Error, String)> {
    let mut log = vec![0u8; 65_536];
    let attributes = Load {
        kind,
        count: program.len() as u32,
        instructions: program.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        log_level: 1,
        log_size: log.len() as u32,
        log: log.as_mut_ptr() as u64,
        expected_attach,
        ..Load::default()
    };
    // SAFETY: the attributes and all that they point to live until the call returns.
    let descriptor =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const attributes, size_of::<Load>()) };
    if descriptor < 0 {
        let error = io::Error::last_os_error();
        let end = log.iter().position(|byte| *byte == 0).unwrap_or(log.len());
        return Err((error, String::from_utf8_lossy(&log[..end]).into_owned()));
    }
    // SAFETY: the descriptor is ours and used nowhere else.
    unsafe { libc::close(descriptor as i32) };
    Ok(())
}

/// A helper that the kernel has is refused for its arguments, one that it lacks for its number.
fn has_helper(kind: u32, expected_attach: u32, helper: i32) -> bool {
    match load(kind, expected_attach, &[call(helper), RETURN_1, EXIT]) {
        Ok(()) => true,
        Err((_, words)) => !["invalid func", "unknown func", "cannot use helper"]
            .iter()
            .any(|refusal| words.contains(refusal)),
    }
}

fn has_fetch_atomics() -> bool {
    let program = [
        // r1 = 1; *(u64 *)(r10 - 8) = r1; r1 = fetch_add(r10 - 8, r1); return 1
        Instruction(0xb7, 1, 0, 1),
        Instruction(0x7b, 0x1a, -8, 0),
        Instruction(0xdb, 0x1a, -8, 1),
        RETURN_1,
        EXIT,
    ];
    load(SOCKET_FILTER, 0, &program).is_ok()
}

fn has_sctp() -> bool {
    // SAFETY: no pointers; the descriptor is closed at once.
    unsafe {
        let socket = libc::socket(libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_SCTP);
        socket >= 0 && libc::close(socket) == 0
    }
}

/// Whether sockets can be destroyed: asked for one that does not exist, a kernel that cannot says so first.
fn has_sock_destroy() -> bool {
    const SOCK_DESTROY: u16 = 21;
    const REQUEST_AND_ACK: u16 = 1 | 4;
    let mut request = [0u8; 72];
    request[..4].copy_from_slice(&72u32.to_ne_bytes());
    request[4..6].copy_from_slice(&SOCK_DESTROY.to_ne_bytes());
    request[6..8].copy_from_slice(&REQUEST_AND_ACK.to_ne_bytes());
    (request[16], request[17]) = (libc::AF_INET as u8, libc::IPPROTO_UDP as u8);
    request[20..24].copy_from_slice(&u32::MAX.to_ne_bytes());
    // From 127.0.0.1:9 to 127.0.0.1:9, whatever its cookie.
    request[24..28].copy_from_slice(&[0, 9, 0, 9]);
    request[28..32].copy_from_slice(&[127, 0, 0, 1]);
    request[44..48].copy_from_slice(&[127, 0, 0, 1]);
    request[64..72].fill(0xff);
    let mut answer = [0u8; 512];
    // SAFETY: plain descriptors, and buffers with their own lengths.
    let received = unsafe {
        let socket =
            libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_SOCK_DIAG);
        libc::send(socket, request.as_ptr().cast(), request.len(), 0);
        let received = libc::recv(socket, answer.as_mut_ptr().cast(), answer.len(), 0);
        libc::close(socket);
        received
    };
    let code = i32::from_ne_bytes([answer[16], answer[17], answer[18], answer[19]]);
    received >= 20 && (code == 0 || code == -libc::ENOENT)
}

/// All that needs no data path.
#[must_use]
pub fn probe() -> Map<String, Value> {
    let answers = [
        ("bpf_loop", has_helper(SOCKET_FILTER, 0, HELPER_LOOP)),
        ("fetch_atomics", has_fetch_atomics()),
        ("set_retval", has_helper(CGROUP_SOCK_ADDR, CONNECT4, HELPER_SET_RETVAL)),
        ("sctp", has_sctp()),
        ("sock_destroy", has_sock_destroy()),
    ];
    answers.into_iter().map(|(name, answer)| (name.to_owned(), answer.into())).collect()
}
