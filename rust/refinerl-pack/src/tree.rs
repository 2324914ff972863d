//! The tree of rows, as arrays.

use crate::order::order;
use crate::rows::Rows;

/// A tree of T tokens in M nodes.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Tree {
    /// (T) token ids, in depth-first order.
    pub ids: Vec<i64>,
    /// (T) depth of each token, which is its position in every row that has it.
    pub positions: Vec<i64>,
    /// (T) the token before each one; −1 for the first of a row.
    pub parents: Vec<i64>,
    /// (T) end of each token's subtree: the tokens that see token k are those from k to `sub_end[k] − 1`.
    pub sub_end: Vec<i64>,
    /// (M + 1) the first token of each node, then T.
    pub starts: Vec<i64>,
    /// For each node, one after the other: the tokens that its last token sees, in the order of their positions.
    pub keys: Vec<i64>,
    /// (M + 1) where each node begins in `keys`, then the length of `keys`.
    pub key_starts: Vec<i64>,
    /// (R · width) the token of the tree at each place of each row; −1 for padding.
    pub slots: Vec<i64>,
}

/// Make the tree of rows.
pub fn tree(rows: Rows<'_>) -> Tree {
    let mut tree = Tree {
        slots: vec![-1; rows.len() * rows.width()],
        ..Tree::default()
    };
    // The tokens of the row before. Sorted rows leave a subtree for good.
    let mut path: Vec<i64> = Vec::new();
    for (row, shared) in order(rows).iter() {
        tree.close(&path[shared..]);
        path.truncate(shared);
        for &id in &rows.row(row)[shared..] {
            tree.positions.push(path.len() as i64);
            tree.parents.push(path.last().copied().unwrap_or(-1));
            path.push(tree.ids.len() as i64);
            tree.ids.push(id);
            tree.sub_end.push(0);
        }
        tree.slots[row * rows.width()..][..path.len()].copy_from_slice(&path);
    }
    tree.close(&path);
    tree.divide();
    tree.list_keys();
    tree
}

impl Tree {
    /// End the subtrees of these tokens here.
    fn close(&mut self, tokens: &[i64]) {
        for &token in tokens {
            self.sub_end[token as usize] = self.ids.len() as i64;
        }
    }

    /// Divide the tokens into nodes: one ends where its last token has no child or several.
    fn divide(&mut self) {
        let mut children = vec![0u32; self.ids.len()];
        for &parent in self.parents.iter().filter(|parent| **parent >= 0) {
            children[parent as usize] += 1;
        }
        for (token, &parent) in self.parents.iter().enumerate() {
            let goes_on = parent >= 0 && parent as usize + 1 == token && children[parent as usize] == 1;
            if !goes_on {
                self.starts.push(token as i64);
            }
        }
        self.starts.push(self.ids.len() as i64);
    }

    /// List the tokens on the way to the end of each node.
    fn list_keys(&mut self) {
        self.key_starts.push(0);
        for node in self.starts.windows(2) {
            let first = self.keys.len();
            let mut token = node[1] - 1;
            while token >= 0 {
                self.keys.push(token);
                token = self.parents[token as usize];
            }
            self.keys[first..].reverse();
            self.key_starts.push(self.keys.len() as i64);
        }
    }
}
