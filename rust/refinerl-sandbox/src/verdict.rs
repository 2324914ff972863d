//! From what is known about a child to the reports of its tests.

use crate::execution::{Ending, Killed};
use crate::program::{Compare, Entry, Program, Report, Test};
use crate::zygote::Lost;
use crate::{apps, excerpt, strict, wire, Outcome};

/// The child's exit status after an uncaught MemoryError (see `child.py`).
const MEMORY_EXIT: i32 = 201;
const SIGXCPU: i32 = 24;

/// The reports of the first tests of `tests`: of at least one, of all where each has its own child.
pub fn reports(program: &Program<'_>, tests: &[Test<'_>], ending: Ending, keep: bool) -> Result<Vec<Report>, Lost> {
    let judge = Judge {
        program,
        wrapped: wrapped(program),
        keep,
    };
    if let Some((outcome, text)) = not_started(&ending)? {
        // The compiler's word holds for every test; anything else only for this one.
        let count = if outcome == Outcome::CompileError {
            tests.len()
        } else {
            1
        };
        let report = Report {
            wall: ending.wall.as_secs_f64(),
            cpu: ending.cpu,
            ..Report::bare(outcome, text)
        };
        return Ok(vec![report; count]);
    }
    if program.together {
        return Ok(judge.together(tests, ending));
    }
    Ok(vec![judge.alone(&tests[0], ending)])
}

/// Whether every test expects a list of one item, as problems do whose data wraps each answer.
fn wrapped(program: &Program<'_>) -> bool {
    program
        .tests
        .iter()
        .all(|test| test.expected.is_some_and(|bytes| bytes.starts_with(b"[\x01\0\0\0")))
}

/// Why the program never ran, from the pipe that was closed before it could.
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

/// How the process failed, if it did.
fn failure(ending: &Ending, cpu_limit: f64) -> Option<(Outcome, String)> {
    match ending.killed {
        Some(Killed::Wall) => return Some((Outcome::Timeout, String::new())),
        Some(Killed::Output) => return Some((Outcome::OutputLimit, String::new())),
        Some(Killed::Interrupted) => return Some((Outcome::NotRun, String::new())),
        None => {}
    }
    let (signal, code) = (ending.wait_status & 0x7f, (ending.wait_status >> 8) & 0xff);
    match (signal, code) {
        _ if signal == SIGXCPU || ending.cpu > cpu_limit => Some((Outcome::Timeout, String::new())),
        (0, 0) => None,
        _ if ending.starved => Some((Outcome::MemoryLimit, String::new())),
        (0, MEMORY_EXIT) => Some((Outcome::MemoryLimit, String::new())),
        (0, code) => Some((Outcome::RuntimeError, format!("exit code {code}"))),
        (signal, _) => Some((Outcome::RuntimeError, format!("ended by signal {signal}"))),
    }
}

struct Judge<'a> {
    program: &'a Program<'a>,
    wrapped: bool,
    keep: bool,
}

impl Judge<'_> {
    fn alone(&self, test: &Test<'_>, mut ending: Ending) -> Report {
        let failed = failure(&ending, self.program.limits.cpu.as_secs_f64());
        let mut report = match (failed, self.program.entry) {
            (Some((outcome, text)), _) => Report::bare(outcome, text),
            (None, Entry::Stdin) => self.printed(test, &ending.stdout),
            (None, Entry::Call { .. }) => match (ending.frames.pop(), ending.garbled) {
                (Some(frame), false) if frame.tag == b'v' => self.returned(test, &frame.payload),
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

    /// One report for each result, then one for the test that ended the child early, if it did.
    fn together(&self, tests: &[Test<'_>], ending: Ending) -> Vec<Report> {
        let log = || String::from_utf8_lossy(&ending.stderr).into_owned();
        let failed = failure(&ending, f64::INFINITY)
            .unwrap_or_else(|| (Outcome::RuntimeError, "it ended without a result".into()));
        let mut frames = ending.frames.into_iter();
        // The first frame says that the module is imported. Without it, no test can do better than the import did.
        if frames.next().is_none_or(|frame| frame.tag != b's') {
            return vec![Report::bare(failed.0, log()); tests.len()];
        }
        let mut reports: Vec<Report> = tests
            .iter()
            .zip(frames)
            .map(|(test, frame)| {
                let mut report = match frame.tag {
                    _ if frame.cpu > self.program.limits.cpu.as_secs_f64() => {
                        Report::bare(Outcome::Timeout, String::new())
                    }
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
                report
            })
            .collect();
        if reports.len() < tests.len() {
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
