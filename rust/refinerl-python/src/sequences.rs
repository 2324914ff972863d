//! Sequences of token ids from Python: long arrays are borrowed, everything else is copied.

use numpy::{PyArray1, PyArrayMethods, PyReadonlyArray1};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};
use refinerl_align::Tokens;

use crate::integers;

/// The rule for token ids in error messages.
const RANGE: &str = "token ids from 0 to 2**31 - 1";

/// Ids for which there is room from the start: 32 KiB. To free more makes the C library tidy up all that it holds.
const ROOM: usize = 1 << 13;

/// A sequence.
enum Sequence<'py> {
    Narrow(PyReadonlyArray1<'py, i32>),
    Wide(PyReadonlyArray1<'py, i64>),
    /// In `copies`, from the end of the copy before to here.
    Copy(usize),
}

/// The sequences of one side of a batch.
pub struct Sequences<'py> {
    name: &'static str,
    sequences: Vec<Sequence<'py>>,
    /// The copies, one behind the other: a buffer for each would take longer to allocate than to fill.
    copies: Vec<i32>,
    /// The first copied array with an id outside the range, and that id.
    outside: Option<(usize, i64)>,
}

/// Make the error for a value that breaks a rule.
pub fn invalid(name: &str, rule: &str, value: impl std::fmt::Display) -> PyErr {
    PyValueError::new_err(format!("{name} must be {rule}, got {value}"))
}

impl<'py> Sequences<'py> {
    /// Borrow or copy the sequences. Returns None if one is no list, tuple or one-dimensional array of int32 or int64.
    pub fn hold(name: &'static str, sequences: &Bound<'py, PyList>) -> PyResult<Option<Self>> {
        let mut held = Self {
            name,
            sequences: Vec::with_capacity(sequences.len()),
            copies: Vec::with_capacity(ROOM.min(256 * sequences.len())),
            outside: None,
        };
        for item in sequences.iter() {
            let Some(sequence) = held.sequence(&item)? else {
                return Ok(None);
            };
            held.sequences.push(sequence);
        }
        Ok(Some(held))
    }

    fn sequence(&mut self, item: &Bound<'py, PyAny>) -> PyResult<Option<Sequence<'py>>> {
        if integers::read(item, &mut self.copies) {
            return Ok(self.copied(None));
        }
        if let Ok(array) = item.cast::<PyArray1<i32>>() {
            return Ok(match integers::copy(array, &mut self.copies)? {
                Some(outside) => self.copied(outside),
                None => Some(Sequence::Narrow(array.try_readonly()?)),
            });
        }
        if let Ok(array) = item.cast::<PyArray1<i64>>() {
            return Ok(match integers::copy(array, &mut self.copies)? {
                Some(outside) => self.copied(outside),
                None => Some(Sequence::Wide(array.try_readonly()?)),
            });
        }
        if let Ok(tuple) = item.cast::<PyTuple>() {
            self.one_by_one(tuple)?;
        } else if let Ok(list) = item.cast::<PyList>() {
            self.one_by_one(&list.to_tuple())?;
        } else {
            return Ok(None);
        }
        Ok(self.copied(None))
    }

    /// The sequence that was just copied, and an id of it that is outside the range.
    fn copied(&mut self, outside: Option<i64>) -> Option<Sequence<'py>> {
        if self.outside.is_none() {
            self.outside = outside.map(|id| (self.sequences.len(), id));
        }
        Some(Sequence::Copy(self.copies.len()))
    }

    /// Copy a tuple item by item. A tuple lends its items; a list would count a reference to each.
    fn one_by_one(&mut self, items: &Bound<'_, PyTuple>) -> PyResult<()> {
        for item in items.iter_borrowed() {
            match item.extract::<i64>() {
                Ok(id @ 0..=0x7FFF_FFFF) => self.copies.push(id as i32),
                _ => return Err(self.invalid(self.sequences.len(), RANGE, item.as_any())),
            }
        }
        Ok(())
    }

    /// Check the sequences and convert them to the core's type, whose 32-bit positions allow 2³⁰ tokens a side.
    pub fn tokens(&self) -> PyResult<Vec<Tokens<'_>>> {
        let mut all = Vec::with_capacity(self.sequences.len());
        let mut start = 0;
        for (index, sequence) in self.sequences.iter().enumerate() {
            let (tokens, outside) = match sequence {
                Sequence::Narrow(array) => borrowed(Tokens::I32(array.as_slice()?)),
                Sequence::Wide(array) => borrowed(Tokens::I64(array.as_slice()?)),
                Sequence::Copy(end) => {
                    let copy = &self.copies[start..*end];
                    start = *end;
                    let outside = self.outside.filter(|(first, _)| *first == index);
                    (Tokens::I32(copy), outside.map(|(_, id)| id))
                }
            };
            if tokens.len() > i32::MAX as usize / 2 {
                return Err(self.invalid(index, "shorter than 2**30 tokens", tokens.len()));
            }
            if let Some(id) = outside {
                return Err(self.invalid(index, RANGE, id));
            }
            all.push(tokens);
        }
        Ok(all)
    }

    fn invalid(&self, index: usize, rule: &str, value: impl std::fmt::Display) -> PyErr {
        invalid(&format!("{}[{index}]", self.name), rule, value)
    }
}

/// The ids of a borrowed array, and the first of them that is outside the range.
fn borrowed(tokens: Tokens<'_>) -> (Tokens<'_>, Option<i64>) {
    (tokens, tokens.invalid())
}
