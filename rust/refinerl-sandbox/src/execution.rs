//! The event loop for one child, from its job to its end: deadlines, limits of output, and the kill.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{shutdown, Shutdown};
use rustix::process::{pidfd_send_signal, Signal};

use crate::capture::{Capture, Frame, Frames};
use crate::cgroup::Shortage;
use crate::channel::write;
use crate::job::Job;
use crate::usage::{self, Excess};
use crate::zygote::{Gone, Lost, Zygote};

/// The wait for a killed process. It ends at once, except on a machine in serious trouble.
const KILL_GRACE: Duration = Duration::from_secs(10);
/// The signal's number in a wait status.
const SIGKILL: i32 = 9;
/// Time between measurements of a test that no control group counts. Most tests end before the first one.
const MEASURE_INTERVAL: Duration = Duration::from_millis(10);
/// Bytes of standard error to keep.
const STDERR_TAIL: usize = 4096;

/// The reason for killing a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Killed {
    /// It reached the wall-clock limit.
    Wall,
    /// It wrote too much output.
    Output,
    /// The caller asked to stop.
    Interrupted,
    /// It took more than its kernel-enforced limits count.
    Excess(Excess),
}

/// The facts about a child that has ended.
pub struct Ending {
    /// Its status from wait(2).
    pub wait_status: i32,
    /// Set if the kernel killed it for want of memory.
    pub shortage: Option<Shortage>,
    /// The reason, if we killed it.
    pub killed: Option<Killed>,
    /// True if it ran out of time after waiting for a processor most of that time.
    pub crowded: bool,
    /// Its answer on the control socket, from before the program ran.
    pub control: Vec<u8>,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// The end of standard error.
    pub stderr: Vec<u8>,
    /// True if bytes are left that make no frame.
    pub garbled: bool,
    /// Wall-clock time.
    pub wall: Duration,
    /// Seconds of user and system time.
    pub cpu: f64,
}

struct Running<'a> {
    job: &'a Job<'a>,
    stdin: Option<OwnedFd>,
    stdin_rest: &'a [u8],
    control: OwnedFd,
    control_rest: &'a [u8],
    control_in: Capture,
    stdout: Capture,
    stderr: Capture,
    frames: Frames<'a>,
    pid: i32,
    pidfd: OwnedFd,
    killed: Option<Killed>,
    crowded: bool,
    deadline: Instant,
    /// The time of the next measurement; None if a control group counts, or if it cannot be measured.
    measure: Option<Instant>,
    number: Option<i32>,
}

/// Run one child of `zygote` to its end; `take` gets its results as they arrive. `cancel` becomes readable when the
/// caller asks to stop.
pub fn execute<'a>(
    zygote: &mut Zygote,
    job: &'a Job<'_>,
    cancel: BorrowedFd<'_>,
    take: &'a mut dyn FnMut(Frame),
) -> Result<Ending, Lost> {
    let child = zygote.take()?;
    zygote.limit(job.memory)?;
    let start = Instant::now();
    let [stdin, stdout, stderr] = child.streams;
    let mut running = Running {
        job,
        stdin: Some(stdin),
        stdin_rest: job.stdin,
        control_in: Capture::new(
            child.control.try_clone().map_err(|_| Errno::MFILE)?,
            1 << 16,
            usize::MAX,
        )?,
        control: child.control,
        control_rest: &job.control,
        stdout: Capture::new(stdout, job.output, job.keep)?,
        stderr: Capture::new(stderr, job.output, STDERR_TAIL)?,
        frames: Frames::new(child.results, job.results, job.result, take)?,
        pid: child.pid,
        pidfd: child.pidfd,
        killed: None,
        crowded: false,
        deadline: start + job.wall,
        measure: zygote.unaccounted().then(|| start + MEASURE_INTERVAL),
        number: None,
    };
    running.feed();
    let Gone { wait_status, cpu, .. } = running.watch(zygote, cancel)?;
    running.drain();
    if running.overflown() {
        running.killed.get_or_insert(Killed::Output);
    }
    Ok(Ending {
        wait_status,
        shortage: (running.killed.is_none() && wait_status & 0x7f == SIGKILL)
            .then(|| zygote.shortage())
            .flatten(),
        killed: running.killed,
        crowded: running.crowded,
        control: running.control_in.bytes,
        stdout: running.stdout.tail(),
        stderr: running.stderr.tail(),
        garbled: running.frames.garbled(),
        wall: start.elapsed(),
        cpu,
    })
}

impl Running<'_> {
    /// Loop until the zygote reports the end of the child.
    fn watch(&mut self, zygote: &mut Zygote, cancel: BorrowedFd<'_>) -> Result<Gone, Lost> {
        loop {
            let ready = self.wait(zygote.socket(), cancel)?;
            if ready.zygote {
                match zygote.hear()? {
                    Some(gone) if gone.pid == self.pid => return Ok(gone),
                    Some(_) => return Err(Lost("a child ended before it had a job".into())),
                    None => {}
                }
            }
            self.feed();
            self.drain();
            if self.overflown() {
                self.kill(Killed::Output);
            }
            if ready.cancel {
                self.kill(Killed::Interrupted);
            }
            if Instant::now() >= self.deadline {
                if self.killed.is_some() {
                    return Err(Lost("a killed test did not end".into()));
                }
                self.crowded = self
                    .number()
                    .is_some_and(|number| usage::crowded(number, self.job.wall));
                self.kill(Killed::Wall);
            }
            if self.measure.is_some_and(|time| Instant::now() >= time) {
                self.measure();
            }
        }
    }

    /// Check what no other limit counts; kill the child if it took too much.
    fn measure(&mut self) {
        let number = self.number();
        if let Some(excess) = number.and_then(|number| usage::excess(number, self.job.memory)) {
            self.kill(Killed::Excess(excess));
        }
        self.measure = (number.is_some() && self.killed.is_none()).then(|| Instant::now() + MEASURE_INTERVAL);
    }

    fn number(&mut self) -> Option<i32> {
        self.number = self.number.or_else(|| usage::number(&self.pidfd));
        self.number
    }

    fn wait(&self, zygote: &OwnedFd, cancel: BorrowedFd<'_>) -> Result<Ready, Lost> {
        let mut fds = vec![PollFd::new(zygote, PollFlags::IN)];
        if self.killed.is_none() {
            fds.push(PollFd::from_borrowed_fd(cancel, PollFlags::IN));
        }
        let watched = fds.len();
        // The answer on control fits the socket's buffer, and is read at the end.
        let reading = [&self.stdout, &self.stderr, &self.frames.capture];
        fds.extend(
            reading
                .iter()
                .filter_map(|capture| capture.fd.as_ref())
                .map(|fd| PollFd::new(fd, PollFlags::IN)),
        );
        fds.extend(self.stdin.as_ref().map(|fd| PollFd::new(fd, PollFlags::OUT)));
        if !self.control_rest.is_empty() {
            fds.push(PollFd::new(&self.control, PollFlags::OUT));
        }
        let next = self.measure.map_or(self.deadline, |time| time.min(self.deadline));
        let left = next.saturating_duration_since(Instant::now());
        match poll(&mut fds, Timespec::try_from(left).ok().as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let set = |index: usize| index < watched && !fds[index].revents().is_empty();
        Ok(Ready {
            zygote: set(0),
            cancel: set(1),
        })
    }

    /// Write as much as fits now. A child that does not read its input is no error.
    fn feed(&mut self) {
        while !self.control_rest.is_empty() {
            match write(&self.control, self.control_rest) {
                Ok(count) => self.control_rest = &self.control_rest[count..],
                Err(Errno::AGAIN) => break,
                Err(_) => self.control_rest = &[],
            }
            if self.control_rest.is_empty() {
                let _ = shutdown(&self.control, Shutdown::Write);
            }
        }
        while let Some(stdin) = &self.stdin {
            match write(stdin, self.stdin_rest) {
                Ok(count) if count < self.stdin_rest.len() => self.stdin_rest = &self.stdin_rest[count..],
                Err(Errno::AGAIN) => break,
                _ => {
                    // The child must see the end even if a fork of this process holds a copy of the socket.
                    let _ = shutdown(stdin, Shutdown::Write);
                    self.stdin = None;
                }
            }
        }
    }

    /// Read what is available. A complete result restarts the wall clock for the next one.
    fn drain(&mut self) {
        self.control_in.drain();
        self.stdout.drain();
        self.stderr.drain();
        if self.frames.drain() && self.killed.is_none() {
            self.deadline = Instant::now() + self.job.wall;
        }
    }

    fn overflown(&self) -> bool {
        self.stdout.overflown() || self.stderr.overflown() || self.frames.overflown()
    }

    fn kill(&mut self, reason: Killed) {
        if self.killed.is_none() {
            self.killed = Some(reason);
            self.deadline = Instant::now() + KILL_GRACE;
            self.signal();
        }
    }

    fn signal(&self) {
        // ESRCH: it ended in the meantime.
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
    }
}

struct Ready {
    zygote: bool,
    cancel: bool,
}
