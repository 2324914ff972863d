//! Comparison of every path with the quadratic dynamic program, and with each other.

use proptest::prelude::*;
use refinerl_align::{align_batch, Algorithm, Aligner, Alignment, Level, Run, Tokens};

/// The canonical alignment by its definition: trim, then the table of longest common subsequences walked back.
fn naive(a: &[i32], b: &[i32]) -> Alignment {
    let prefix = a.iter().zip(b).take_while(|(x, y)| x == y).count();
    let ends = a[prefix..].iter().rev().zip(b[prefix..].iter().rev());
    let suffix = ends.take_while(|(x, y)| x == y).count();
    let (n, m) = (a.len() - suffix, b.len() - suffix);
    let mut longest = vec![vec![0u32; m + 1]; n + 1];
    for i in prefix..n {
        for j in prefix..m {
            longest[i + 1][j + 1] = if a[i] == b[j] {
                longest[i][j] + 1
            } else {
                longest[i][j + 1].max(longest[i + 1][j])
            };
        }
    }
    let mut kept: Vec<(usize, usize)> = (0..suffix).rev().map(|t| (n + t, m + t)).collect();
    let (mut i, mut j) = (n, m);
    while longest[i][j] > 0 {
        if longest[i][j - 1] == longest[i][j] {
            j -= 1;
        } else if longest[i - 1][j] == longest[i][j] {
            i -= 1;
        } else {
            (i, j) = (i - 1, j - 1);
            kept.push((i, j));
        }
    }
    kept.extend((0..prefix).rev().map(|t| (t, t)));
    let mut runs: Vec<Run> = Vec::new();
    for (x, y) in kept.into_iter().rev() {
        match runs.last_mut() {
            Some(run) if (run.original + run.length, run.refined + run.length) == (x as u32, y as u32) => {
                run.length += 1
            }
            _ => runs.push(Run {
                original: x as u32,
                refined: y as u32,
                length: 1,
            }),
        }
    }
    Alignment::from_runs(a.len() as u32, b.len() as u32, runs).expect("the runs are in order")
}

fn aligners() -> impl Iterator<Item = (Level, Algorithm, Aligner)> {
    let algorithms = [
        Algorithm::Auto,
        Algorithm::Waves,
        Algorithm::ReducedWaves,
        Algorithm::Rows,
    ];
    Level::available()
        .into_iter()
        .flat_map(move |level| algorithms.map(|algorithm| (level, algorithm, Aligner::new(level, algorithm))))
}

#[derive(Clone, Debug)]
enum Edit {
    Insert(usize, Vec<u32>),
    Delete(usize, usize),
    Replace(usize, Vec<u32>),
    Repeat(usize, usize),
    Move(usize, usize, usize),
}

fn edit() -> impl Strategy<Value = Edit> {
    let tokens = || prop::collection::vec(any::<u32>(), 1..8);
    prop_oneof![
        (any::<usize>(), tokens()).prop_map(|(at, ids)| Edit::Insert(at, ids)),
        (any::<usize>(), 1..8usize).prop_map(|(at, length)| Edit::Delete(at, length)),
        (any::<usize>(), tokens()).prop_map(|(at, ids)| Edit::Replace(at, ids)),
        (any::<usize>(), 1..8usize).prop_map(|(at, length)| Edit::Repeat(at, length)),
        (any::<usize>(), any::<usize>(), 1..8usize).prop_map(|(at, to, length)| Edit::Move(at, to, length)),
    ]
}

fn apply(ids: &mut Vec<u32>, edit: Edit) {
    let clamp = |at: usize, length: usize, size: usize| {
        let from = at % (size + 1);
        from..(from + length).min(size)
    };
    let size = ids.len();
    match edit {
        Edit::Insert(at, fresh) => drop(ids.splice(at % (size + 1)..at % (size + 1), fresh)),
        Edit::Delete(at, length) => drop(ids.drain(clamp(at, length, size))),
        Edit::Replace(at, fresh) => drop(ids.splice(clamp(at, fresh.len(), size), fresh)),
        Edit::Repeat(at, length) => {
            let span = clamp(at, length, size);
            let copy = ids[span.clone()].to_vec();
            ids.splice(span.end..span.end, copy);
        }
        Edit::Move(at, to, length) => {
            let moved: Vec<u32> = ids.drain(clamp(at, length, size)).collect();
            let to = to % (ids.len() + 1);
            ids.splice(to..to, moved);
        }
    }
}

/// y, and ỹ as an edited copy or an unrelated sequence, over alphabets from 1 to 100k.
fn pair(longest: usize) -> impl Strategy<Value = (Vec<i32>, Vec<i32>)> {
    let tokens = move || prop::collection::vec(any::<u32>(), 0..longest);
    let edits = prop::collection::vec(edit(), 0..longest / 6);
    let alphabet = prop_oneof![1u32..6, Just(40), Just(1000), Just(100_000)];
    // Ids of a vocabulary, or larger ones.
    let offset = prop_oneof![Just(0u32), Just(1 << 30)];
    let other = prop::option::weighted(0.2, tokens());
    (alphabet, offset, tokens(), edits, other).prop_map(|(alphabet, offset, original, edits, other)| {
        let mut refined = other.unwrap_or_else(|| original.clone());
        edits.into_iter().for_each(|edit| apply(&mut refined, edit));
        let fold = |ids: Vec<u32>| ids.into_iter().map(|id| (offset + id % alphabet) as i32).collect();
        (fold(original), fold(refined))
    })
}

proptest! {
    // PROPTEST_CASES asks for more; an optimised build has time for more anyway.
    #![proptest_config({
        let least = if cfg!(debug_assertions) { 300 } else { 3000 };
        ProptestConfig::with_cases(ProptestConfig::default().cases.max(least))
    })]

    #[test]
    fn every_path_gives_the_canonical_alignment((a, b) in pair(300)) {
        let expected = naive(&a, &b);
        let wide = |ids: &[i32]| ids.iter().map(|id| i64::from(*id)).collect::<Vec<_>>();
        for (level, algorithm, mut aligner) in aligners() {
            prop_assert_eq!(&aligner.align(&a, &b), &expected, "{:?} {:?}", level, algorithm);
            prop_assert_eq!(&aligner.align(&wide(&a), &wide(&b)), &expected, "{:?} {:?} i64", level, algorithm);
        }
    }

    #[test]
    fn short_pairs_too((a, b) in pair(24)) {
        let expected = naive(&a, &b);
        for (level, algorithm, mut aligner) in aligners() {
            prop_assert_eq!(&aligner.align(&a, &b), &expected, "{:?} {:?}", level, algorithm);
        }
    }

    #[test]
    fn what_the_alignment_says_agrees((a, b) in pair(200)) {
        let alignment = Aligner::default().align(&a, &b);
        let (kept, refined_kept) = (alignment.original_kept(), alignment.refined_kept());
        let of = |ids: &[i32], mask: &[bool]| -> Vec<i32> {
            ids.iter().zip(mask).filter(|(_, kept)| **kept).map(|(id, _)| *id).collect()
        };
        prop_assert_eq!(of(&a, &kept), of(&b, &refined_kept));
        let changed = kept.iter().chain(&refined_kept).filter(|kept| !**kept).count();
        prop_assert_eq!(changed, alignment.distance());
        let rebuilt = Alignment::from_runs(a.len() as u32, b.len() as u32, alignment.runs().to_vec());
        prop_assert_eq!(rebuilt.as_ref(), Some(&alignment));

        let costs: Vec<f64> = (0..b.len()).map(|t| 1.0 + (t % 7) as f64).collect();
        let mut charges = vec![0.0; a.len()];
        alignment.charge(&costs, &mut charges);
        let mut expected = vec![0.0; a.len()];
        for (target, cost) in alignment.refined_to_original().into_iter().zip(&costs) {
            match usize::try_from(target) {
                Ok(target) => expected[target] += cost,
                Err(_) => prop_assert!(a.is_empty()),
            }
        }
        prop_assert_eq!(charges, expected); // small integers: exact in any order
    }
}

#[test]
fn long_pairs_agree_on_every_path() {
    let mut state = 1u64;
    let mut random = move |below: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    // Uniform ids, and Zipf-like ones, as in text.
    for (alphabet, zipf) in [(3, false), (300, false), (30_000, false), (30_000, true)] {
        let token = |random: &mut dyn FnMut(u64) -> u64| {
            if zipf {
                (alphabet as f64).powf(random(1 << 20) as f64 / f64::from(1 << 20)) as i32
            } else {
                random(alphabet) as i32
            }
        };
        let a: Vec<i32> = (0..3000).map(|_| token(&mut random)).collect();
        let mut b = a.clone();
        for _ in 0..120 * if zipf { 4 } else { 1 } {
            let at = random(b.len() as u64 - 8) as usize;
            let fresh: Vec<i32> = (0..random(5)).map(|_| token(&mut random)).collect();
            b.splice(at..at + random(5) as usize, fresh);
        }
        let expected = naive(&a, &b);
        for (level, algorithm, mut aligner) in aligners() {
            assert_eq!(
                aligner.align(&a, &b),
                expected,
                "{level:?} {algorithm:?} alphabet {alphabet} {zipf}"
            );
        }
    }
}

/// Around the lengths up to which tokens are compared with each other, and those of a word's columns.
#[test]
fn pairs_of_about_a_word_or_two_agree_on_every_path() {
    let mut state = 3u32;
    let mut random = move |below: u32| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) % below
    };
    for alphabet in [2, 20, 200] {
        for n in [1, 63, 64, 65, 127, 128, 129, 130] {
            for m in [1, 62, 63, 64, 65, 66, 127, 128, 129] {
                let mut tokens = |length| (0..length).map(|_| random(alphabet) as i32).collect::<Vec<_>>();
                let (mut a, mut b) = (tokens(n), tokens(m));
                // Nothing in common at the ends.
                a.splice(0..1, [1000]);
                a.push(1001);
                b.push(1002);
                let expected = naive(&a, &b);
                for (level, algorithm, mut aligner) in aligners() {
                    assert_eq!(
                        aligner.align(&a, &b),
                        expected,
                        "{level:?} {algorithm:?} {n} {m} of {alphabet}"
                    );
                }
            }
        }
    }
}

/// 32k tokens with 10 % edits, and 32k × 32k without anything in common but the alphabet.
#[test]
fn very_long_pairs_work() {
    let mut state = 7u32;
    let mut random = move |below: u32| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) % below
    };
    for (alphabet, rate) in [(50_000, 10), (500, 10), (4, 100)] {
        let a: Vec<i64> = (0..32_768).map(|_| i64::from(random(alphabet))).collect();
        let edited = |id: &i64| {
            if random(100) < rate {
                i64::from(random(alphabet))
            } else {
                *id
            }
        };
        let b: Vec<i64> = a.iter().map(edited).collect();
        let alignment = Aligner::default().align(&a, &b);
        let same = a.iter().zip(&b).filter(|(x, y)| x == y).count();
        assert!(
            alignment.kept() >= same,
            "keeping what stands in place is one alignment"
        );
        assert_eq!(alignment, Aligner::new(Level::Portable, Algorithm::Rows).align(&a, &b));
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn a_level_that_the_processor_lacks_is_refused() {
    for level in [Level::Portable, Level::Avx2, Level::Avx512] {
        let made = std::panic::catch_unwind(|| Aligner::new(level, Algorithm::Auto)).is_ok();
        assert_eq!(made, level.is_available(), "{level:?}");
    }
}

#[test]
fn a_batch_is_its_pairs_on_any_number_of_threads() {
    let (narrow, wide): (Vec<i32>, Vec<i64>) = ((0..50).collect(), (5..40).collect());
    let (narrow, wide, empty) = (Tokens::I32(&narrow), Tokens::I64(&wide), Tokens::I64(&[]));
    let pairs = [
        (narrow, wide),
        (wide, narrow),
        (narrow, narrow),
        (wide, wide),
        (empty, narrow),
        (wide, empty),
    ];
    let distances = [15, 15, 0, 0, 50, 35];
    for times in [1, 2000] {
        // few tokens on this thread, many on all
        let pairs = pairs.repeat(times);
        let alignments = align_batch(&pairs, false);
        assert_eq!(alignments, align_batch(&pairs, true));
        let found: Vec<usize> = alignments.iter().map(Alignment::distance).collect();
        assert_eq!(found, distances.repeat(times));
    }
}

#[test]
fn ids_outside_the_range_are_found() {
    assert_eq!(Tokens::I32(&[1, i32::MAX]).invalid(), None);
    assert_eq!(Tokens::I32(&[1, -3, -4]).invalid(), Some(-3));
    assert_eq!(Tokens::I64(&[1, i64::from(i32::MAX)]).invalid(), None);
    assert_eq!(Tokens::I64(&[1, 1 << 31]).invalid(), Some(1 << 31));
    assert_eq!(Tokens::I64(&[-1]).invalid(), Some(-1));
}
