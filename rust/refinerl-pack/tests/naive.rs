//! Comparison with a trie that is built row by row.

use proptest::prelude::*;
use refinerl_pack::{order, tree, Rows, Tree};
use std::collections::BTreeMap;

#[derive(Default)]
struct Trie {
    children: BTreeMap<i64, Trie>,
    /// Places (row, position) of the rows at this token.
    places: Vec<usize>,
}

/// The tokens of a trie in depth-first order, by its definition.
fn flatten(trie: &Trie, id: i64, depth: i64, parent: i64, found: &mut Tree) {
    let token = found.ids.len();
    found.ids.push(id);
    found.positions.push(depth);
    found.parents.push(parent);
    found.sub_end.push(0);
    for &place in &trie.places {
        found.slots[place] = token as i64;
    }
    for (&id, child) in &trie.children {
        flatten(child, id, depth + 1, token as i64, found);
    }
    found.sub_end[token] = found.ids.len() as i64;
}

fn naive(rows: &[Vec<i64>], width: usize) -> Tree {
    let mut root = Trie::default();
    for (index, row) in rows.iter().enumerate() {
        let mut at = &mut root;
        for (position, &id) in row.iter().enumerate() {
            at = at.children.entry(id).or_default();
            at.places.push(index * width + position);
        }
    }
    let mut found = Tree {
        slots: vec![-1; rows.len() * width],
        ..Tree::default()
    };
    for (&id, child) in &root.children {
        flatten(child, id, 0, -1, &mut found);
    }
    let tokens = found.ids.len();
    let children = |token: i64| found.parents.iter().filter(|parent| **parent == token).count();
    found.starts = (0..tokens)
        .filter(|&t| found.parents[t] < 0 || children(found.parents[t]) > 1)
        .map(|t| t as i64)
        .collect();
    found.starts.push(tokens as i64);
    found.key_starts.push(0);
    for node in found.starts.windows(2) {
        let last = node[1] - 1;
        found
            .keys
            .extend((0..=last).filter(|&k| last < found.sub_end[k as usize]));
        found.key_starts.push(found.keys.len() as i64);
    }
    found
}

/// Rows that begin alike, with a width that leaves some padding.
fn rows() -> impl Strategy<Value = (Vec<Vec<i64>>, usize)> {
    let ids = prop::collection::vec(0i64..3, 0..9);
    (prop::collection::vec(ids, 0..12), 0usize..3).prop_map(|(rows, spare)| {
        let width = rows.iter().map(Vec::len).max().unwrap_or(0) + spare;
        (rows, width)
    })
}

fn padded(rows: &[Vec<i64>], width: usize) -> (Vec<i64>, Vec<i64>) {
    // Padding repeats an id of the rows, so that it would be seen if it counted.
    let ids = rows
        .iter()
        .flat_map(|row| row.iter().copied().chain(std::iter::repeat(1)).take(width));
    (ids.collect(), rows.iter().map(|row| row.len() as i64).collect())
}

proptest! {
    #[test]
    fn the_tree_is_the_trie((rows, width) in rows()) {
        let (ids, lengths) = padded(&rows, width);
        prop_assert_eq!(tree(Rows::new(&ids, &lengths, width).unwrap()), naive(&rows, width));
    }

    #[test]
    fn a_block_of_neighbours_has_as_many_tokens_as_its_order_says((rows, width) in rows()) {
        let (ids, lengths) = padded(&rows, width);
        let found = order(Rows::new(&ids, &lengths, width).unwrap());
        for first in 0..rows.len() {
            let mut tokens = 0;
            let mut block = Vec::new();
            for at in first..rows.len() {
                let row = &rows[found.rows[at] as usize];
                tokens += row.len() as i64 - if at > first { found.shared[at] } else { 0 };
                block.push(row.clone());
                prop_assert_eq!(naive(&block, width).ids.len() as i64, tokens);
            }
        }
    }
}

#[test]
fn a_prompt_two_responses_and_a_refinement() {
    let rows = [vec![5, 6, 7, 20, 21], vec![5, 6, 7, 30], vec![5, 6, 7, 20, 22, 23]];
    let (ids, lengths) = padded(&rows, 6);
    let found = tree(Rows::new(&ids, &lengths, 6).unwrap());
    assert_eq!(found.ids, [5, 6, 7, 20, 21, 22, 23, 30]);
    assert_eq!(found.positions, [0, 1, 2, 3, 4, 4, 5, 3]);
    assert_eq!(found.parents, [-1, 0, 1, 2, 3, 3, 5, 2]);
    assert_eq!(found.sub_end, [8, 8, 8, 7, 5, 7, 7, 8]);
    assert_eq!(found.starts, [0, 3, 4, 5, 7, 8]);
    assert_eq!(found.key_starts, [0, 3, 7, 12, 18, 22]);
    assert_eq!(found.keys[12..18], [0, 1, 2, 3, 5, 6]);
    assert_eq!(found.slots[..6], [0, 1, 2, 3, 4, -1]);
}

#[test]
fn sizes_that_do_not_match_are_refused() {
    assert!(Rows::new(&[1, 2, 3], &[1], 2).is_none());
    assert!(Rows::new(&[1, 2], &[3], 2).is_none());
    assert!(Rows::new(&[1, 2], &[-1], 2).is_none());
    assert!(Rows::new(&[], &[], 0).is_some());
}
