//! Kept runs, collected from the last to the first.

use crate::alignment::Run;
use crate::memory::size;

/// Positions in y and ỹ as one number.
#[inline(always)]
pub(crate) fn pair(original: u32, refined: u32) -> u64 {
    u64::from(original) | u64::from(refined) << 32
}

/// The ends of a run that no other touches: it stands before the first one, so that there is always one to compare with.
const NONE: u64 = u64::MAX;

/// Runs, the last first; the memory is reused from pair to pair.
pub(crate) struct Runs {
    /// `NONE` twice, the first and the last token of each run (`pair`), and rubbish behind them.
    ends: Vec<u64>,
    /// Index of the first token of the run that was added last, 0 if there is none.
    at: usize,
}

impl Default for Runs {
    fn default() -> Self {
        Self {
            ends: vec![NONE; 2],
            at: 0,
        }
    }
}

impl Runs {
    /// Bytes of the buffer.
    pub(crate) fn size(&self) -> usize {
        size(&self.ends)
    }

    /// Forget all runs.
    pub(crate) fn clear(&mut self) {
        self.at = 0;
    }

    /// The runs, the first one first.
    pub(crate) fn in_order(&self) -> Box<[Run]> {
        let runs = self.ends[2..self.at + 2].as_chunks().0.iter();
        runs.rev()
            .map(|&[first, last]| Run {
                original: first as u32,
                refined: (first >> 32) as u32,
                length: last as u32 - first as u32 + 1,
            })
            .collect()
    }

    /// Add a run in front of the others.
    pub(crate) fn prepend(&mut self, run: Run) {
        let first = pair(run.original, run.refined);
        let after = first + pair(run.length, run.length);
        let (ends, at) = self.room(1);
        if after != ends[*at] {
            *at += 2;
            ends[*at + 1] = after - pair(1, 1);
        }
        ends[*at] = first;
    }

    /// The runs and the index of the one that was added last, with room for as many more, and one too many.
    pub(crate) fn room(&mut self, more: usize) -> (&mut [u64], &mut usize) {
        let room = self.at + 2 + 2 * (more + 1);
        if self.ends.len() < room {
            self.ends.resize(room, NONE);
        }
        (&mut self.ends, &mut self.at)
    }
}
