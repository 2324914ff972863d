//! Pairs per second of the core alone, on one thread: `cargo bench -p refinerl-align`.
//!
//! y is random tokens; ỹ is y with a share of its tokens edited in spans of mean length 3, insertions, deletions and
//! substitutions alike. Two kinds of text: uniform over 50k ids, and Zipf-like, where tokens recur as in real text.
//! The figure is the best of many rounds over 32 pairs, because other work on the machine can only lower it.

use std::time::{Duration, Instant};

use refinerl_align::{Algorithm, Aligner, Level};

struct Random(u64);

impl Random {
    fn unit(&mut self) -> f64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }

    fn token(&mut self, zipf: bool) -> i32 {
        let unit = self.unit();
        if zipf {
            (50_000f64.powf(unit) - 1.0) as i32
        } else {
            (unit * 50_000.0) as i32
        }
    }

    fn edited(&mut self, original: &[i32], rate: f64, zipf: bool) -> Vec<i32> {
        let mut refined = Vec::new();
        let mut x = 0;
        while x < original.len() {
            if self.unit() >= rate / 3.0 {
                refined.push(original[x]);
                x += 1;
                continue;
            }
            let kind = (self.unit() * 3.0) as usize;
            loop {
                if kind != 1 {
                    refined.push(self.token(zipf));
                }
                if kind != 0 {
                    x += 1;
                }
                if self.unit() < 1.0 / 3.0 || x >= original.len() {
                    break;
                }
            }
        }
        refined
    }
}

fn main() {
    // cargo test runs benches too, as a check that they run.
    let time = if std::env::args().any(|argument| argument == "--bench") {
        200
    } else {
        1
    };
    let algorithms = [
        Algorithm::Auto,
        Algorithm::Waves,
        Algorithm::ReducedWaves,
        Algorithm::Rows,
    ];
    for zipf in [false, true] {
        for length in [256, 1024, 4096] {
            for percent in [0, 2, 10, 50] {
                let mut random = Random(length as u64 + percent);
                let pairs: Vec<(Vec<i32>, Vec<i32>)> = (0..32)
                    .map(|_| {
                        let original: Vec<i32> = (0..length).map(|_| random.token(zipf)).collect();
                        let refined = random.edited(&original, percent as f64 / 100.0, zipf);
                        (original, refined)
                    })
                    .collect();
                let text = if zipf { "zipf" } else { "uniform" };
                print!("{text:8} {length:5} {percent:3} %");
                for level in Level::available() {
                    for algorithm in algorithms {
                        if algorithm != Algorithm::Auto && Some(&level) != Level::available().last() {
                            continue;
                        }
                        let mut aligner = Aligner::new(level, algorithm);
                        let mut best = f64::MAX;
                        let begin = Instant::now();
                        while begin.elapsed() < Duration::from_millis(time) {
                            let round = Instant::now();
                            let distances = pairs.iter().map(|(a, b)| aligner.align(a, b).distance());
                            std::hint::black_box(distances.sum::<usize>());
                            best = best.min(round.elapsed().as_secs_f64());
                        }
                        print!(" {level:?}/{algorithm:?} {:9.0}/s", pairs.len() as f64 / best);
                    }
                }
                println!();
            }
        }
    }
}
