//! Batches of pairs.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Mutex;

use crate::alignment::Alignment;
use crate::pair::Aligner;
use crate::pool::POOL;

/// A borrowed sequence of token ids of either width.
#[derive(Clone, Copy, Debug)]
pub enum Tokens<'a> {
    /// 32-bit ids.
    I32(&'a [i32]),
    /// 64-bit ids.
    I64(&'a [i64]),
}

impl<'a> From<&'a [i32]> for Tokens<'a> {
    fn from(ids: &'a [i32]) -> Self {
        Self::I32(ids)
    }
}

impl<'a> From<&'a [i64]> for Tokens<'a> {
    fn from(ids: &'a [i64]) -> Self {
        Self::I64(ids)
    }
}

impl Tokens<'_> {
    /// Number of tokens.
    pub fn len(&self) -> usize {
        match self {
            Self::I32(ids) => ids.len(),
            Self::I64(ids) => ids.len(),
        }
    }

    /// True if there are no tokens.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The first id outside 0 … 2³¹ − 1.
    pub fn invalid(&self) -> Option<i64> {
        // A pass that vectorises tells whether there is one; only then is it searched for.
        match self {
            Self::I32(ids) => {
                let any = ids.iter().fold(0, |all, &id| all | id) < 0;
                any.then(|| ids.iter().find(|id| **id < 0).map(|id| i64::from(*id)))?
            }
            Self::I64(ids) => {
                let outside = |id: i64| id >> 31 != 0;
                let any = outside(ids.iter().fold(0, |all, &id| all | id));
                any.then(|| ids.iter().copied().find(|id| outside(*id)))?
            }
        }
    }
}

impl Aligner {
    /// Compute the canonical alignment of two sequences of any width.
    pub fn align_tokens(&mut self, original: Tokens<'_>, refined: Tokens<'_>) -> Alignment {
        let widen = |ids: &[i32]| ids.iter().map(|id| i64::from(*id)).collect::<Vec<_>>();
        match (original, refined) {
            (Tokens::I32(a), Tokens::I32(b)) => self.align(a, b),
            (Tokens::I64(a), Tokens::I64(b)) => self.align(a, b),
            (Tokens::I32(a), Tokens::I64(b)) => self.align(&widen(a), b),
            (Tokens::I64(a), Tokens::I32(b)) => self.align(a, &widen(b)),
        }
    }
}

/// Batches of fewer tokens are finished before other threads would have woken up.
const PARALLEL_TOKENS: usize = 1 << 16;

/// Align many pairs, in order: on this thread alone, or with `parallel` also on rayon's current pool where that pays.
pub fn align_batch(pairs: &[(Tokens<'_>, Tokens<'_>)], parallel: bool) -> Vec<Alignment> {
    let worth_it = || pairs.iter().map(|(a, b)| a.len() + b.len()).sum::<usize>() >= PARALLEL_TOKENS;
    let threads = rayon::current_num_threads().min(pairs.len());
    if !parallel || threads < 2 || !worth_it() {
        return POOL.with(|aligner| pairs.iter().map(|(a, b)| aligner.align_tokens(*a, *b)).collect());
    }
    // A free thread takes the next pair; this one does not wait for the others to wake up.
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(pairs.len()));
    let take = || {
        let index = next.fetch_add(1, Ordering::Relaxed);
        Some((index, pairs.get(index)?))
    };
    let work = || {
        let mut own = Vec::new();
        POOL.with(|aligner| {
            while let Some((index, (a, b))) = take() {
                own.push((index, aligner.align_tokens(*a, *b)));
            }
        });
        done.lock().expect("no thread panics").append(&mut own);
    };
    rayon::in_place_scope(|scope| {
        (1..threads).for_each(|_| scope.spawn(|_| work()));
        work();
    });
    let mut done = done.into_inner().expect("no thread panics");
    done.sort_unstable_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, alignment)| alignment).collect()
}
