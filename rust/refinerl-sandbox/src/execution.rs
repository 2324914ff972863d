//! One child, from the order to its end: the event loop that owns deadlines, output caps and the kill.

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

/// A killed process is gone at once; this long only on a machine in deep trouble.
const KILL_GRACE: Duration = Duration::from_secs(10);
/// As wait(2) reports it.
const SIGKILL: i32 = 9;
/// How often a test is measured where no control group counts. Most have ended before the first time.
const MEASURE_INTERVAL: Duration = Duration::from_millis(10);
/// Kept of standard error.
const STDERR_TAIL: usize = 4096;

/// Why we killed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Killed {
    /// The wall clock.
    Wall,
    /// Too much output.
    Output,
    /// The caller wants to stop.
    Interrupted,
    /// It took more than its limits count.
    Excess(Excess),
}

/// What is known once it is gone.
pub struct Ending {
    /// As wait(2) reports it.
    pub wait_status: i32,
    /// The kernel killed it for want of memory.
    pub shortage: Option<Shortage>,
    /// Why we killed it, if we did.
    pub killed: Option<Killed>,
    /// It ran out of time, and had waited for a processor most of it.
    pub crowded: bool,
    /// What came over the control socket before user code ran.
    pub control: Vec<u8>,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// The end of standard error.
    pub stderr: Vec<u8>,
    /// What followed the frames was none.
    pub garbled: bool,
    /// On the clock.
    pub wall: Duration,
    /// User and system time.
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
    /// When it is measured next; None where the kernel counts for us, or where it cannot be measured.
    measure: Option<Instant>,
    number: Option<i32>,
}

/// Run one child of `zygote` until it is gone; `take` gets its results as they come. `cancel` becomes readable when the
/// caller wants to stop.
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
    /// Until the zygote reports the child's end.
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

    /// What no limit and no control group counts.
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
        // What comes over control fits its buffer, and is read in the end.
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
                    // Its end must be seen also where a fork of this process holds a copy of the socket.
                    let _ = shutdown(stdin, Shutdown::Write);
                    self.stdin = None;
                }
            }
        }
    }

    /// Read what is there. Each complete result begins the next one's time.
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
        // ESRCH: it ended by itself in the meantime.
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
    }
}

struct Ready {
    zygote: bool,
    cancel: bool,
}
