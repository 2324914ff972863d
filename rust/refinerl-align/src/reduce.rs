//! Reduction of a pair to tokens that both sides have. The others are never kept, so dropping them is exact, and it
//! shortens the distance a lot.
//!
//! A bitmap over the low bits of the ids says which tokens a side has. A token that it wrongly reports merely stays.

use crate::alignment::Run;
use crate::simd::Padded;

/// Two sequences without the tokens that the other lacks, and the original positions of the rest; the memory is reused.
pub(crate) struct Reduced {
    held_by_a: Vec<u64>,
    held_by_b: Vec<u64>,
    /// y, reduced.
    pub(crate) a: Padded,
    /// ỹ, reduced.
    pub(crate) b: Padded,
    /// Position in y of each token of `a`.
    pub(crate) a_positions: Vec<u32>,
    /// Position in ỹ of each token of `b`.
    pub(crate) b_positions: Vec<u32>,
}

impl Default for Reduced {
    fn default() -> Self {
        Self {
            held_by_a: Vec::new(),
            held_by_b: Vec::new(),
            a: Padded::original(),
            b: Padded::refined(),
            a_positions: Vec::new(),
            b_positions: Vec::new(),
        }
    }
}

impl Reduced {
    /// Reduce a pair.
    pub(crate) fn reduce(&mut self, a: &[u32], b: &[u32]) {
        // With 16 to 32 bits for each token, at most one in 16 of the tokens that the other side lacks stays.
        let words = (a.len().max(b.len()) / 4).next_power_of_two();
        hold(&mut self.held_by_a, a, words);
        hold(&mut self.held_by_b, b, words);
        sift(a, &self.held_by_b, &mut self.a, &mut self.a_positions);
        sift(b, &self.held_by_a, &mut self.b, &mut self.b_positions);
    }

    /// Pass a kept run to `keep` in positions of y and ỹ, split where tokens were dropped within it, last piece first.
    pub(crate) fn restore(&self, run: Run, keep: &mut impl FnMut(Run)) {
        let (x, y, length) = (run.original as usize, run.refined as usize, run.length as usize);
        let (a, b) = (&self.a_positions[x..x + length], &self.b_positions[y..y + length]);
        // Positions ascend, so the two ends tell whether any between is missing.
        if a[length - 1] - a[0] == run.length - 1 && b[length - 1] - b[0] == run.length - 1 {
            return keep(Run {
                original: a[0],
                refined: b[0],
                length: run.length,
            });
        }
        let half = run.length / 2;
        let (original, refined) = (run.original + half, run.refined + half);
        self.restore(
            Run {
                original,
                refined,
                length: run.length - half,
            },
            keep,
        );
        self.restore(Run { length: half, ..run }, keep);
    }
}

/// Set the bits of the ids in a map of `words` words, a power of two.
fn hold(map: &mut Vec<u64>, ids: &[u32], words: usize) {
    map.clear();
    map.resize(words, 0);
    for &id in ids {
        map[(id / 64) as usize & (words - 1)] |= 1 << (id % 64);
    }
}

/// List the ids whose bits are set, and their positions.
fn sift(ids: &[u32], map: &[u64], kept: &mut Padded, positions: &mut Vec<u32>) {
    positions.clear();
    positions.resize(ids.len() + 1, 0);
    let mut count = 0;
    for (position, &id) in ids.iter().enumerate() {
        // Always written, counted only if it stays: a branch would cost more, as it cannot be predicted.
        positions[count] = position as u32;
        count += (map[(id / 64) as usize & (map.len() - 1)] >> (id % 64) & 1) as usize;
    }
    positions.truncate(count);
    kept.replace(positions.iter().map(|position| ids[*position as usize]));
}
