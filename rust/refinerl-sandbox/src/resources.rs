//! Resources of this process that workers need: enough descriptors, and messages that name what is missing.

use std::fs;

use rustix::process::{getrlimit, setrlimit, Resource, Rlimit};

use crate::Error;

/// Descriptors of a worker: its socket, a pidfd, a pidfd and five ends for each of two tests, one copy, and a few for
/// its start.
const DESCRIPTORS: usize = 17;
/// Processes and threads of a worker: a thread of ours, a zygote, the process that waits for it, a test, and the child
/// that waits for a job.
const PROCESSES: usize = 5;
/// Memory of a worker: its zygote and the child that waits, mostly in pages of their own.
const MEGABYTES: usize = 32;
/// Descriptors for other code that opens files while programs are judged.
const SPARE: usize = 64;
/// Address space of a worker's thread: its stack and, for at most `ARENAS` threads per core, an arena of the C library.
const STACK: u64 = 2 << 20;
const ARENA: u64 = 64 << 20;
const ARENAS: usize = 8;

/// Check the limits of this process, and raise its soft limit of descriptors to what the workers need.
///
/// The error says how much is needed.
pub fn ensure(workers: usize) -> Result<(), Error> {
    ensure_addresses(workers)?;
    ensure_descriptors(workers)
}

/// Check the limit of address space: arenas of threads take what is left of it, and then the next allocation aborts.
fn ensure_addresses(workers: usize) -> Result<(), Error> {
    let Some(limit) = getrlimit(Resource::As).current else {
        return Ok(());
    };
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let size = status.lines().find_map(|line| line.strip_prefix("VmSize:"));
    let kibibytes = size.and_then(|size| size.trim().split(' ').next()?.parse::<u64>().ok());
    let taken = kibibytes.unwrap_or(0) << 10;
    let arenas = workers.min(ARENAS * std::thread::available_parallelism().map_or(1, usize::from)) as u64;
    let needed = taken + workers as u64 * STACK + (arenas + 1) * ARENA;
    if limit >= needed {
        return Ok(());
    }
    Err(Error::Fault(format!(
        "{workers} workers need {} MiB of address space (ulimit -v), and this process may have {}",
        needed.div_ceil(1 << 20),
        limit >> 20
    )))
}

fn ensure_descriptors(workers: usize) -> Result<(), Error> {
    let open = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    let needed = (workers * DESCRIPTORS + open + SPARE) as u64;
    let limit = getrlimit(Resource::Nofile);
    let (soft, hard) = (limit.current.unwrap_or(u64::MAX), limit.maximum.unwrap_or(u64::MAX));
    if soft >= needed {
        return Ok(());
    }
    if hard >= needed {
        let raised = Rlimit {
            current: Some(needed),
            maximum: limit.maximum,
        };
        return setrlimit(Resource::Nofile, raised).map_err(|errno| Error::Fault(errno.to_string()));
    }
    let fit = hard.saturating_sub((open + SPARE) as u64) / DESCRIPTORS as u64;
    Err(Error::Fault(format!(
        "{workers} workers need {needed} file descriptors (ulimit -n), and this process may have {hard}: \
         enough for {fit} workers"
    )))
}

/// Add to an error the number that is needed, if a resource ran out.
pub fn explain(error: Error, workers: usize, starved: bool) -> Error {
    let Error::Fault(text) = error else { return error };
    let needs = if starved {
        let needed = workers * MEGABYTES;
        format!("memory ran out: {workers} workers need about {needed} MiB beside what programs take")
    } else if text.contains("Resource temporarily unavailable") {
        let needed = workers * PROCESSES;
        format!("{workers} workers need up to {needed} processes and threads (ulimit -u, or pids.max of the container)")
    } else {
        return Error::Fault(text);
    };
    Error::Fault(format!("{needs}; {text}"))
}
