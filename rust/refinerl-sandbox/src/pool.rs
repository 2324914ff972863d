//! The sandbox: a zygote for each worker, and batches of programs that run on them.
//!
//! # Theory of operation
//!
//! ## Processes
//!
//! - The **trainer** is the process that this code runs in. It keeps the expected answers, starts zygotes, feeds and
//!   watches one test per worker, and compares answers. The sandbox never forks it.
//! - The **probe** (`python/probe.py`) is an interpreter that the trainer starts by exec, once for each sandbox. It tries
//!   each protection in a fork of its own, answers with a plan and a report, and ends.
//! - A **zygote** (`python/zygote.py`) is a warm interpreter that the trainer starts by exec, one for each worker. It
//!   carries out the plan (`python/jail.py`): namespaces, an empty root folder, another user, no capabilities, Landlock,
//!   the first seccomp filter. Then it forks once for each test. With namespaces it is two processes: the one that was
//!   started only waits for the other, which is PID 1 of the new PID namespace and does everything that follows. A
//!   zygote reads neither programs nor inputs.
//! - A **child** (`python/child.py`) is a fork of a zygote. It runs one test, or all tests of a program with
//!   `together`, and ends. After the second seccomp filter it cannot fork.
//!
//! ## Descriptors and limits
//!
//! | process | descriptors | limits |
//! |---|---|---|
//! | trainer, per worker | command socket and pidfd of the zygote; for the running child and for the one that waits: a pidfd, stdin, stdout, stderr, control, results. All close on exec | the soft limit of descriptors is raised to what the workers need (`resources`) |
//! | zygote | command socket, pidfd of the trainer, its own `oom_score_adj`, pipes of its own on 0 to 2; inherited ones are closed first | 256 descriptors; a control group with the memory of a test and 128 MiB, and 300 processes |
//! | child | 0 stdin (socket), 1 stdout, 2 stderr (pipes), 3 control (socket), 4 results (pipe); 5 /dev/null where only seccomp denies writing | core and file size 0, 64 descriptors, 128 threads, stack; from its job: processor time and address space |
//!
//! Stdin and control are sockets, because shutdown(2) ends a socket even while a fork of the trainer holds a copy of it.
//!
//! ## One test
//!
//! 1. `Zygote::take` gets the child that the zygote has ready and orders the next one. The zygote has sent its pid, and
//!    its pidfd and streams as SCM_RIGHTS.
//! 2. `execute` writes the job to the control socket: limits, source, inputs. Then it feeds stdin and reads everything
//!    that comes back, within the wall clock and the limit of each stream. If no control group counts, it also checks
//!    memory and threads every 10 ms (`usage`).
//! 3. The child sets the limits of the job, compiles the source, and answers on the control socket with a letter and a
//!    text: `r` compiled, `c` not compiled, `m` out of memory, `f` a fault of the sandbox. It closes the socket before the
//!    first line of the program runs, so that no program can answer there.
//! 4. The program prints, or sends its results as frames of plain data. Nothing that a child says is believed: frames
//!    are decoded under limits of length and depth, and no frame says that a test has passed.
//! 5. The zygote reaps the child and reports its wait status and processor time. `Judge` (`verdict`) turns the answer on
//!    control, the output or the frames, the wait status and the reason for a kill into an outcome. The comparison with
//!    the expected answer happens here.
//!
//! ## Ends
//!
//! - **A test that breaks a limit** is killed through its pidfd. One that timed out while it waited for a processor, or
//!   lacked memory that others took, is judged once more while nothing else of the batch runs.
//! - **A lost zygote** (`Lost`) is replaced, and its test judged once more; if that fails too, the outcome is
//!   `SandboxError`. If the kernel killed it for want of memory, the outcome of the test is `MemoryLimit`.
//! - **An interrupted caller** makes the eventfd of the batch readable. Every worker kills its child and stops.
//! - **`close`** shuts down all command sockets. On end-of-file a zygote kills its children and exits. Dropping it waits,
//!   kills it after five seconds, reaps it by pidfd, and removes its control group.
//! - **A killed trainer** closes its sockets, and its pidfd becomes readable in the zygotes, which end as above. The end
//!   of PID 1 ends everything in its PID namespace. The next sandbox removes the control groups that were left.
//! - **A fork of the trainer** has copies of all descriptors but does not own the sandbox: in it `run` refuses, and
//!   closing and dropping do nothing. `owner` is the pid of the owner.

use std::sync::{Arc, Mutex, TryLockError};

use crate::batch::{join, lock, Batch, Slot, INTERRUPT_INTERVAL};
use crate::cgroup::killed_anywhere;
use crate::hidden::Hidden;
use crate::plan::{self, Protection};
use crate::process::Interpreter;
use crate::program::{Program, Report};
use crate::zygote::{Launch, Zygote};
use crate::{resources, Error};

/// Zygotes that are ready to judge. Dropping it ends them.
pub struct Sandbox {
    /// None once it is closed.
    launch: Mutex<Option<Arc<Launch>>>,
    isolation: Vec<Protection>,
    slots: Vec<Slot>,
    /// Held for the length of a batch: a second caller waits, and then has all workers.
    turn: Mutex<()>,
    owner: u32,
}

impl Sandbox {
    /// Probe the machine, then start all zygotes at once.
    ///
    /// # Errors
    /// If a zygote does not start, or if `full` is asked for and a protection is off (control groups aside, which an
    /// ordinary user or a container seldom has).
    pub fn start(interpreter: Interpreter, workers: usize, full: bool) -> Result<Sandbox, Error> {
        resources::ensure(workers)?;
        let (launch, isolation) = plan::probe(interpreter)?;
        let off: Vec<String> = isolation
            .iter()
            .filter(|row| !row.on && row.name != plan::CGROUP)
            .map(|row| format!("{} ({})", row.name, row.reason))
            .collect();
        if full && !off.is_empty() {
            return Err(Error::Fault(format!(
                "full isolation is required, but off: {}",
                off.join(", ")
            )));
        }
        Sandbox::launch(launch, isolation, workers)
    }

    /// Start zygotes whose programs have all the rights of this process: only to measure what protection costs.
    #[cfg(feature = "unprotected")]
    pub fn start_unprotected(interpreter: Interpreter, workers: usize) -> Result<Sandbox, Error> {
        let (mut launch, _) = plan::probe(interpreter)?;
        launch.modules = crate::process::UNPROTECTED_MODULES;
        launch.groups = None;
        Sandbox::launch(launch, Vec::new(), workers)
    }

    fn launch(launch: Launch, isolation: Vec<Protection>, workers: usize) -> Result<Sandbox, Error> {
        let killed = killed_anywhere();
        let zygotes: Vec<Result<Zygote, Error>> = std::thread::scope(|scope| {
            let start = || Zygote::start(&launch);
            let starting: Vec<_> = (0..workers)
                .map(|_| std::thread::Builder::new().spawn_scoped(scope, start))
                .collect();
            starting.into_iter().map(join).collect()
        });
        let slots = zygotes
            .into_iter()
            .map(|zygote| zygote.map_err(|error| resources::explain(error, workers, killed_anywhere() > killed)))
            .map(|zygote| Ok(Mutex::new(Some(zygote?))))
            .collect::<Result<_, Error>>()?;
        Ok(Sandbox {
            launch: Mutex::new(Some(Arc::new(launch))),
            isolation,
            slots,
            turn: Mutex::new(()),
            owner: std::process::id(),
        })
    }

    /// The isolation report: the protections of this process from programs.
    pub fn isolation(&self) -> &[Protection] {
        &self.isolation
    }

    /// Run all tests of all programs; with `keep`, reports carry what was printed and returned. `interrupted` is asked
    /// from the calling thread now and then; true stops everything within moments.
    pub fn run(
        &self,
        programs: &[Program<'_>],
        keep: bool,
        mut interrupted: impl FnMut() -> bool,
    ) -> Result<Vec<Vec<Report>>, Error> {
        let _turn = loop {
            match self.turn.try_lock() {
                Ok(turn) => break turn,
                Err(TryLockError::Poisoned(turn)) => break turn.into_inner(),
                Err(TryLockError::WouldBlock) if interrupted() => return Err(Error::Interrupted),
                Err(TryLockError::WouldBlock) => std::thread::sleep(INTERRUPT_INTERVAL),
            }
        };
        let closed = || Error::Fault("the sandbox is closed".into());
        let launch = lock(&self.launch).clone().ok_or_else(closed)?;
        if self.owner != std::process::id() {
            return Err(Error::Fault(
                "a sandbox does not survive a fork; start one in the new process".into(),
            ));
        }
        let _hidden = launch.visible.then(Hidden::new);
        let is_closed = || lock(&self.launch).is_none();
        match Batch::new(programs, launch, keep)?.run(&self.slots, || is_closed() || interrupted()) {
            Err(Error::Interrupted) if is_closed() => Err(closed()),
            done => done,
        }
    }

    /// End all zygotes and reap them; a batch in another thread is cancelled, and ends with an error within moments.
    /// Harmless when repeated, and in a fork of this process, which does not own them.
    pub fn close(&self) {
        // In a fork, locks may be held by threads that do not exist there.
        if self.owner != std::process::id() {
            return;
        }
        *lock(&self.launch) = None;
        let mut zygotes: Vec<Zygote> = self.slots.iter().filter_map(|slot| lock(slot).take()).collect();
        // All of them end at the same time; dropping waits for each.
        zygotes.iter_mut().for_each(Zygote::begin_end);
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.close();
    }
}
