//! Judgement: the reports on the tests of a child, from its results and from the way it ended.

use crate::capture::Frame;
use crate::cgroup::Shortage;
use crate::execution::{Ending, Killed};
use crate::program::{Compare, Entry, Program, Report, Test};
use crate::usage::{Excess, THREADS};
use crate::zygote::Lost;
use crate::{apps, excerpt, strict, wire, Outcome};

/// The exit status of a child after an uncaught MemoryError (see `child.py`).
const MEMORY_EXIT: i32 = 201;
const SIGXCPU: i32 = 24;

/// A judge of one child: of its results as they arrive, and of the child once it has ended.
pub struct Judge<'a> {
    program: &'a Program<'a>,
    tests: &'a [Test<'a>],
    wrapped: bool,
    keep: bool,
    /// True once the first frame has said that the module is imported; only with all tests in one child.
    imported: bool,
    /// Reports on the tests whose results have arrived.
    reports: Vec<Report>,
}

/// The reports of one child, on at least one test; possibly on none if `again` is true.
pub struct Verdicts {
    /// In the order of the tests.
    pub reports: Vec<Report>,
    /// True if the next test lacked something that others took: it should be judged once more, while they do not run.
    pub again: bool,
}

impl<'a> Judge<'a> {
    /// Create the judge of a child that runs `tests` of `program`. With `keep`, reports hold its output and values.
    pub fn new(program: &'a Program<'a>, tests: &'a [Test<'a>], keep: bool) -> Judge<'a> {
        Judge {
            program,
            tests,
            wrapped: wrapped(program),
            keep,
            imported: false,
            reports: Vec::new(),
        }
    }

    /// Judge a result. It is not kept: all results together could be larger than memory.
    pub fn take(&mut self, frame: Frame) {
        if !self.program.together {
            let report = match frame.tag {
                b'v' => self.returned(&self.tests[0], &frame.payload),
                _ => Report::bare(Outcome::RuntimeError, NOT_PLAIN.into()),
            };
            self.reports.push(report);
        } else if !self.imported && self.reports.is_empty() {
            // If the first frame says anything else, the import has failed, and with it every test.
            self.imported = frame.tag == b's';
            if !self.imported {
                self.tests = &[];
            }
        } else if let Some(test) = self.tests.get(self.reports.len()) {
            let mut report = match frame.tag {
                _ if frame.cpu > self.program.limits.cpu.as_secs_f64() => Report::bare(Outcome::Timeout, String::new()),
                b'v' => self.returned(test, &frame.payload),
                tag => {
                    let outcome = if tag == b'm' {
                        Outcome::MemoryLimit
                    } else {
                        Outcome::RuntimeError
                    };
                    Report::bare(outcome, String::from_utf8_lossy(&frame.payload).into_owned())
                }
            };
            (report.wall, report.cpu) = (frame.wall, frame.cpu);
            self.reports.push(report);
        }
    }

    /// Judge the child after its end. With `alone`, nothing else ran beside it, so it alone took what it lacked.
    pub fn finish(mut self, count: usize, ending: Ending, alone: bool) -> Result<Verdicts, Lost> {
        let crowded = ending.killed == Some(Killed::Wall) && ending.crowded;
        let again = !alone && (crowded || ending.shortage == Some(Shortage::Above));
        if again {
            if !self.program.together {
                self.reports.clear();
            }
            return Ok(Verdicts {
                reports: self.reports,
                again,
            });
        }
        let reports = if let Some((outcome, text)) = not_started(&ending)? {
            // A compile error holds for every test, anything else only for this one.
            let count = if outcome == Outcome::CompileError { count } else { 1 };
            let report = Report {
                wall: ending.wall.as_secs_f64(),
                cpu: ending.cpu,
                ..Report::bare(outcome, text)
            };
            vec![report; count]
        } else if self.program.together {
            self.together(count, &ending)
        } else {
            vec![self.alone(ending)]
        };
        Ok(Verdicts { reports, again })
    }
}

/// Check if every test expects a list of one item, as in problems whose data wraps each answer.
fn wrapped(program: &Program<'_>) -> bool {
    program
        .tests
        .iter()
        .all(|test| test.expected.is_some_and(|bytes| bytes.starts_with(b"[\x01\0\0\0")))
}

/// The reason why the program never ran, from the answer on the control socket, which was closed before it could run.
fn not_started(ending: &Ending) -> Result<Option<(Outcome, String)>, Lost> {
    let text = |rest: &[u8]| String::from_utf8_lossy(rest).trim_end().to_string();
    match ending.control.split_first() {
        Some((b'r', _)) => Ok(None),
        Some((b'c', rest)) => Ok(Some((Outcome::CompileError, text(rest)))),
        Some((b'm', rest)) => Ok(Some((Outcome::MemoryLimit, text(rest)))),
        Some((_, rest)) => Err(Lost(format!("a child did not start: {}", text(rest)))),
        None => Ok(Some(match failure(ending, f64::INFINITY) {
            Some((Outcome::RuntimeError, text)) => (Outcome::CompileError, format!("the compiler died: {text}")),
            Some(other) => other,
            None => return Err(Lost("a child ended before it began".into())),
        })),
    }
}

/// The failure of the process, if it failed.
fn failure(ending: &Ending, cpu_limit: f64) -> Option<(Outcome, String)> {
    match ending.killed {
        Some(Killed::Wall) => return Some((Outcome::Timeout, String::new())),
        Some(Killed::Output) => return Some((Outcome::OutputLimit, String::new())),
        Some(Killed::Interrupted) => return Some((Outcome::NotRun, String::new())),
        Some(Killed::Excess(Excess::Memory)) => return Some((Outcome::MemoryLimit, String::new())),
        Some(Killed::Excess(Excess::Threads)) => {
            return Some((Outcome::RuntimeError, format!("more than {THREADS} threads at once")));
        }
        None => {}
    }
    let (signal, code) = (ending.wait_status & 0x7f, (ending.wait_status >> 8) & 0xff);
    match (signal, code) {
        _ if signal == SIGXCPU || ending.cpu > cpu_limit => Some((Outcome::Timeout, String::new())),
        (0, 0) => None,
        _ if ending.shortage.is_some() => Some((Outcome::MemoryLimit, String::new())),
        (0, MEMORY_EXIT) => Some((Outcome::MemoryLimit, String::new())),
        (0, code) => Some((Outcome::RuntimeError, format!("exit code {code}"))),
        (signal, _) => Some((Outcome::RuntimeError, format!("ended by signal {signal}"))),
    }
}

impl Judge<'_> {
    fn alone(&mut self, ending: Ending) -> Report {
        let failed = failure(&ending, self.program.limits.cpu.as_secs_f64());
        let mut report = match (failed, self.program.entry) {
            (Some((outcome, text)), _) => Report::bare(outcome, text),
            (None, Entry::Stdin) => self.printed(&self.tests[0], &ending.stdout),
            (None, Entry::Call { .. }) => match (self.reports.pop(), ending.garbled) {
                (Some(report), false) => report,
                (None, false) => Report::bare(Outcome::RuntimeError, "it ended without a result".into()),
                _ => Report::bare(Outcome::RuntimeError, NOT_PLAIN.into()),
            },
        };
        let log = String::from_utf8_lossy(&ending.stderr);
        if report.stderr.is_empty() || !log.is_empty() {
            report.stderr = log.into_owned();
        }
        report.wall = ending.wall.as_secs_f64();
        report.cpu = ending.cpu;
        if self.keep {
            report.stdout = ending.stdout;
        }
        report
    }

    /// Return a report for each result, then one for the test that ended the child early, if one did.
    fn together(&mut self, count: usize, ending: &Ending) -> Vec<Report> {
        let log = || String::from_utf8_lossy(&ending.stderr).into_owned();
        let failed = failure(ending, f64::INFINITY)
            .unwrap_or_else(|| (Outcome::RuntimeError, "it ended without a result".into()));
        if !self.imported {
            return vec![Report::bare(failed.0, log()); count];
        }
        let mut reports = std::mem::take(&mut self.reports);
        if reports.len() < count {
            let text = if ending.stderr.is_empty() { failed.1 } else { log() };
            reports.push(Report::bare(failed.0, text));
        }
        reports
    }

    fn printed(&self, test: &Test<'_>, stdout: &[u8]) -> Report {
        let (Some(expected), atol) = (test.expected, self.atol()) else {
            return Report::bare(Outcome::Passed, String::new());
        };
        let right = match self.program.compare {
            Compare::Strict { atol } => strict::output_matches(stdout, expected, atol),
            Compare::Apps => apps::output_matches(stdout, expected),
        };
        verdict(right, || excerpt::of_output(stdout, expected, atol))
    }

    fn returned(&self, test: &Test<'_>, payload: &[u8]) -> Report {
        let Ok(got) = wire::decode(payload) else {
            return Report::bare(Outcome::RuntimeError, NOT_PLAIN.into());
        };
        let mut report = match test.expected.map(wire::decode) {
            None => Report::bare(Outcome::Passed, String::new()),
            Some(Err(malformed)) => Report::bare(Outcome::SandboxError, format!("the expected value: {}", malformed.0)),
            Some(Ok(expected)) => {
                let right = match self.program.compare {
                    Compare::Strict { atol } => strict::result_matches(&got, &expected, self.wrapped, atol),
                    Compare::Apps => apps::result_matches(&got, &expected),
                };
                verdict(right, || (excerpt::of_value(&expected), excerpt::of_value(&got)))
            }
        };
        if self.keep {
            report.value = Some(wire::encode(&got));
        }
        report
    }

    fn atol(&self) -> f64 {
        match self.program.compare {
            Compare::Strict { atol } => atol,
            Compare::Apps => 0.0,
        }
    }
}

const NOT_PLAIN: &str = "the result is not plain data";

fn verdict(right: bool, difference: impl FnOnce() -> (String, String)) -> Report {
    let outcome = if right { Outcome::Passed } else { Outcome::WrongAnswer };
    Report {
        difference: (!right).then(difference),
        ..Report::bare(outcome, String::new())
    }
}
