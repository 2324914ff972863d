//! Comparison of every level that this processor has with the same formulas in float64.

use proptest::prelude::*;
use refinerl_kernels::cpu::{Epilogue, Level, Slopes, Statistics};

/// (nll, entropy, p and log p) of one row, in float64.
fn exact(row: &[f32], target: usize, scale: f32) -> (f64, f64, Vec<(f64, f64)>) {
    let z: Vec<f64> = row.iter().map(|&logit| f64::from(logit) * f64::from(scale)).collect();
    let largest = z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let logsumexp = largest + z.iter().map(|z| (z - largest).exp()).sum::<f64>().ln();
    let terms: Vec<_> = z.iter().map(|z| ((z - logsumexp).exp(), z - logsumexp)).collect();
    let entropy = -terms
        .iter()
        .filter(|(p, _)| *p > 0.0)
        .map(|(p, log_p)| p * log_p)
        .sum::<f64>();
    (logsumexp - z[target], entropy, terms)
}

fn exact_gradient(row: &[f32], target: usize, scale: f32, nll: f32, entropy: f32) -> Vec<f64> {
    let (_, h, terms) = exact(row, target, scale);
    let gradient = |(j, (p, log_p)): (usize, &(f64, f64))| {
        let from_entropy = if *p > 0.0 { -p * (log_p + h) } else { 0.0 };
        let from_nll = p - f64::from(u8::from(j == target));
        f64::from(scale) * (f64::from(nll) * from_nll + f64::from(entropy) * from_entropy)
    };
    terms.iter().enumerate().map(gradient).collect()
}

fn close(got: f32, expected: f64, tolerance: f64) -> bool {
    f64::from(got) == expected || (f64::from(got) - expected).abs() <= tolerance * expected.abs().max(1.0)
}

/// Check all entry points on the same rows.
fn check(logits: &[f32], vocabulary: usize, targets: &[i64], scale: f32) {
    let rows = targets.len();
    let weights: Vec<f32> = (0..rows).map(|row| row as f32 * 0.7 - 0.9).collect();
    for level in Level::available() {
        for threads in [1, 3] {
            let epilogue = Epilogue::new(level, threads);
            let found = epilogue.statistics(logits, vocabulary, targets, scale);
            for slope in [0.0, 0.3] {
                let slopes = |nll: &f32| Slopes {
                    nll: *nll,
                    entropy: slope,
                };
                let slopes: Vec<_> = weights.iter().map(slopes).collect();
                let mut values = logits.to_vec();
                let same = epilogue.fused(&mut values, vocabulary, targets, &slopes, scale);
                assert_eq!(found, same, "{level:?}");
                for row in 0..rows {
                    let of = row * vocabulary..(row + 1) * vocabulary;
                    let target = targets[row] as usize;
                    let (nll, entropy, _) = exact(&logits[of.clone()], target, scale);
                    let Statistics { nll: a, entropy: b } = found[row];
                    assert!(close(a, nll, 1e-6), "{level:?} nll {a} {nll}");
                    assert!(close(b, entropy, 3e-6), "{level:?} entropy {b} {entropy}");
                    let expected = exact_gradient(&logits[of.clone()], target, scale, weights[row], slope);
                    // A probability near 1 is known to half a unit in its last place.
                    let allowed = 1.2e-7 * f64::from((weights[row] * scale).abs() + slope);
                    let largest = expected.iter().fold(0.0f64, |m, g| m.max(g.abs()));
                    for (got, expected) in values[of.clone()].iter().zip(expected) {
                        let error = (f64::from(*got) - expected).abs();
                        assert!(error <= 5e-6 * largest + allowed, "{level:?} gradient {got} {expected}");
                    }
                }
            }
        }
    }
}

fn noise(count: usize, spread: f32) -> Vec<f32> {
    let mut state = 1u64;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    (0..count).map(|_| spread * (next() + next() + next())).collect()
}

#[test]
fn every_width_around_vectors_and_blocks() {
    for vocabulary in [1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 1000, 2047, 2048, 2049, 4097, 50_257] {
        let logits = noise(3 * vocabulary, 10.0);
        check(
            &logits,
            vocabulary,
            &[0, vocabulary as i64 / 2, vocabulary as i64 - 1],
            1.0 / 0.7,
        );
    }
}

#[test]
fn many_rows_over_threads() {
    let targets: Vec<i64> = (0..500).map(|row| row % 301).collect();
    check(&noise(500 * 301, 4.0), 301, &targets, 1.0);
}

#[test]
fn large_logits_and_certain_targets() {
    let mut logits = noise(3 * 5000, 1e4);
    logits[5000 + 77] = 1e4; // certain, and aimed at
    logits[10_000 + 78] = 1e4; // certain, and missed
    check(&logits, 5000, &[4999, 77, 77], 1.0);
}

#[test]
fn a_certain_target_has_no_gradient() {
    for level in Level::available() {
        let epilogue = Epilogue::new(level, 1);
        let mut logits = vec![-8191.3; 3000];
        logits[2500] = 9999.7;
        let found = epilogue.statistics(&logits, 3000, &[2500], 1.0)[0];
        assert_eq!((found.nll, found.entropy), (0.0, 0.0));
        let slopes = Slopes { nll: 1.0, entropy: 0.0 };
        epilogue.fused(&mut logits, 3000, &[2500], &[slopes], 1.0);
        assert!(logits.iter().all(|g| g.abs() < 1e-6));
    }
}

#[test]
fn impossible_tokens_wherever_they_stand() {
    let infinite = f32::NEG_INFINITY;
    let mut logits = noise(3 * 6000, 5.0);
    logits[..4500].fill(infinite); // whole blocks before anything finite
    logits[6000 + 100..12_000].fill(infinite); // and after
    logits[12_000..].iter_mut().step_by(2).for_each(|z| *z = infinite);
    check(&logits, 6000, &[5999, 3, 1], 1.0);
    logits.iter_mut().for_each(|z| *z -= 1e4); // the finite ones far below 0
    check(&logits, 6000, &[5999, 3, 1], 1.0);
    for level in Level::available() {
        let found = Epilogue::new(level, 1).statistics(&logits, 6000, &[0, 5999, 0], 1.0);
        assert!(found
            .iter()
            .all(|row| row.nll == f32::INFINITY && row.entropy.is_finite()));
    }
}

#[test]
fn what_is_no_distribution_is_nan() {
    for level in Level::available() {
        let epilogue = Epilogue::new(level, 1);
        for bad in [f32::NAN, f32::INFINITY] {
            for at in [0, 7, 2999] {
                let mut logits = noise(3000, 1.0);
                logits[at] = bad;
                let slopes = Slopes { nll: 1.0, entropy: 0.0 };
                let found = epilogue.fused(&mut logits, 3000, &[5], &[slopes], 1.0)[0];
                assert!(
                    found.nll.is_nan() && found.entropy.is_nan(),
                    "{level:?} {bad} at {at}: {found:?}"
                );
                assert!(logits[100].is_nan());
            }
        }
        let found = epilogue.statistics(&[f32::NEG_INFINITY; 40], 40, &[0], 1.0)[0];
        assert!(found.nll.is_nan() && found.entropy.is_nan());
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn a_level_that_the_processor_lacks_is_refused() {
    for level in [Level::Portable, Level::Avx2, Level::Avx512] {
        let made = std::panic::catch_unwind(|| Epilogue::new(level, 1)).is_ok();
        assert_eq!(made, level.is_available(), "{level:?}");
    }
}

#[test]
fn no_rows() {
    check(&[], 10, &[], 1.0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_rows(
        (vocabulary, rows) in (1usize..300, 1usize..5),
        spread in prop_oneof![Just(0.0f32), Just(1.0), Just(30.0), Just(3e3)],
        scale in 0.2f32..5.0,
        shift in -50f32..50.0,
        seed in any::<u32>(),
    ) {
        let skip = seed as usize % 1000;
        let logits: Vec<f32> = noise(rows * vocabulary + skip, spread)[skip..].iter().map(|z| z + shift).collect();
        let targets: Vec<i64> = (0..rows).map(|row| ((seed as usize + row * 31) % vocabulary) as i64).collect();
        check(&logits, vocabulary, &targets, scale);
    }
}
