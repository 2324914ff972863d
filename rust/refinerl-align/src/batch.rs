//! Many pairs at once.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Mutex;

use crate::alignment::Alignment;
use crate::pair::Aligner;

/// One sequence of token ids, borrowed in the width that it came in.
#[derive(Clone, Copy, Debug)]
pub enum Tokens<'a> {
    /// 32-bit ids.
    I32(&'a [i32]),
    /// 64-bit ids.
    I64(&'a [i64]),
}

impl Tokens<'_> {
    /// Number of tokens.
    pub fn len(&self) -> usize {
        match self {
            Self::I32(ids) => ids.len(),
            Self::I64(ids) => ids.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The first id outside 0 … 2³¹ − 1.
    pub fn invalid(&self) -> Option<i64> {
        // One pass that vectorises finds whether there is any; only then is it looked for.
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
    /// The canonical alignment of two sequences of any width.
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

/// A batch of fewer tokens is done before other threads would have woken up.
const PARALLEL_TOKENS: usize = 1 << 16;

/// The alignments of many pairs, in order: on this thread alone, or with the help of rayon's current pool if that is
/// worth it.
pub fn align_batch(pairs: &[(Tokens<'_>, Tokens<'_>)], parallel: bool) -> Vec<Alignment> {
    let worth_it = || pairs.iter().map(|(a, b)| a.len() + b.len()).sum::<usize>() >= PARALLEL_TOKENS;
    let threads = rayon::current_num_threads().min(pairs.len());
    if !parallel || threads < 2 || !worth_it() {
        let mut aligner = Aligner::default();
        return pairs.iter().map(|(a, b)| aligner.align_tokens(*a, *b)).collect();
    }
    // Whoever is free takes the next pair; this thread does not wait for the others to wake up.
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(pairs.len()));
    let work = || {
        let mut aligner = Aligner::default();
        let mut own = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some((a, b)) = pairs.get(index) else { break };
            own.push((index, aligner.align_tokens(*a, *b)));
        }
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
