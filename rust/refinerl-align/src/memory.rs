//! The memory that buffers take.

/// Bytes of a buffer.
pub(crate) fn size<T>(buffer: &Vec<T>) -> usize {
    buffer.capacity() * size_of::<T>()
}
