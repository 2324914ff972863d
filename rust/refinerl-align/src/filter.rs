//! The selection of refinements: the filter of Eq. 4, its ablations, and the merging of identical rows.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};

use crate::batch::Tokens;

/// The condition that a refinement must meet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Accept {
    /// R(ỹ) > R(y), the paper's filter.
    Better,
    /// Better, and of the highest possible reward.
    Perfect {
        /// That reward.
        max_reward: f64,
    },
    /// All refinements that have rewards and are not empty.
    All,
}

/// The reason why a refinement is accepted or not: the first that applies, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// ỹ has no tokens.
    Empty,
    /// y or ỹ has no reward.
    Masked,
    /// R(ỹ) ≤ R(y).
    NotBetter,
    /// Better, but below the highest reward.
    NotPerfect,
    /// It meets the condition.
    Accepted,
}

/// The verdict on a batch of refinements, row by row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filtered {
    /// The reason for each row.
    pub reasons: Vec<Reason>,
    /// For an accepted row the first accepted row identical to it (possibly itself); −1 for the others.
    pub representative: Vec<i64>,
    /// Number of rows that a representative stands for; 0 for all other rows.
    pub weight: Vec<i64>,
}

/// Token ids that are equal whatever their width.
struct Ids<'a>(Tokens<'a>);

impl Ids<'_> {
    fn iter(&self) -> Box<dyn Iterator<Item = i64> + '_> {
        match self.0 {
            Tokens::I32(ids) => Box::new(ids.iter().map(|id| i64::from(*id))),
            Tokens::I64(ids) => Box::new(ids.iter().copied()),
        }
    }
}

impl PartialEq for Ids<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.0.len() == other.0.len() && self.iter().eq(other.iter())
    }
}

impl Eq for Ids<'_> {}

impl Hash for Ids<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.iter().for_each(|id| state.write_i64(id));
    }
}

/// Filter n refinements. `rewards` are R(y) and `refined_rewards` R(ỹ); NaN means that there is none.
///
/// Accepted rows with the same prompt and the same ỹ merge into the first of them.
///
/// # Panics
/// If the slices differ in length.
pub fn filter(
    rewards: &[f64],
    refined_rewards: &[f64],
    prompts: &[i64],
    refined: &[Tokens<'_>],
    accept: Accept,
) -> Filtered {
    let n = rewards.len();
    assert!(
        refined_rewards.len() == n && prompts.len() == n && refined.len() == n,
        "as many of each"
    );
    let reasons: Vec<Reason> = (0..n)
        .map(|i| match accept {
            _ if refined[i].is_empty() => Reason::Empty,
            _ if rewards[i].is_nan() || refined_rewards[i].is_nan() => Reason::Masked,
            Accept::All => Reason::Accepted,
            _ if refined_rewards[i] <= rewards[i] => Reason::NotBetter,
            Accept::Perfect { max_reward } if refined_rewards[i] < max_reward => Reason::NotPerfect,
            _ => Reason::Accepted,
        })
        .collect();
    let mut representative = vec![-1; n];
    let mut weight = vec![0; n];
    let mut first: HashMap<(i64, Ids<'_>), usize> = HashMap::new();
    for i in (0..n).filter(|i| reasons[*i] == Reason::Accepted) {
        let row = *first.entry((prompts[i], Ids(refined[i]))).or_insert(i);
        representative[i] = row as i64;
        weight[row] += 1;
    }
    Filtered {
        reasons,
        representative,
        weight,
    }
}
