//! The job of one child: what it is sent and what it may use.

use std::time::Duration;

use crate::program::{Entry, Program, Test};
use crate::value::Value;
use crate::wire;

/// Bytes that a result may have whatever the limit: the report of an exception is one too.
const SHORTEST_RESULT: usize = 8192;

/// The job of one child. It holds no expected answers.
pub struct Job<'a> {
    /// Limits and the encoded program, for the control socket.
    pub control: Vec<u8>,
    /// Standard input of the child.
    pub stdin: &'a [u8],
    /// Most results that it may send; 0 for programs that print.
    pub results: usize,
    /// Wall-clock limit, until the end or, with several results, until the next one.
    pub wall: Duration,
    /// Limit of memory in bytes.
    pub memory: u64,
    /// Limit of standard output and of standard error, in bytes each.
    pub output: usize,
    /// Limit of one result in bytes.
    pub result: usize,
    /// Bytes of standard output to keep.
    pub keep: usize,
}

impl<'a> Job<'a> {
    /// The job of a child that runs `tests` of `program`; with `keep`, the caller wants what they print.
    pub fn new(program: &Program<'a>, tests: &[Test<'a>], keep: bool) -> Job<'a> {
        let printed = matches!(program.entry, Entry::Stdin);
        Job {
            control: encode(program, tests),
            stdin: if printed { tests[0].input } else { &[] },
            results: if printed {
                0
            } else {
                tests.len() + usize::from(program.together)
            },
            wall: program.limits.wall,
            memory: program.limits.memory,
            output: program.limits.output.saturating_mul(tests.len()),
            result: program.limits.output.max(SHORTEST_RESULT),
            // What calls print in one child cannot be told apart.
            keep: if printed || (keep && !program.together) {
                usize::MAX
            } else {
                0
            },
        }
    }
}

/// Encode what a child reads from its control socket: processor seconds and bytes of memory, then the program and
/// inputs.
fn encode(program: &Program<'_>, tests: &[Test<'_>]) -> Vec<u8> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::{Compare, Limits};

    #[test]
    fn a_job_holds_the_inputs_and_no_expected_answer() {
        let test = |input, expected| Test {
            input,
            expected: Some(expected),
        };
        let program = Program {
            source: b"def f(x): return x",
            entry: Entry::Call {
                name: "f",
                preamble: true,
            },
            tests: vec![test(b"[1111]", b"secret-1"), test(b"[2222]", b"secret-2")],
            compare: Compare::Apps,
            limits: Limits {
                wall: Duration::from_secs(1),
                cpu: Duration::from_millis(1500),
                memory: 1 << 20,
                output: 100,
            },
            stop_early: false,
            together: true,
        };
        let job = Job::new(&program, &program.tests, true);
        let holds = |text: &[u8]| job.control.windows(text.len()).any(|window| window == text);
        assert!(holds(b"[1111]") && holds(b"[2222]") && !holds(b"secret"));
        // Two seconds, rounded up, for each of two tests.
        assert_eq!(
            job.control[..16],
            [4u64.to_le_bytes(), (1u64 << 20).to_le_bytes()].concat()
        );
        // A word that the module is imported comes before the results.
        assert_eq!(
            (job.results, job.output, job.result, job.keep),
            (3, 200, SHORTEST_RESULT, 0)
        );
    }
}
