//! Measurement of a running test in /proc: resources that its limits do not count, and its wait for a processor.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

/// Most threads of a test. Where the kernel can count them per namespace, `python/probe.py` sets the same limit.
pub const THREADS: u64 = 128;
/// Bytes beyond the memory of a test: the warm interpreter, of which a test has at worst a full copy.
const ROOM: u64 = 128 << 20;

/// A resource of which a test took too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Excess {
    /// Resident memory, page tables included.
    Memory,
    /// Threads at the same time.
    Threads,
}

/// The pid of the process in /proc, whatever namespace it is in.
pub fn number(pidfd: &OwnedFd) -> Option<i32> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).ok()?;
    let pid = text.lines().find_map(|line| line.strip_prefix("Pid:"))?.trim().parse();
    pid.ok().filter(|&pid| pid > 0)
}

/// Check if a process has more than `memory` bytes, or more threads than a test may have.
pub fn excess(pid: i32, memory: u64) -> Option<Excess> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |name: &str| -> u64 {
        let value = status.lines().find_map(|line| line.strip_prefix(name));
        value
            .and_then(|text| text.split_whitespace().next()?.parse().ok())
            .unwrap_or(0)
    };
    let kilobytes = field("RssAnon:") + field("RssShmem:") + field("VmSwap:") + field("VmPTE:");
    if kilobytes << 10 > memory.saturating_add(ROOM) {
        return Some(Excess::Memory);
    }
    (field("Threads:") > THREADS).then_some(Excess::Threads)
}

/// Check if a test that ran out of time spent most of it waiting for a processor, and got little of one.
pub fn crowded(pid: i32, wall: Duration) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return false;
    };
    let (mut ran, mut waited) = (0, 0);
    for thread in threads.flatten() {
        let text = fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
        let mut numbers = text.split_whitespace().map_while(|word| word.parse::<u64>().ok());
        ran += numbers.next().unwrap_or(0);
        waited = waited.max(numbers.next().unwrap_or(0));
    }
    let wall = wall.as_nanos() as u64;
    ran < wall / 4 && waited > wall / 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{getpid, pidfd_open, PidfdFlags};

    #[test]
    fn a_process_is_found_by_its_descriptor_and_measured() {
        let pid = getpid();
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).unwrap();
        let number = number(&pidfd).unwrap();
        assert_eq!(number, pid.as_raw_nonzero().get());
        assert_eq!(excess(number, 1 << 40), None);
        let _hold = std::hint::black_box(vec![1u8; 160 << 20]);
        assert_eq!(excess(number, 0), Some(Excess::Memory));
        assert!(!crowded(number, Duration::from_secs(1 << 30)));
    }
}
