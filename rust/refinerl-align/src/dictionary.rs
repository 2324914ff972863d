//! Dense token ids, which can index tables.

/// The id of a free slot.
const VACANT: u32 = u32::MAX;

/// Two sequences over 0 ..= distinct; the memory is reused from pair to pair.
#[derive(Default)]
pub(crate) struct Dictionary {
    /// (token, id) with open addressing and linear probing.
    table: Vec<(u32, u32)>,
    shift: u32,
    /// y as dense ids; `distinct` stands for all tokens that ỹ lacks.
    pub(crate) a: Vec<u32>,
    /// ỹ as dense ids, numbered as they appear.
    pub(crate) b: Vec<u32>,
    /// Number of distinct tokens in ỹ.
    pub(crate) distinct: u32,
}

impl Dictionary {
    /// Number the tokens of a pair.
    pub(crate) fn number(&mut self, a: &[u32], b: &[u32]) {
        let slots = (4 * b.len()).next_power_of_two().max(16);
        self.shift = 32 - slots.trailing_zeros();
        self.table.clear();
        self.table.resize(slots, (0, VACANT));
        self.b.clear();
        let mut distinct = 0;
        for &token in b {
            let slot = self.slot(token);
            if self.table[slot].1 == VACANT {
                self.table[slot] = (token, distinct);
                distinct += 1;
            }
            self.b.push(self.table[slot].1);
        }
        self.distinct = distinct;
        self.a.clear();
        for &token in a {
            self.a.push(self.table[self.slot(token)].1.min(distinct));
        }
    }

    /// The slot of a token, or the free slot where it belongs.
    #[inline]
    fn slot(&self, token: u32) -> usize {
        // Fibonacci hashing: the high bits of a product with 2³²/φ.
        let mut slot = (token.wrapping_mul(0x9E37_79B9) >> self.shift) as usize;
        while self.table[slot].1 != VACANT && self.table[slot].0 != token {
            slot = (slot + 1) & (self.table.len() - 1);
        }
        slot
    }
}
