//! Elements per second of each pass on one thread: `cargo bench -p refinerl-kernels --bench epilogue`.

use std::time::Instant;

use refinerl_kernels::cpu::{Epilogue, Level, Slopes};

const ROWS: usize = 64;

fn main() {
    for level in Level::available() {
        for vocabulary in [49_152, 151_936] {
            let logits: Vec<f32> = (0..ROWS * vocabulary)
                .map(|i| ((i * 7919) % 4001) as f32 / 200.0 - 10.0)
                .collect();
            let targets: Vec<i64> = (0..ROWS as i64).collect();
            let slopes = |entropy| vec![Slopes { nll: 0.5, entropy }; ROWS];
            let epilogue = Epilogue::new(level, 1);
            report(level, "statistics", &logits, vocabulary, |logits| {
                epilogue.statistics(logits, vocabulary, &targets, 1.0);
            });
            report(level, "with the gradient of nll", &logits, vocabulary, |logits| {
                epilogue.fused(logits, vocabulary, &targets, &slopes(0.0), 1.0);
            });
            report(level, "of nll and entropy", &logits, vocabulary, |logits| {
                epilogue.fused(logits, vocabulary, &targets, &slopes(0.1), 1.0);
            });
        }
    }
}

fn report(level: Level, name: &str, logits: &[f32], vocabulary: usize, mut run: impl FnMut(&mut [f32])) {
    let mut best = f64::INFINITY;
    for _ in 0..7 {
        let mut own = logits.to_vec();
        let start = Instant::now();
        run(&mut own);
        best = best.min(start.elapsed().as_secs_f64());
    }
    let rate = logits.len() as f64 / best / 1e9;
    println!("{level:?}, {vocabulary}: {name}: {rate:.2} G elements/s");
}
