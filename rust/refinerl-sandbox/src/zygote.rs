//! A zygote as the trainer sees it. Its own code is in `python/zygote.py`.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;

use crate::cgroup::{self, Group, Parent, Shortage};
use crate::channel::{readable, receive, send};
use crate::process::{Interpreter, Modules, Process};
use crate::value::Value;
use crate::{wire, Error};

/// The parameters for starting zygotes.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The interpreter.
    pub interpreter: Interpreter,
    /// The modules that it runs.
    pub modules: Modules,
    /// The plan of the probe.
    pub plan: Value,
    /// True if nothing but being undumpable keeps a process out of the reach of programs of the same user.
    pub visible: bool,
    /// The Landlock ruleset, if the kernel offers Landlock.
    pub landlock: Option<Arc<OwnedFd>>,
    /// The place for control groups, if they can be created.
    pub groups: Option<Parent>,
    /// The allow-list of system calls.
    pub first_filter: Vec<u8>,
    /// The filter that each child adds.
    pub second_filter: Vec<u8>,
}

/// The wait for a fork. It takes a millisecond, except on a machine in serious trouble.
const FORK_TIMEOUT: Duration = Duration::from_secs(10);

/// An error: the zygote has ended, or does not behave as it should.
#[derive(Debug)]
pub struct Lost(pub String);

impl From<Errno> for Lost {
    fn from(errno: Errno) -> Lost {
        Lost(errno.to_string())
    }
}

/// A child that waits for its job, and our ends of its descriptors.
pub struct Waiting {
    /// Its pid in the zygote's namespace.
    pub pid: i32,
    /// The descriptor for killing it.
    pub pidfd: OwnedFd,
    /// Its standard input, standard output, standard error.
    pub streams: [OwnedFd; 3],
    /// The socket for its job and for its answer from before the program runs.
    pub control: OwnedFd,
    /// The pipe of results of calls.
    pub results: OwnedFd,
}

/// A child that has ended.
pub struct Gone {
    /// Its pid in the zygote's namespace.
    pub pid: i32,
    /// Its status from wait(2).
    pub wait_status: i32,
    /// Seconds of user and system time.
    pub cpu: f64,
}

/// A running zygote and the child that it has ready. Dropping it ends it and all its children, and reaps it.
pub struct Zygote {
    next: Option<Waiting>,
    // Dropped in this order, because a group can only be removed once its processes have ended.
    process: Process,
    group: Option<Group>,
    /// The counters of kills and of the reached limit when they were last read.
    killed: u64,
    reached: u64,
}

impl Zygote {
    /// Start an interpreter by exec, send it its modules and its plan, and wait until its first child is ready.
    pub fn start(launch: &Launch) -> Result<Zygote, Error> {
        let group = launch
            .groups
            .as_ref()
            .map(Parent::make)
            .transpose()
            .map_err(Error::Fault)?;
        let mut process = Process::start(&launch.interpreter, launch.modules)?;
        if let Some(Err(reason)) = group.as_ref().map(|group| group.add(process.pid())) {
            return Err(process.fault(&reason));
        }
        let entry = |name: &str, value| (Value::Str(name.into()), value);
        let config = Value::Dict(vec![
            entry("parent", Value::Int(i64::from(std::process::id()))),
            entry("plan", launch.plan.clone()),
            entry("first_filter", Value::Bytes(launch.first_filter.clone())),
            entry("second_filter", Value::Bytes(launch.second_filter.clone())),
        ]);
        let fds: Vec<_> = launch.landlock.iter().map(|fd| fd.as_fd()).collect();
        send(process.socket(), &wire::encode(&config), &[])
            .and_then(|()| send(process.socket(), b"l", &fds))
            .map_err(|errno| process.fault(&errno.to_string()))?;
        match process.answer()?.as_slice() {
            b"r" => process.settle(),
            [b'f', rest @ ..] => return Err(Error::Fault(String::from_utf8_lossy(rest).into_owned())),
            _ => return Err(process.fault("it answered something other than that it is ready")),
        }
        let mut zygote = Zygote {
            next: None,
            process,
            group,
            killed: 0,
            reached: 0,
        };
        zygote.shortage();
        match zygote.order().and_then(|()| zygote.await_next()) {
            Ok(()) => Ok(zygote),
            Err(Lost(why)) => Err(zygote.process.fault(&why)),
        }
    }

    /// Take the child that is ready, and order the next one.
    pub fn take(&mut self) -> Result<Waiting, Lost> {
        // The child may have ended while it waited.
        while readable(self.socket(), Duration::ZERO) {
            self.must_not_end()?;
        }
        self.await_next()?;
        self.order()?;
        self.next
            .take()
            .ok_or_else(|| Lost("the zygote has no child ready".into()))
    }

    /// Set the memory that the next test may take, in bytes.
    pub fn limit(&self, memory: u64) -> Result<(), Lost> {
        self.group
            .as_ref()
            .map_or(Ok(()), |group| group.limit(memory))
            .map_err(Lost)
    }

    /// The limit that was reached, if the kernel has killed a process for want of memory since the last call.
    pub fn shortage(&mut self) -> Option<Shortage> {
        let (killed, reached) = match &self.group {
            Some(group) => (group.killed(), group.reached()),
            None => (cgroup::killed_anywhere(), 0),
        };
        let before = std::mem::replace(&mut self.killed, killed);
        let was_reached = std::mem::replace(&mut self.reached, reached) < reached;
        (before < killed).then_some(if was_reached { Shortage::Here } else { Shortage::Above })
    }

    /// True if no control group counts what a test takes beyond its address space.
    pub fn unaccounted(&self) -> bool {
        self.group.is_none()
    }

    /// Receive one packet; return the end of a child, if that is what it reports.
    pub fn hear(&mut self) -> Result<Option<Gone>, Lost> {
        let (packet, fds) = receive(self.socket(), 1024)?;
        let (kind, rest) = packet.split_first().ok_or_else(|| Lost("the zygote is gone".into()))?;
        match (kind, rest.len(), <[OwnedFd; 6]>::try_from(fds)) {
            (b'p', 4, Ok([pidfd, stdin, stdout, stderr, control, results])) => {
                self.next = Some(Waiting {
                    pid: number(rest),
                    pidfd,
                    streams: [stdin, stdout, stderr],
                    control,
                    results,
                });
                Ok(None)
            }
            (b'x', 16, _) => Ok(Some(Gone {
                pid: number(rest),
                wait_status: number(&rest[4..]),
                cpu: f64::from_le_bytes(rest[8..].try_into().unwrap_or_default()),
            })),
            (b'e', ..) => Err(Lost(format!("no fork: {}", String::from_utf8_lossy(rest)))),
            _ => Err(Lost("the zygote sent an unknown message".into())),
        }
    }

    /// The socket to it.
    pub fn socket(&self) -> &OwnedFd {
        self.process.socket()
    }

    /// Tell it to end. Dropping then waits for it.
    pub fn begin_end(&mut self) {
        self.next = None;
        self.process.begin_end();
    }

    fn order(&self) -> Result<(), Lost> {
        Ok(send(self.socket(), b"n", &[])?)
    }

    fn await_next(&mut self) -> Result<(), Lost> {
        while self.next.is_none() {
            if !readable(self.socket(), FORK_TIMEOUT) {
                return Err(Lost("the zygote does not fork".into()));
            }
            self.must_not_end()?;
        }
        Ok(())
    }

    fn must_not_end(&mut self) -> Result<(), Lost> {
        match self.hear()? {
            None => Ok(()),
            Some(_) => Err(Lost("a child ended before it had a job".into())),
        }
    }
}

fn number(bytes: &[u8]) -> i32 {
    i32::from_le_bytes(bytes[..4].try_into().unwrap_or_default())
}
