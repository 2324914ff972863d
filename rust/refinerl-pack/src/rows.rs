//! Rows of token ids, padded at the right.

/// A borrowed matrix of ids, of which each row has a length.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    ids: &'a [i64],
    lengths: &'a [i64],
    width: usize,
}

impl<'a> Rows<'a> {
    /// Rows of `width` ids each, of which the first `lengths[row]` count. None if the sizes do not match or a length is
    /// outside 0 … width.
    pub fn new(ids: &'a [i64], lengths: &'a [i64], width: usize) -> Option<Self> {
        let within = lengths
            .iter()
            .all(|&length| usize::try_from(length).is_ok_and(|length| length <= width));
        (within && ids.len() == lengths.len() * width).then_some(Self { ids, lengths, width })
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.lengths.len()
    }

    /// True if there are no rows.
    pub fn is_empty(&self) -> bool {
        self.lengths.is_empty()
    }

    /// Ids of a row with its padding.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The ids of a row without its padding.
    pub fn row(&self, index: usize) -> &'a [i64] {
        &self.ids[index * self.width..][..self.lengths[index] as usize]
    }
}
