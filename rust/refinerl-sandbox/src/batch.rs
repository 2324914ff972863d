//! One batch of programs: its tests are shared out among the workers, judged, and put back in order.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use rustix::event::{eventfd, EventfdFlags};

use crate::cgroup::Shortage;
use crate::execution::execute;
use crate::job::Job;
use crate::program::{Program, Report, Test};
use crate::verdict::{Judge, Verdicts};
use crate::zygote::{Launch, Lost, Zygote};
use crate::{resources, Error, Outcome};

/// Time between questions to the caller whether to stop.
pub const INTERRUPT_INTERVAL: Duration = Duration::from_millis(50);

/// A worker's zygote; None while it is to be replaced, and once the sandbox is closed.
pub type Slot = Mutex<Option<Zygote>>;

/// Tests that one worker runs in order, each in a child of its own or all in one.
struct Unit {
    program: usize,
    tests: std::ops::Range<usize>,
}

/// Reports with the indices of their program and test.
type Done = Vec<(usize, usize, Report)>;

/// A batch in progress.
pub struct Batch<'a> {
    programs: &'a [Program<'a>],
    units: Vec<Unit>,
    next: AtomicUsize,
    /// The compiler's refusal of each program, if it refused.
    refused: Vec<OnceLock<Report>>,
    /// Locked for reading around every test, for writing around one that must run alone.
    quiet: RwLock<()>,
    launch: Arc<Launch>,
    /// Readable once the batch is cancelled.
    cancel: OwnedFd,
    cancelled: AtomicBool,
    keep: bool,
}

impl<'a> Batch<'a> {
    /// A batch that is ready to run; with `keep`, its reports carry what was printed and returned.
    pub fn new(programs: &'a [Program<'a>], launch: Arc<Launch>, keep: bool) -> Result<Batch<'a>, Error> {
        let cancel = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|errno| Error::Fault(errno.to_string()))?;
        Ok(Batch {
            programs,
            units: units(programs),
            next: AtomicUsize::new(0),
            refused: programs.iter().map(|_| OnceLock::new()).collect(),
            quiet: RwLock::new(()),
            launch,
            cancel,
            cancelled: AtomicBool::new(false),
            keep,
        })
    }

    /// Run all tests on a thread for each slot, while this thread asks the caller now and then whether to stop.
    pub fn run(self, slots: &[Slot], mut interrupted: impl FnMut() -> bool) -> Result<Vec<Vec<Report>>, Error> {
        let running = (Mutex::new(slots.len()), Condvar::new());
        let finished: Vec<Result<Done, Error>> = std::thread::scope(|scope| {
            let workers: Vec<_> = slots
                .iter()
                .map(|slot| {
                    std::thread::Builder::new().spawn_scoped(scope, || {
                        let result = self.work(slot);
                        if result.is_err() {
                            self.stop();
                        }
                        *lock(&running.0) -= 1;
                        running.1.notify_one();
                        result
                    })
                })
                .collect();
            // A worker without a thread takes no part; its error ends the batch.
            let missing = workers.iter().filter(|worker| worker.is_err()).count();
            *lock(&running.0) -= missing;
            if missing > 0 {
                self.stop();
            }
            let mut left = lock(&running.0);
            while *left > 0 {
                left = running
                    .1
                    .wait_timeout(left, INTERRUPT_INTERVAL)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0;
                if *left > 0 && !self.cancelled.load(Ordering::SeqCst) {
                    drop(left);
                    if interrupted() {
                        self.stop();
                    }
                    left = lock(&running.0);
                }
            }
            drop(left);
            workers
                .into_iter()
                .map(join)
                .map(|done| done.map_err(|error| resources::explain(error, slots.len(), false)))
                .collect()
        });
        assemble(self.programs, finished, self.cancelled.into_inner())
    }

    fn stop(&self) {
        self.cancelled.store(true, Ordering::SeqCst);
        // It is never read, so it stays readable for every worker. Writing can only fail when it is full.
        let _ = rustix::io::write(&self.cancel, &1u64.to_ne_bytes());
    }

    /// One worker: take units until none is left.
    fn work(&self, slot: &Slot) -> Result<Done, Error> {
        let mut zygote = lock(slot);
        let mut done = Vec::new();
        while let Some(unit) = self.units.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            let program = &self.programs[unit.program];
            let (mut next, mut alone) = (unit.tests.start, false);
            while next < unit.tests.end && !self.cancelled.load(Ordering::SeqCst) {
                let reports = match self.refused[unit.program].get() {
                    Some(report) => vec![report.clone(); unit.tests.end - next],
                    None => {
                        let tests = &program.tests[next..unit.tests.end];
                        let verdicts = self.run_child(program, tests, &mut zygote, alone)?;
                        alone = verdicts.again;
                        verdicts.reports
                    }
                };
                if let Some(report) = reports.iter().find(|report| report.outcome == Outcome::CompileError) {
                    let _ = self.refused[unit.program].set(report.clone());
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

    /// Run one child; if its zygote is lost, once more in a fresh one. `alone`: while nothing else of the batch runs.
    fn run_child(
        &self,
        program: &Program<'a>,
        tests: &[Test<'a>],
        slot: &mut Option<Zygote>,
        alone: bool,
    ) -> Result<Verdicts, Error> {
        let (_beside, _quiet);
        if alone {
            _quiet = self.quiet.write().unwrap_or_else(PoisonError::into_inner);
        } else {
            _beside = self.quiet.read().unwrap_or_else(PoisonError::into_inner);
        }
        let tests = if program.together { tests } else { &tests[..1] };
        let job = Job::new(program, tests, self.keep);
        let mut reason = String::new();
        for _ in 0..2 {
            let zygote = match slot {
                Some(zygote) => zygote,
                None => slot.insert(Zygote::start(&self.launch)?),
            };
            let mut judge = Judge::new(program, tests, self.keep);
            let ending = execute(zygote, &job, self.cancel.as_fd(), &mut |frame| judge.take(frame));
            match ending.and_then(|ending| judge.finish(tests.len(), ending, alone)) {
                Ok(verdicts) => return Ok(verdicts),
                Err(Lost(why)) => {
                    reason = why;
                    let shortage = zygote.shortage();
                    *slot = None;
                    // The test, or another process, took the memory; a second zygote would be lost the same way.
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
}

/// A unit for each test, or for each program whose tests share a child or end with the first failure.
fn units(programs: &[Program<'_>]) -> Vec<Unit> {
    let mut units = Vec::new();
    for (index, program) in programs.iter().enumerate() {
        let count = program.tests.len();
        let size = if program.stop_early || program.together {
            count
        } else {
            1
        };
        units.extend((0..count).step_by(size.max(1)).map(|first| Unit {
            program: index,
            tests: first..first + size,
        }));
    }
    units
}

/// The reports of each program in the order of its tests; those left out are `NotRun`.
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

/// Lock a mutex, also one whose last holder panicked.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The result of a worker's thread, or why there is none.
pub fn join<T>(started: std::io::Result<std::thread::ScopedJoinHandle<'_, Result<T, Error>>>) -> Result<T, Error> {
    let thread = started.map_err(|error| Error::Fault(format!("no thread for a worker: {error}")))?;
    thread
        .join()
        .unwrap_or_else(|_| Err(Error::Fault("a worker panicked".into())))
}
