//! The order in which rows share most with their neighbours.

use crate::rows::Rows;

/// Rows sorted by their ids, a prefix before what extends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Indices of the rows; identical ones stay in the given order.
    pub rows: Vec<i64>,
    /// Number of tokens that each row, in this order, shares with the one before it; 0 for the first.
    pub shared: Vec<i64>,
}

impl Order {
    /// The rows in this order: index, and number of tokens shared with the one before.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let pairs = self.rows.iter().zip(&self.shared);
        pairs.map(|(&row, &shared)| (row as usize, shared as usize))
    }
}

/// Sort rows. A block of neighbours needs as many tokens as its first row has, plus what each other row does not share.
pub fn order(rows: Rows<'_>) -> Order {
    let mut sorted: Vec<i64> = (0..rows.len() as i64).collect();
    sorted.sort_by(|&a, &b| rows.row(a as usize).cmp(rows.row(b as usize)));
    let mut shared = vec![0; sorted.len()];
    for (pair, shared) in sorted.windows(2).zip(shared.iter_mut().skip(1)) {
        let [before, row] = [pair[0], pair[1]].map(|index| rows.row(index as usize));
        *shared = before.iter().zip(row).take_while(|(a, b)| a == b).count() as i64;
    }
    Order { rows: sorted, shared }
}
