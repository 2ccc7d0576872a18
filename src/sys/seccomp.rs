//! Refusing io_uring to a thread and all that it starts, as container runtimes do by default.
#![expect(unsafe_code, reason = "seccomp takes a program by raw pointer")]

use std::io;

/// Makes the three calls of io_uring fail with `EPERM` on the calling thread and every thread and
/// process it starts from now on. There is no way back.
///
/// # Errors
/// The kernel's: built without seccomp.
pub fn refuse_io_uring() -> io::Result<()> {
    refuse_calls(&[libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register])
}

/// Makes these calls, at most 200, fail in the same way.
///
/// # Errors
/// More than 200; or the kernel's: built without seccomp.
pub fn refuse_calls(calls: &[i64]) -> io::Result<()> {
    let statement = |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter { code: code as u16, jt, jf, k };
    let refuse = libc::SECCOMP_RET_ERRNO | (libc::EPERM as u32 & libc::SECCOMP_RET_DATA);
    if calls.len() > 200 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "more than 200 calls to refuse"));
    }
    let mut statements = vec![statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0)];
    for (index, call) in calls.iter().enumerate() {
        // A match jumps over the other comparisons and the leave to go on.
        let over = u8::try_from(calls.len() - index).unwrap_or(u8::MAX);
        let number = u32::try_from(*call).unwrap_or(u32::MAX);
        statements.push(statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, over, 0, number));
    }
    statements.push(statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW));
    statements.push(statement(libc::BPF_RET | libc::BPF_K, 0, 0, refuse));
    let program = libc::sock_fprog { len: statements.len() as u16, filter: statements.as_mut_ptr() };
    // SAFETY: takes five numbers and no pointer.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the vector of statements and the program that points to it live through the call, which
    // copies both.
    let result =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::super::ring::{Ring, RingOptions};
    use super::*;

    #[test]
    fn a_refused_ring_says_so() {
        let options = RingOptions {
            submissions: 8,
            completions: 16,
            direct_max: 1,
            sends_max: 1,
            datagram_buffers: 2,
            datagram_len: 64,
            stream_buffers: 2,
            stream_len: 64,
        };
        let error = std::thread::spawn(move || {
            refuse_io_uring().unwrap();
            Ring::new(&options).err().unwrap().to_string()
        });
        let error = error.join().unwrap();
        assert!(error.starts_with("io_uring_setup: EPERM: refused by a seccomp profile"), "{error}");
    }
}
