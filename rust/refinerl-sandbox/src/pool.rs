//! The sandbox: a zygote for each worker, and the distribution of tests over them.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use rustix::event::{eventfd, EventfdFlags};

use crate::cgroup::{killed_anywhere, Shortage};
use crate::execution::{execute, Job};
use crate::hidden::Hidden;
use crate::plan::{self, Protection};
use crate::process::Interpreter;
use crate::program::{Entry, Program, Report, Test};
use crate::value::Value;
use crate::verdict::{Judge, Verdicts};
use crate::zygote::{Launch, Lost, Zygote};
use crate::{resources, wire, Error, Outcome};

/// How often the caller is asked whether to stop.
const INTERRUPT_INTERVAL: Duration = Duration::from_millis(50);
/// Bytes that a result may have whatever the limit: the report of an exception is one too.
const SHORTEST_RESULT: usize = 8192;

/// Zygotes, ready to judge. Dropping it ends them.
pub struct Sandbox {
    /// None once it is closed.
    launch: Mutex<Option<Arc<Launch>>>,
    isolation: Vec<Protection>,
    slots: Vec<Mutex<Option<Zygote>>>,
    /// One batch at a time: a second caller waits, and has all workers then.
    turn: Mutex<()>,
    owner: u32,
}

/// Tests that one child after the other of one worker runs, in order.
struct Unit {
    program: usize,
    tests: std::ops::Range<usize>,
}

/// Reports with the indices of their program and test.
type Done = Vec<(usize, usize, Report)>;

/// One batch on its way.
struct Batch<'a> {
    programs: &'a [Program<'a>],
    units: Vec<Unit>,
    next: AtomicUsize,
    /// For each program, what the compiler said.
    refused: Vec<OnceLock<Report>>,
    /// Read by whoever runs a test beside others, written to by whoever runs one alone.
    quiet: RwLock<()>,
    launch: Arc<Launch>,
    cancel: OwnedFd,
    cancelled: AtomicBool,
    keep: bool,
}

impl Sandbox {
    /// Probe the machine, then start all zygotes at once; fails if one of them does not start, or if `full` is asked
    /// for and a protection is off (control groups aside, which an ordinary user or a container seldom has).
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

    /// Programs run with all the rights of this process: only to measure what protection costs.
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
            starting.into_iter().map(|started| join(thread(started)?)).collect()
        });
        let zygotes = zygotes
            .into_iter()
            .map(|zygote| zygote.map_err(|error| resources::explain(error, workers, killed_anywhere() > killed)));
        let zygotes: Vec<Result<Zygote, Error>> = zygotes.collect();
        let slots = zygotes
            .into_iter()
            .map(|zygote| Ok(Mutex::new(Some(zygote?))))
            .collect::<Result<_, Error>>()?;
        let (turn, owner) = (Mutex::new(()), std::process::id());
        let launch = Mutex::new(Some(Arc::new(launch)));
        Ok(Sandbox {
            launch,
            isolation,
            slots,
            turn,
            owner,
        })
    }

    /// What protects this process from the programs.
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
                Err(std::sync::TryLockError::Poisoned(turn)) => break turn.into_inner(),
                Err(std::sync::TryLockError::WouldBlock) if interrupted() => return Err(Error::Interrupted),
                Err(std::sync::TryLockError::WouldBlock) => std::thread::sleep(INTERRUPT_INTERVAL),
            }
        };
        let launch = lock(&self.launch)
            .clone()
            .ok_or_else(|| Error::Fault("the sandbox is closed".into()))?;
        if self.owner != std::process::id() {
            return Err(Error::Fault(
                "a sandbox does not survive a fork; start one in the new process".into(),
            ));
        }
        let cancel = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|errno| Error::Fault(errno.to_string()))?;
        let _hidden = launch.visible.then(Hidden::new);
        let batch = Batch {
            programs,
            launch,
            units: units(programs),
            next: AtomicUsize::new(0),
            refused: programs.iter().map(|_| OnceLock::new()).collect(),
            quiet: RwLock::new(()),
            cancel,
            cancelled: AtomicBool::new(false),
            keep,
        };
        let running = (Mutex::new(self.slots.len()), Condvar::new());
        let finished: Vec<Result<Done, Error>> = std::thread::scope(|scope| {
            let workers: Vec<_> = self
                .slots
                .iter()
                .map(|slot| {
                    std::thread::Builder::new().spawn_scoped(scope, || {
                        let result = self.work(&batch, slot);
                        if result.is_err() {
                            batch.stop();
                        }
                        *lock(&running.0) -= 1;
                        running.1.notify_one();
                        result
                    })
                })
                .collect();
            // One that could not start has no part in the batch; its error ends it.
            let missing = workers.iter().filter(|worker| worker.is_err()).count();
            *lock(&running.0) -= missing;
            if missing > 0 {
                batch.stop();
            }
            let mut left = lock(&running.0);
            while *left > 0 {
                left = running
                    .1
                    .wait_timeout(left, INTERRUPT_INTERVAL)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0;
                if *left > 0 && !batch.cancelled.load(Ordering::SeqCst) {
                    drop(left);
                    if interrupted() {
                        batch.stop();
                    }
                    left = lock(&running.0);
                }
            }
            drop(left);
            workers
                .into_iter()
                .map(|worker| join(thread(worker)?))
                .map(|done| done.map_err(|error| resources::explain(error, self.slots.len(), false)))
                .collect()
        });
        assemble(programs, finished, batch.cancelled.into_inner())
    }

    /// End all zygotes and reap them. Harmless when repeated, and in a fork of this process, whose they are not.
    pub fn close(&self) {
        // There, locks may be held by threads that do not exist.
        if self.owner != std::process::id() {
            return;
        }
        *lock(&self.launch) = None;
        let mut zygotes: Vec<Zygote> = self.slots.iter().filter_map(|slot| lock(slot).take()).collect();
        // All of them end at the same time; dropping waits for each.
        zygotes.iter_mut().for_each(Zygote::begin_end);
    }

    /// One worker: take units until none is left.
    fn work(&self, batch: &Batch<'_>, slot: &Mutex<Option<Zygote>>) -> Result<Done, Error> {
        let mut zygote = lock(slot);
        let mut done = Vec::new();
        while let Some(unit) = batch.units.get(batch.next.fetch_add(1, Ordering::Relaxed)) {
            let program = &batch.programs[unit.program];
            let (mut next, mut alone) = (unit.tests.start, false);
            while next < unit.tests.end && !batch.cancelled.load(Ordering::SeqCst) {
                let reports = match batch.refused[unit.program].get() {
                    Some(report) => vec![report.clone(); unit.tests.end - next],
                    None => {
                        let tests = &program.tests[next..unit.tests.end];
                        let verdicts = run_child(batch, program, tests, &mut zygote, alone)?;
                        alone = verdicts.again;
                        verdicts.reports
                    }
                };
                if let Some(report) = reports.iter().find(|report| report.outcome == Outcome::CompileError) {
                    let _ = batch.refused[unit.program].set(report.clone());
                }
                for report in reports.into_iter().take(unit.tests.end - next) {
                    let failed = report.outcome != Outcome::Passed;
                    done.push((unit.program, next, report));
                    next += 1;
                    if failed && program.stop_early {
                        next = unit.tests.end;
                        break;
                    }
                }
            }
        }
        Ok(done)
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.close();
    }
}

impl Batch<'_> {
    fn stop(&self) {
        self.cancelled.store(true, Ordering::SeqCst);
        // It is never read, so it stays readable for every worker. Writing can only fail when it is full.
        let _ = rustix::io::write(&self.cancel, &1u64.to_ne_bytes());
    }
}

/// One child; if the zygote is lost, once more in a fresh one. `alone`: while nothing else of the batch runs.
fn run_child(
    batch: &Batch<'_>,
    program: &Program<'_>,
    tests: &[Test<'_>],
    slot: &mut Option<Zygote>,
    alone: bool,
) -> Result<Verdicts, Error> {
    let (_beside, _quiet);
    if alone {
        _quiet = batch.quiet.write().unwrap_or_else(PoisonError::into_inner);
    } else {
        _beside = batch.quiet.read().unwrap_or_else(PoisonError::into_inner);
    }
    let tests = if program.together { tests } else { &tests[..1] };
    let count = tests.len();
    let control = control(program, tests);
    let job = Job {
        control: &control,
        stdin: if matches!(program.entry, Entry::Stdin) {
            tests[0].input
        } else {
            &[]
        },
        results: match program.entry {
            Entry::Stdin => 0,
            Entry::Call { .. } => count + usize::from(program.together),
        },
        wall: program.limits.wall,
        memory: program.limits.memory,
        output: program.limits.output.saturating_mul(count),
        result: program.limits.output.max(SHORTEST_RESULT),
        // What calls print in one child belongs to none of them.
        keep: if (batch.keep && !program.together) || matches!(program.entry, Entry::Stdin) {
            usize::MAX
        } else {
            0
        },
    };
    let mut reason = String::new();
    for _ in 0..2 {
        let zygote = match slot {
            Some(zygote) => zygote,
            None => slot.insert(Zygote::start(&batch.launch)?),
        };
        let mut judge = Judge::new(program, tests, batch.keep);
        let ending = execute(zygote, &job, batch.cancel.as_fd(), &mut |frame| judge.take(frame));
        match ending.and_then(|ending| judge.finish(count, ending, alone)) {
            Ok(verdicts) => return Ok(verdicts),
            Err(Lost(why)) => {
                reason = why;
                let shortage = zygote.shortage();
                *slot = None;
                // The test has taken its zygote with it, or somebody else has; a second zygote would only go the same way.
                if let Some(shortage) = shortage {
                    let again = shortage == Shortage::Above && !alone;
                    let report = Report::bare(Outcome::MemoryLimit, "memory ran out".into());
                    let reports = if again { Vec::new() } else { vec![report] };
                    return Ok(Verdicts { reports, again });
                }
            }
        }
    }
    Ok(Verdicts {
        reports: vec![Report::bare(Outcome::SandboxError, reason)],
        again: false,
    })
}

/// Tests run on any worker, except where one child takes them all or the first failure ends them.
fn units(programs: &[Program<'_>]) -> Vec<Unit> {
    let mut units = Vec::new();
    for (
        program,
        Program {
            tests,
            stop_early,
            together,
            ..
        },
    ) in programs.iter().enumerate()
    {
        if *stop_early || *together {
            units.push(Unit {
                program,
                tests: 0..tests.len(),
            });
        } else {
            units.extend((0..tests.len()).map(|test| Unit {
                program,
                tests: test..test + 1,
            }));
        }
    }
    units
}

/// What the child reads: its limits, then the program and its inputs. Never an expected value.
fn control(program: &Program<'_>, tests: &[Test<'_>]) -> Vec<u8> {
    let limits = &program.limits;
    let cpu = limits.cpu.as_secs_f64().ceil() as u64 * tests.len() as u64;
    let mut out = Vec::with_capacity(program.source.len() + 256);
    for number in [cpu, limits.memory] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    let (entry, name, preamble, inputs) = match program.entry {
        Entry::Stdin => ("stdin", "", false, &[][..]),
        Entry::Call { name, preamble } => (
            if program.together { "together" } else { "call" },
            name,
            preamble,
            tests,
        ),
    };
    wire::write_head(b'(', 5, &mut out);
    wire::write(&Value::Str(entry.into()), &mut out);
    wire::write_bytes(b's', program.source, &mut out);
    wire::write(&Value::Str(name.into()), &mut out);
    wire::write(&Value::Bool(preamble), &mut out);
    wire::write_head(b'[', inputs.len(), &mut out);
    inputs.iter().for_each(|test| out.extend_from_slice(test.input));
    out
}

fn assemble(
    programs: &[Program<'_>],
    finished: Vec<Result<Done, Error>>,
    cancelled: bool,
) -> Result<Vec<Vec<Report>>, Error> {
    let finished = finished.into_iter().collect::<Result<Vec<_>, Error>>()?;
    if cancelled {
        return Err(Error::Interrupted);
    }
    let left_out = || Report::bare(Outcome::NotRun, String::new());
    let mut all: Vec<Vec<Report>> = programs
        .iter()
        .map(|program| vec![left_out(); program.tests.len()])
        .collect();
    for (program, test, report) in finished.into_iter().flatten() {
        all[program][test] = report;
    }
    Ok(all)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn thread<T>(started: std::io::Result<T>) -> Result<T, Error> {
    started.map_err(|error| Error::Fault(format!("no thread for a worker: {error}")))
}

fn join<T>(thread: std::thread::ScopedJoinHandle<'_, Result<T, Error>>) -> Result<T, Error> {
    thread
        .join()
        .unwrap_or_else(|_| Err(Error::Fault("a worker panicked".into())))
}
