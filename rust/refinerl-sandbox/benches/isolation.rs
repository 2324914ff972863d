//! The cost of protection, in tests per second on all cores: the same zygotes with all protections and with none, in
//! turns.
//!
//! `cargo bench -p refinerl-sandbox --features unprotected --bench isolation`, with trivial programs and, where the
//! shared data lie beside the project, with problems of APPS that read standard input. `PYTHON` names the interpreter.

use std::process::Command;
use std::time::{Duration, Instant};

use refinerl_sandbox::program::{Compare, Entry, Limits, Program, Test};
use refinerl_sandbox::{Error, Interpreter, Outcome, Sandbox};

const ROUNDS: usize = 5;
/// Read programs from a stream in which each number is a length that so many bytes follow: the source, then as many
/// tests as the next length says, each with an input and an output.
const EXPORT: &str = r#"
import json, sys
def put(number, data=b""): sys.stdout.buffer.write(number.to_bytes(4, "little") + data)
for line in open(sys.argv[1]):
    row = json.loads(line)
    cases = row["input_output"]
    source = row["solutions"][0].encode()
    put(len(source), source)
    put(len(cases["inputs"]))
    for pair in zip(cases["inputs"], cases["outputs"]):
        for text in pair: put(len(text.encode()), text.encode())
"#;

struct Problem {
    source: Vec<u8>,
    tests: Vec<(Vec<u8>, Vec<u8>)>,
}

fn main() -> Result<(), Error> {
    let python = std::env::var("PYTHON").unwrap_or_else(|_| "python3".into());
    let trivial = (0..400).map(|n| Problem {
        source: format!("print(int(input()) + {n})").into_bytes(),
        tests: vec![(format!("{n}\n").into_bytes(), format!("{}\n", 2 * n).into_bytes())],
    });
    compare("trivial", &python, &trivial.collect::<Vec<_>>())?;
    // The same search as in tests/outside.py.
    let outside = std::env::var("REFINERL_OUTSIDE")
        .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared").into());
    let data = format!("{outside}/data/apps/apps_stdin.jsonl");
    if std::path::Path::new(&data).exists() {
        compare("APPS", &python, &problems(&python, &data))?;
    }
    Ok(())
}

fn problems(python: &str, path: &str) -> Vec<Problem> {
    let out = Command::new(python).args(["-c", EXPORT, path]).output();
    let mut rest = out.expect("the interpreter runs").stdout.into_iter();
    let number = |rest: &mut std::vec::IntoIter<u8>| -> Option<usize> {
        let bytes = [rest.next()?, rest.next()?, rest.next()?, rest.next()?];
        Some(u32::from_le_bytes(bytes) as usize)
    };
    let mut found = Vec::new();
    while let Some(length) = number(&mut rest) {
        let source = rest.by_ref().take(length).collect();
        let count = number(&mut rest).unwrap_or(0);
        let mut text = || {
            let length = number(&mut rest).unwrap_or(0);
            rest.by_ref().take(length).collect()
        };
        let tests = (0..count).map(|_| (text(), text())).collect();
        found.push(Problem { source, tests });
    }
    found
}

fn compare(name: &str, python: &str, problems: &[Problem]) -> Result<(), Error> {
    let interpreter = Interpreter {
        python: python.into(),
        packages: Vec::new(),
    };
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let sandboxes = [
        Sandbox::start(interpreter.clone(), workers, false)?,
        Sandbox::start_unprotected(interpreter, workers)?,
    ];
    let programs: Vec<Program<'_>> = problems.iter().map(program).collect();
    let count: usize = problems.iter().map(|problem| problem.tests.len()).sum();
    let mut best = [f64::INFINITY; 2];
    for _ in 0..ROUNDS {
        for (sandbox, best) in sandboxes.iter().zip(&mut best) {
            let start = Instant::now();
            let reports = sandbox.run(&programs, false, || false)?;
            *best = best.min(start.elapsed().as_secs_f64());
            assert!(reports.iter().flatten().all(|report| report.outcome == Outcome::Passed));
        }
    }
    let [protected, bare] = best.map(|seconds| count as f64 / seconds);
    println!(
        "{name:8} protected {protected:6.0} tests/s, unprotected {bare:6.0} tests/s: x {:.2}",
        bare / protected
    );
    Ok(())
}

fn program(problem: &Problem) -> Program<'_> {
    let limits = Limits {
        wall: Duration::from_secs(30),
        cpu: Duration::from_secs(30),
        memory: 512 << 20,
        output: 1 << 20,
    };
    let tests = problem.tests.iter().map(|(input, expected)| Test {
        input,
        expected: Some(expected),
    });
    Program {
        source: &problem.source,
        entry: Entry::Stdin,
        tests: tests.collect(),
        compare: Compare::Strict { atol: 1e-6 },
        limits,
        stop_early: false,
        together: false,
    }
}
