//! The two seccomp filters: the system calls that a zygote and its children may make, and those of them that a child
//! gives up.

use std::collections::BTreeMap;

use seccompiler::{
    sock_filter, BpfProgram, SeccompAction, SeccompCmpArgLen::Dword, SeccompCmpArgLen::Qword, SeccompCmpOp,
    SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

/// A placeholder for the child's own pid in the second filter; see `jail.py`.
const PID_MARK: u64 = 0x7FFF_FFF1;

/// System calls without conditions: files by descriptor or by name, memory, time, threads, signals to oneself,
/// identity. No exec, no sockets (but see `first`), no ptrace, no mounts, no keyrings, no bpf, no perf, no userfaultfd,
/// no io_uring, no memfd, no System V IPC, no links, no renames, no removals, no modes.
const ALLOWED: &[libc::c_long] = &[
    libc::SYS_brk,
    libc::SYS_capget,
    libc::SYS_chdir,
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_eventfd2,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fadvise64,
    libc::SYS_fcntl,
    libc::SYS_fdatasync,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_fsync,
    libc::SYS_futex,
    libc::SYS_getcpu,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getgroups,
    libc::SYS_getitimer,
    libc::SYS_getpgid,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_getpriority,
    libc::SYS_getrandom,
    libc::SYS_getresgid,
    libc::SYS_getresuid,
    libc::SYS_getrusage,
    libc::SYS_getsid,
    libc::SYS_gettid,
    libc::SYS_gettimeofday,
    libc::SYS_getuid,
    libc::SYS_kill,
    libc::SYS_lseek,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    libc::SYS_mincore,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_nanosleep,
    libc::SYS_newfstatat,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_send_signal,
    libc::SYS_pipe2,
    libc::SYS_ppoll,
    libc::SYS_prctl,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_prlimit64,
    libc::SYS_pselect6,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_read,
    libc::SYS_readlinkat,
    libc::SYS_readv,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigpending,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigsuspend,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_sched_get_priority_max,
    libc::SYS_sched_get_priority_min,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_getparam,
    libc::SYS_sched_getscheduler,
    libc::SYS_sched_yield,
    libc::SYS_sendmsg,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_setitimer,
    libc::SYS_setsid,
    libc::SYS_shutdown,
    libc::SYS_sigaltstack,
    libc::SYS_statfs,
    libc::SYS_statx,
    libc::SYS_sysinfo,
    libc::SYS_tgkill,
    libc::SYS_times,
    libc::SYS_umask,
    libc::SYS_uname,
    libc::SYS_wait4,
    libc::SYS_waitid,
    libc::SYS_write,
    libc::SYS_writev,
];

/// System calls that only older architectures still have.
#[cfg(target_arch = "x86_64")]
const ALLOWED_HERE: &[libc::c_long] = &[
    libc::SYS_access,
    libc::SYS_alarm,
    libc::SYS_arch_prctl,
    libc::SYS_dup2,
    libc::SYS_epoll_create,
    libc::SYS_epoll_wait,
    libc::SYS_fork,
    libc::SYS_getpgrp,
    libc::SYS_getrlimit,
    libc::SYS_lstat,
    libc::SYS_pause,
    libc::SYS_pipe,
    libc::SYS_poll,
    libc::SYS_readlink,
    libc::SYS_select,
    libc::SYS_setrlimit,
    libc::SYS_stat,
    libc::SYS_time,
    libc::SYS_vfork,
];
#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_HERE: &[libc::c_long] = &[];

/// Requests of ioctl that Python makes on a pipe: terminal state, blocking and close-on-exec flags, bytes that wait.
const IOCTLS: [u64; 6] = [0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451];
/// Flags of `open` that create or change something.
const OPEN_WRITES: u64 = (libc::O_WRONLY | libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC | libc::O_APPEND) as u64;
const NAMESPACES: u64 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_PTRACE) as u64;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Build the allow-list of the zygote, which every child inherits. Everything else is EPERM. Foreign architectures and
/// x32 are killed. clone3, whose flags a filter cannot see, is ENOSYS. If neither a read-only root folder nor Landlock
/// denies writing (`confine_writes`), files cannot be opened for writing at all.
pub fn first(confine_writes: bool) -> Result<Vec<u8>, String> {
    let mut rules: Rules = ALLOWED
        .iter()
        .chain(ALLOWED_HERE)
        .map(|&number| (number, Vec::new()))
        .collect();
    rules.insert(
        libc::SYS_ioctl,
        IOCTLS
            .iter()
            .map(|&request| rule(&[equal(1, request)?]))
            .collect::<Result<_, _>>()?,
    );
    rules.insert(libc::SYS_clone, vec![rule(&[masked(0, NAMESPACES, 0)?])?]);
    // A pair of sockets stays inside the process (asyncio uses one), and sendto without an address reaches only its
    // peer.
    rules.insert(libc::SYS_socketpair, vec![rule(&[equal(0, libc::AF_UNIX as u64)?])?]);
    rules.insert(
        libc::SYS_sendto,
        vec![rule(&[condition(4, Qword, SeccompCmpOp::Eq, 0)?])?],
    );
    let flags = |argument| {
        if confine_writes {
            Ok(vec![rule(&[masked(argument, OPEN_WRITES, 0)?])?])
        } else {
            Ok(vec![])
        }
    };
    let flags: &dyn Fn(u8) -> Result<Vec<SeccompRule>, String> = &flags;
    rules.insert(libc::SYS_openat, flags(2)?);
    #[cfg(target_arch = "x86_64")]
    rules.insert(libc::SYS_open, flags(1)?);
    let program = compile(rules, SeccompAction::Errno(libc::EPERM as u32), SeccompAction::Allow)?;
    Ok(bytes(&[&prologue(), program.as_slice()].concat()))
}

/// Build the filter that a child installs right before its program. It denies descendants, signals and limits of other
/// processes, and descriptors from them; shared memory, whose pages remain after the addresses that a limit counts are
/// unmapped; and the uses of `fcntl` whose effect outlasts the call (owners, notices, locks and leases, which other
/// tests could see).
pub fn second() -> Result<Vec<u8>, String> {
    let mut rules = Rules::new();
    let not_me = |argument| condition(argument, Dword, SeccompCmpOp::Ne, PID_MARK);
    let not = |argument, value: i32| condition(argument, Dword, SeccompCmpOp::Ne, value as u64);
    rules.insert(
        libc::SYS_clone,
        vec![rule(&[masked(0, libc::CLONE_THREAD as u64, 0)?])?],
    );
    #[cfg(target_arch = "x86_64")]
    for number in [libc::SYS_fork, libc::SYS_vfork] {
        rules.insert(number, Vec::new());
    }
    for number in [libc::SYS_kill, libc::SYS_tgkill] {
        rules.insert(number, vec![rule(&[not_me(0)?])?]);
    }
    rules.insert(libc::SYS_prlimit64, vec![rule(&[not_me(0)?, not(0, 0)?])?]);
    rules.insert(
        libc::SYS_prctl,
        vec![rule(&[not(0, libc::PR_SET_NAME)?, not(0, libc::PR_GET_NAME)?])?],
    );
    let commands = FCNTL
        .iter()
        .map(|&command| not(1, command))
        .collect::<Result<Vec<_>, _>>()?;
    rules.insert(libc::SYS_fcntl, vec![rule(&commands)?]);
    rules.insert(
        libc::SYS_mmap,
        vec![rule(&[masked(3, libc::MAP_SHARED as u64, libc::MAP_SHARED as u64)?])?],
    );
    for number in [
        libc::SYS_pidfd_open,
        libc::SYS_pidfd_send_signal,
        libc::SYS_recvmsg,
        libc::SYS_sendmsg,
        libc::SYS_setsid,
    ] {
        rules.insert(number, Vec::new());
    }
    let program = compile(rules, SeccompAction::Allow, SeccompAction::Errno(libc::EPERM as u32))?;
    Ok(bytes(&program))
}

/// Commands of fcntl that a child may use.
const FCNTL: [i32; 7] = [
    libc::F_DUPFD,
    libc::F_DUPFD_CLOEXEC,
    libc::F_GETFD,
    libc::F_SETFD,
    libc::F_GETFL,
    libc::F_SETFL,
    libc::F_GETPIPE_SZ,
];

/// The head of the filter: clone3 is ENOSYS, so that libc falls back to clone, and x32 numbers are killed. The check of
/// the architecture that seccompiler adds follows, and kills too.
fn prologue() -> Vec<sock_filter> {
    let instruction = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    let (load, equal, above, answer) = (0x20, 0x15, 0x35, 0x06);
    vec![
        instruction(load, 0, 0, 0),
        instruction(equal, 0, 1, libc::SYS_clone3 as u32),
        instruction(answer, 0, 0, libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32),
        instruction(above, 0, 1, 0x4000_0000),
        instruction(answer, 0, 0, libc::SECCOMP_RET_KILL_PROCESS),
    ]
}

fn compile(rules: Rules, otherwise: SeccompAction, matched: SeccompAction) -> Result<BpfProgram, String> {
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(|error| error.to_string())?;
    SeccompFilter::new(rules, otherwise, matched, arch)
        .and_then(TryInto::try_into)
        .map_err(|error| format!("seccomp filter: {error}"))
}

fn condition(
    argument: u8,
    length: seccompiler::SeccompCmpArgLen,
    operator: SeccompCmpOp,
    value: u64,
) -> Result<SeccompCondition, String> {
    SeccompCondition::new(argument, length, operator, value).map_err(|error| error.to_string())
}

fn equal(argument: u8, value: u64) -> Result<SeccompCondition, String> {
    condition(argument, Dword, SeccompCmpOp::Eq, value)
}

fn masked(argument: u8, mask: u64, value: u64) -> Result<SeccompCondition, String> {
    condition(argument, Dword, SeccompCmpOp::MaskedEq(mask), value)
}

fn rule(conditions: &[SeccompCondition]) -> Result<SeccompRule, String> {
    SeccompRule::new(conditions.to_vec()).map_err(|error| error.to_string())
}

fn bytes(program: &[sock_filter]) -> Vec<u8> {
    program
        .iter()
        .flat_map(|i| {
            let [code, k] = [i.code.to_le_bytes().to_vec(), i.k.to_le_bytes().to_vec()];
            [code, vec![i.jt, i.jf], k].concat()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_filters_fit_the_kernel() {
        for program in [
            super::first(true).unwrap(),
            super::first(false).unwrap(),
            super::second().unwrap(),
        ] {
            assert!(
                program.len() % 8 == 0 && program.len() / 8 < 4096,
                "{} bytes",
                program.len()
            );
        }
    }

    #[test]
    fn the_second_filter_names_the_pid_where_each_child_puts_its_own() {
        let mark = (super::PID_MARK as u32).to_le_bytes();
        let found = super::second()
            .unwrap()
            .chunks_exact(8)
            .filter(|i| i[4..] == mark)
            .count();
        assert_eq!(found, 3, "kill, tgkill, prlimit64");
    }
}
