//! Numbers for the tokens that both sides of a pair have.
//!
//! Real ids are Zipf-like: whether the next token is new cannot be predicted, so the loops below have no branch that
//! depends on it. A table indexed by the id itself needs none; one with hashing, for ids that are too large, does.

use crate::memory::size;
use crate::shared::Shared;
use crate::token::Token;

/// Ids below this (more than any common vocabulary has) index a table, of 1 MiB at most.
const DIRECT_IDS: usize = 1 << 18;

/// Numbers below this fit into an entry of that table, beside the stamp.
const DIRECT_NUMBERS: u32 = 1 << 16;

/// The entry of a free slot.
const VACANT: u32 = u32::MAX;

/// A map from token ids to entries. The entry of a token that y lacks, minus the base, is not below the limit; that of
/// a token that ỹ lacks is the base itself.
trait Table {
    /// Enter a token of y; return what stood there.
    fn enter(&mut self, id: u32) -> u32;

    /// The entry of a token, or one that is not below the limit.
    fn entry(&mut self, id: u32) -> &mut u32;
}

/// A table indexed by ids. A stamp, different for each pair, tells this pair's entries from older ones.
struct Direct<'a> {
    entries: &'a mut [u32],
    base: u32,
}

impl Table for Direct<'_> {
    #[inline]
    fn enter(&mut self, id: u32) -> u32 {
        std::mem::replace(&mut self.entries[id as usize], self.base)
    }

    #[inline]
    fn entry(&mut self, id: u32) -> &mut u32 {
        &mut self.entries[id as usize]
    }
}

/// A table of (token, entry) with open addressing and linear probing.
struct Hashed<'a> {
    slots: &'a mut [(u32, u32)],
    shift: u32,
}

impl Hashed<'_> {
    /// The slot of a token, or the free slot where it belongs.
    #[inline]
    fn slot(&self, id: u32) -> usize {
        // Fibonacci hashing: the high bits of a product with 2³²/φ.
        let mut slot = (id.wrapping_mul(0x9E37_79B9) >> self.shift) as usize;
        while self.slots[slot].1 != VACANT && self.slots[slot].0 != id {
            slot = (slot + 1) & (self.slots.len() - 1);
        }
        slot
    }
}

impl Table for Hashed<'_> {
    #[inline]
    fn enter(&mut self, id: u32) -> u32 {
        let slot = self.slot(id);
        self.slots[slot] = (id, 0);
        0
    }

    #[inline]
    fn entry(&mut self, id: u32) -> &mut u32 {
        let slot = self.slot(id);
        &mut self.slots[slot].1
    }
}

/// The tables, whose memory is reused from pair to pair.
#[derive(Default)]
pub(crate) struct Dictionary {
    direct: Vec<u32>,
    stamp: u32,
    slots: Vec<(u32, u32)>,
}

/// A side of a pair.
pub(crate) struct Side<'a, T> {
    /// Its tokens, the first of which has the position `first`.
    pub(crate) tokens: &'a [T],
    pub(crate) first: u32,
    /// Room for those that the other side has; as long as `tokens`.
    pub(crate) shared: &'a mut [Shared],
}

/// Counts of the tokens that both sides have.
#[derive(Default)]
pub(crate) struct Counts {
    /// Tokens of y.
    pub(crate) a: usize,
    /// Tokens of ỹ.
    pub(crate) b: usize,
    /// The largest number.
    pub(crate) distinct: u32,
}

impl Dictionary {
    /// Bytes of the tables.
    pub(crate) fn size(&self) -> usize {
        size(&self.direct) + size(&self.slots)
    }

    /// Number the tokens of a pair that both sides have, from 1 on, as they appear in ỹ.
    pub(crate) fn number<T: Token>(&mut self, a: Side<'_, T>, b: Side<'_, T>) -> Counts {
        let tokens = a.tokens.iter().chain(b.tokens);
        let bits = tokens.fold(0, |bits, token| bits | token.narrow()) as usize;
        if bits < DIRECT_IDS && b.tokens.len() < DIRECT_NUMBERS as usize {
            if self.direct.len() <= bits {
                self.direct.resize((bits + 1).next_power_of_two(), 0);
            }
            self.stamp += 1;
            if self.stamp == u32::MAX / DIRECT_NUMBERS {
                self.direct.fill(0);
                self.stamp = 1;
            }
            let base = self.stamp * DIRECT_NUMBERS;
            let entries = &mut self.direct[..];
            return number(Direct { entries, base }, base, DIRECT_NUMBERS, a, b);
        }
        let size = (2 * a.tokens.len()).next_power_of_two().max(16);
        self.slots.clear();
        self.slots.resize(size, (0, VACANT));
        let shift = 32 - size.trailing_zeros();
        let slots = &mut self.slots[..];
        number(Hashed { slots, shift }, 0, VACANT, a, b)
    }
}

#[inline]
fn number<T: Token>(mut table: impl Table, base: u32, limit: u32, a: Side<'_, T>, b: Side<'_, T>) -> Counts {
    // What stood there is of no use, but to load it takes less time than to store where nothing was loaded: many loads
    // wait for the cache together, stores one after the other.
    let mut old = 0;
    for token in a.tokens {
        old |= table.enter(token.narrow());
    }
    std::hint::black_box(old);
    let mut counts = Counts {
        a: 0,
        b: 0,
        distinct: 0,
    };
    for (position, token) in (b.first..).zip(b.tokens) {
        let entry = table.entry(token.narrow());
        let known = entry.wrapping_sub(base);
        let fresh = u32::from(known == 0);
        counts.distinct += fresh;
        // A fresh entry becomes the base plus its number; any other stays as it is.
        let number = known.wrapping_add(fresh * counts.distinct);
        *entry = base.wrapping_add(number);
        // Always written, counted only if it stays.
        b.shared[counts.b] = Shared { number, position };
        counts.b += usize::from(known < limit);
    }
    for (position, token) in (a.first..).zip(a.tokens) {
        let number = table.entry(token.narrow()).wrapping_sub(base);
        a.shared[counts.a] = Shared { number, position };
        counts.a += usize::from(number != 0);
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::{Dictionary, Shared, Side, DIRECT_IDS, DIRECT_NUMBERS};

    /// Numbers and positions of the tokens that both sides have; y begins at position 3, ỹ at 5.
    fn numbered(dictionary: &mut Dictionary, a: &[i32], b: &[i32]) -> [Vec<(u32, u32)>; 2] {
        let [mut shared, mut b_shared] = [a, b].map(|tokens| vec![Shared::default(); tokens.len()]);
        let counts = dictionary.number(
            Side {
                tokens: a,
                first: 3,
                shared: &mut shared,
            },
            Side {
                tokens: b,
                first: 5,
                shared: &mut b_shared,
            },
        );
        shared.truncate(counts.a);
        b_shared.truncate(counts.b);
        [shared, b_shared].map(|shared| shared.iter().map(|token| (token.number, token.position)).collect())
    }

    #[test]
    fn tokens_of_both_sides_are_numbered_in_either_table() {
        let expected = [vec![(2, 3), (1, 5), (2, 6)], vec![(1, 5), (2, 6), (2, 8)]];
        for offset in [0, DIRECT_IDS as i32] {
            let (a, b) = ([5, 6, 0, 5].map(|id| id + offset), [0, 5, 9, 5].map(|id| id + offset));
            assert_eq!(
                numbered(&mut Dictionary::default(), &a, &b),
                expected,
                "offset {offset}"
            );
        }
    }

    #[test]
    fn entries_of_earlier_pairs_are_not_taken_for_this_pairs() {
        let mut dictionary = Dictionary::default();
        for pair in 0..2 * (u32::MAX / DIRECT_NUMBERS) as i32 {
            let (own, other) = (pair % 3, (pair + 1) % 3);
            let found = numbered(&mut dictionary, &[own], &[other, own]);
            assert_eq!(found, [vec![(1, 3)], vec![(1, 6)]], "pair {pair}");
        }
    }
}
