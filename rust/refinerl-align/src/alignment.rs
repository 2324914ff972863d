//! An alignment of two sequences, and what follows from it: masks, charges, ratios.

/// A maximal run of kept tokens: `length` tokens of y from `original` on are those of ỹ from `refined` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Run {
    /// Position in y.
    pub original: u32,
    /// Position in ỹ.
    pub refined: u32,
    /// Tokens in the run, at least 1.
    pub length: u32,
}

/// The derivation of ỹ from y by the fewest insertions and deletions: the kept runs, in order.
///
/// Everything else is computed on demand, so an alignment of two long, similar sequences takes a few dozen bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Alignment {
    pub(crate) original_length: u32,
    pub(crate) refined_length: u32,
    pub(crate) runs: Box<[Run]>,
}

/// A stretch in which y and ỹ differ, and the kept run that ends it (empty at the very end).
struct Departure {
    /// `original[0]..original[1]` is deleted from y.
    original: [usize; 2],
    /// `refined[0]..refined[1]` is inserted into ỹ.
    refined: [usize; 2],
    /// Kept tokens that follow.
    kept: usize,
}

impl Alignment {
    /// Build an alignment from its parts; None unless the runs are in order, within the lengths, and maximal.
    pub fn from_runs(original_length: u32, refined_length: u32, runs: Vec<Run>) -> Option<Self> {
        let (mut x, mut y) = (0u64, 0u64);
        for (index, run) in runs.iter().enumerate() {
            let (a, b) = (u64::from(run.original), u64::from(run.refined));
            let touches = index > 0 && a == x && b == y;
            if run.length == 0 || a < x || b < y || touches {
                return None;
            }
            (x, y) = (a + u64::from(run.length), b + u64::from(run.length));
        }
        let fits = x <= u64::from(original_length) && y <= u64::from(refined_length);
        fits.then(|| Self {
            original_length,
            refined_length,
            runs: runs.into(),
        })
    }

    /// L, the number of tokens of y.
    pub fn original_length(&self) -> usize {
        self.original_length as usize
    }

    /// L′, the number of tokens of ỹ.
    pub fn refined_length(&self) -> usize {
        self.refined_length as usize
    }

    /// The kept runs, in order.
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// Length of the common prefix.
    pub fn prefix(&self) -> usize {
        match self.runs.first() {
            Some(run) if run.original == 0 && run.refined == 0 => run.length as usize,
            _ => 0,
        }
    }

    /// Number of kept tokens.
    pub fn kept(&self) -> usize {
        self.runs.iter().map(|run| run.length as usize).sum()
    }

    /// Insertions plus deletions.
    pub fn distance(&self) -> usize {
        self.original_length() + self.refined_length() - 2 * self.kept()
    }

    /// Share of the tokens of ỹ that are kept. For an empty ỹ: 1 if y is empty too, else 0.
    pub fn copy_ratio(&self) -> f64 {
        match (self.original_length, self.refined_length) {
            (0, 0) => 1.0,
            (_, 0) => 0.0,
            _ => self.kept() as f64 / f64::from(self.refined_length),
        }
    }

    /// Mask \[L\] of the tokens of y that are kept.
    pub fn original_kept(&self) -> Vec<bool> {
        let mut mask = vec![false; self.original_length()];
        for run in &self.runs {
            mask[run.original as usize..][..run.length as usize].fill(true);
        }
        mask
    }

    /// Mask \[L′\] of the tokens of ỹ that are kept.
    pub fn refined_kept(&self) -> Vec<bool> {
        let mut mask = vec![false; self.refined_length()];
        for run in &self.runs {
            mask[run.refined as usize..][..run.length as usize].fill(true);
        }
        mask
    }

    /// Positions \[L′\] of y to which the tokens of ỹ are charged; all −1 if y is empty.
    ///
    /// - A kept token is charged to its partner.
    /// - An inserted run is charged to the first token of the deleted run that it replaces; if it replaces nothing, to
    ///   the token of y before which it stands; at the very end, to the last token of y.
    /// - The kept token directly after a pure deletion is charged to the first deleted token, where y departs from ỹ.
    pub fn refined_to_original(&self) -> Vec<i64> {
        let mut target = Vec::with_capacity(self.refined_length());
        if self.original_length == 0 {
            target.resize(self.refined_length(), -1);
            return target;
        }
        let last = self.original_length() - 1;
        for Departure {
            original,
            refined,
            kept,
        } in self.departures()
        {
            let departs = original[0].min(last) as i64;
            target.resize(refined[1], departs);
            let first = if refined[0] == refined[1] {
                departs
            } else {
                original[1] as i64
            };
            if kept > 0 {
                target.push(first);
                target.extend((original[1] as i64 + 1..).take(kept - 1));
            }
        }
        target
    }

    /// Add the costs of the tokens of ỹ to the positions of y that they are charged to.
    ///
    /// `costs` has at least L′ and `charges` at least L values. An empty y has no position: its costs are dropped.
    pub fn charge(&self, costs: &[f64], charges: &mut [f64]) {
        if self.original_length == 0 {
            return;
        }
        let last = self.original_length() - 1;
        for Departure {
            original,
            refined,
            kept,
        } in self.departures()
        {
            let departs = original[0].min(last);
            charges[departs] += costs[refined[0]..refined[1]].iter().sum::<f64>();
            if kept == 0 {
                continue;
            }
            let first = if refined[0] == refined[1] { departs } else { original[1] };
            charges[first] += costs[refined[1]];
            let partners = charges[original[1]..].iter_mut().zip(&costs[refined[1]..]);
            for (charge, cost) in partners.take(kept).skip(1) {
                *charge += cost;
            }
        }
    }

    /// Departures in order: one before each kept run (empty only before a common prefix), and one at the end.
    fn departures(&self) -> impl Iterator<Item = Departure> + '_ {
        let end = Run {
            original: self.original_length,
            refined: self.refined_length,
            length: 0,
        };
        let (mut x, mut y) = (0, 0);
        self.runs.iter().copied().chain([end]).map(move |run| {
            let (a, b) = (run.original as usize, run.refined as usize);
            let departure = Departure {
                original: [x, a],
                refined: [y, b],
                kept: run.length as usize,
            };
            (x, y) = (a + departure.kept, b + departure.kept);
            departure
        })
    }
}
