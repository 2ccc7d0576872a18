//! Refusing io_uring to a thread and all that it starts, as container runtimes do by default.
#![expect(unsafe_code, reason = "seccomp takes a program by raw pointer")]

use std::io;

/// Makes the three calls of io_uring fail with `EPERM` on the calling thread and every thread and
/// process it starts from now on. There is no way back.
///
/// # Errors
/// The kernel's: built without seccomp.
pub fn refuse_io_uring() -> io::Result<()> {
    let first = u32::try_from(libc::SYS_io_uring_setup).unwrap_or(u32::MAX);
    let last = u32::try_from(libc::SYS_io_uring_register).unwrap_or(u32::MAX);
    let statement = |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter { code: code as u16, jt, jf, k };
    let refuse = libc::SECCOMP_RET_ERRNO | (libc::EPERM as u32 & libc::SECCOMP_RET_DATA);
    // The calls are numbered 425 to 427 on every architecture, so theirs need not be looked at.
    let mut program = [
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        statement(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, 0, 2, first),
        statement(libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K, 1, 0, last),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, refuse),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: takes five numbers and no pointer.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the program and its statements live through the call, which copies them.
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
