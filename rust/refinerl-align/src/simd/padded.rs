//! Token ids in a buffer from whose end a whole vector may be read.

use super::lanes::MAX_LANES;
use crate::memory::size;

/// Token ids, followed by a sentinel that equals nothing on the other side and by room for a whole vector.
pub(crate) struct Padded {
    ids: Vec<u32>,
    pub(super) length: usize,
    pub(super) sentinel: u32,
}

impl Padded {
    /// Create one for y; ids are below 2³¹.
    pub(crate) fn original() -> Self {
        Self::with_sentinel(u32::MAX)
    }

    /// Create one for ỹ; ids are below 2³¹.
    pub(crate) fn refined() -> Self {
        Self::with_sentinel(u32::MAX - 1)
    }

    fn with_sentinel(sentinel: u32) -> Self {
        Self {
            ids: vec![sentinel; 2 * MAX_LANES],
            length: 0,
            sentinel,
        }
    }

    /// Replace the ids.
    pub(crate) fn fill(&mut self, ids: impl ExactSizeIterator<Item = u32>) {
        self.length = ids.len();
        let room = self.length + 2 * MAX_LANES;
        if self.ids.len() < room {
            self.ids.resize(room, self.sentinel);
        }
        for (to, id) in self.ids.iter_mut().zip(ids) {
            debug_assert!(id < 1 << 31);
            *to = id;
        }
        self.ids[self.length..room].fill(self.sentinel);
    }

    /// The ids without the padding.
    pub(crate) fn ids(&self) -> &[u32] {
        &self.ids[..self.length]
    }

    /// Bytes of the buffer.
    pub(crate) fn size(&self) -> usize {
        size(&self.ids)
    }

    pub(super) fn pointer(&self) -> *const i32 {
        self.ids.as_ptr().cast()
    }
}
