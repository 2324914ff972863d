//! Token ids from lists and tuples of Python ints, and from short arrays.
//!
//! The stable ABI returns one int for each call, at 8 ns apiece: for similar sequences far more than aligning them
//! takes. This module reads the fields of the objects instead. They have been in the same places in every CPython from
//! 3.10 to 3.14, but that is not guaranteed. So it first checks the interpreter's version, its kind of build, and the
//! sizes that types report, so that no read can fall outside an object; then it reads ints whose values it knows.
//! Unless everything agrees, and for anything but an exact `int` from 0 to 2³¹ − 1, the stable ABI is used.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::mem::{offset_of, size_of};
use std::sync::atomic::{AtomicBool, Ordering};

use numpy::{Element, PyArray1, PyArrayMethods};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyInt, PyList, PyTuple};
use refinerl_align::Tokens;

/// The head of every object.
#[repr(C)]
struct Object {
    references: usize,
    class: *const c_void,
}

/// `PyLongObject`: digits of 30 bits, the lowest first.
#[repr(C)]
struct Integer {
    object: Object,
    /// Up to 3.11 the number of digits, negative for negative numbers. From 3.12 on that number above three bits: the
    /// lower two are the sign (0 for positive, 1 for zero), and the third, from 3.14 on, marks immortal objects.
    size: usize,
    digits: [u32; 1],
}

/// `PyListObject`.
#[repr(C)]
struct List {
    object: Object,
    length: isize,
    items: *const *const Integer,
    allocated: isize,
}

/// The differences between versions.
#[derive(Clone, Copy)]
struct Layout {
    /// True if `size` has the form of 3.12 and later.
    tagged: bool,
    /// Offset of the items of a tuple.
    tuple_items: usize,
}

static LAYOUT: PyOnceLock<Option<Layout>> = PyOnceLock::new();
static ALLOWED: AtomicBool = AtomicBool::new(true);

/// The layout of this interpreter, if it is a known one.
fn layout(py: Python<'_>) -> Option<Layout> {
    // An interpreter that raises when asked for its sizes is not a known one either.
    let found = LAYOUT.get_or_init(py, || {
        stated(py)
            .ok()
            .flatten()
            .filter(|layout| layout.reads_right(py).unwrap_or(false))
    });
    found.filter(|_| ALLOWED.load(Ordering::Relaxed))
}

/// Allow (the default) or forbid to read the fields of ints directly. Returns true if that is done from now on.
#[pyfunction]
pub fn read_ints_directly(py: Python<'_>, allowed: bool) -> bool {
    ALLOWED.store(allowed, Ordering::Relaxed);
    layout(py).is_some()
}

/// The layout that follows from what the interpreter reports of itself.
fn stated(py: Python<'_>) -> PyResult<Option<Layout>> {
    let sys = py.import("sys")?;
    let (major, minor) = (py.version_info().major, py.version_info().minor);
    let ordinary = cfg!(target_pointer_width = "64")
        && sys.getattr("implementation")?.getattr("name")?.extract::<&str>()? == "cpython"
        && sys.getattr("abiflags")?.extract::<&str>()?.is_empty() // neither debug nor free-threaded
        && !sys.hasattr("gettotalrefcount")?
        && !sys.hasattr("getobjects")?;
    if !ordinary || major != 3 || !(10..=14).contains(&minor) {
        return Ok(None);
    }
    let builtins = py.import("builtins")?;
    let size = |class: &str, name: &str| builtins.getattr(class)?.getattr(name)?.extract::<usize>();
    let digits = sys.getattr("int_info")?;
    let tuple_items = size("tuple", "__basicsize__")?;
    let known = size("object", "__basicsize__")? == size_of::<Object>()
        && size("int", "__basicsize__")? == offset_of!(Integer, digits)
        && size("int", "__itemsize__")? == size_of::<u32>()
        && size("list", "__basicsize__")? == size_of::<List>()
        && size("tuple", "__itemsize__")? == size_of::<*const Integer>()
        && tuple_items == if minor < 14 { 24 } else { 32 } // from 3.14 on the hash stands before the items
        && digits.getattr("bits_per_digit")?.extract::<u8>()? == 30
        && digits.getattr("sizeof_digit")?.extract::<usize>()? == size_of::<u32>();
    Ok(known.then_some(Layout {
        tagged: minor >= 12,
        tuple_items,
    }))
}

impl Layout {
    /// Check that direct reads agree with the stable ABI, for every kind of item.
    fn reads_right(self, py: Python<'_>) -> PyResult<bool> {
        let powers = [0, 1, 8, 15, 16, 29, 30, 31, 32, 40, 59, 60, 61, 62];
        let near = powers
            .into_iter()
            .flat_map(|power| [(1i64 << power) - 1, 1 << power, (1 << power) + 1]);
        let values: Vec<i64> = near.flat_map(|value| [value, -value]).collect();
        for value in values {
            let expected = i32::try_from(value).ok().filter(|id| *id >= 0);
            let item = value.into_pyobject(py)?;
            let list = PyList::new(py, [5, 7])?;
            list.append(&item)?;
            let expected = expected.map(|id| vec![5, 7, id]);
            if self.both(&list) != [expected.clone(), expected] {
                return Ok(false);
            }
        }
        let builtins = py.import("builtins")?;
        let int = py.get_type::<PyInt>();
        let subclass = builtins
            .getattr("type")?
            .call1(("Subclass", (&int,), PyDict::new(py)))?;
        let huge = int.call1(("1".repeat(50),))?;
        let others = [
            subclass.call1((3,))?,
            huge.neg()?,
            huge,
            true.into_pyobject(py)?.to_owned().into_any(),
            3.0f64.into_pyobject(py)?.into_any(),
            py.None().into_bound(py),
            builtins.getattr("object")?.call0()?,
        ];
        others.iter().try_fold(true, |right, item| {
            let list = PyList::new(py, [item])?;
            Ok(right && self.both(&list) == [None, None])
        })
    }

    /// Read a list as it is and as a tuple.
    fn both(self, list: &Bound<'_, PyList>) -> [Option<Vec<i32>>; 2] {
        let (mut ids, mut tuple_ids) = (Vec::new(), Vec::new());
        let read = [self.list(list, &mut ids), self.tuple(&list.to_tuple(), &mut tuple_ids)];
        [read[0].then_some(ids), read[1].then_some(tuple_ids)]
    }

    /// Append the ids of a list; false unless all are exact ints in range.
    fn list(self, list: &Bound<'_, PyList>, to: &mut Vec<i32>) -> bool {
        // SAFETY: a list is as large as `List`, and `read` runs no Python, so nothing can change the list meanwhile.
        unsafe { self.read(list.py(), (*list.as_ptr().cast::<List>()).items, list.len(), to) }
    }

    /// Append the ids of a tuple; false unless all are exact ints in range.
    fn tuple(self, tuple: &Bound<'_, PyTuple>, to: &mut Vec<i32>) -> bool {
        // SAFETY: behind its head a tuple holds as many items as its length says.
        unsafe {
            self.read(
                tuple.py(),
                tuple.as_ptr().byte_add(self.tuple_items).cast(),
                tuple.len(),
                to,
            )
        }
    }

    /// # Safety
    /// `items` are `length` pointers to objects, or null.
    unsafe fn read(self, py: Python<'_>, items: *const *const Integer, length: usize, to: &mut Vec<i32>) -> bool {
        let int = py.get_type::<PyInt>().as_ptr().cast::<c_void>().cast_const();
        let (flags, one) = if self.tagged { (4, 8) } else { (0, 1) };
        to.reserve(length);
        let ids = to.spare_capacity_mut();
        for (index, id) in ids[..length].iter_mut().enumerate() {
            // SAFETY: every object has a class; an int has its size, and as many digits as that tells.
            unsafe {
                let item = *items.add(index);
                if item.is_null() || (*item).object.class != int {
                    return false;
                }
                id.write(if (*item).size & !flags == one {
                    *(&raw const (*item).digits as *const u32) as i32
                } else {
                    match self.rare(item) {
                        Some(id) => id,
                        None => return false,
                    }
                });
            }
        }
        // SAFETY: all of them have been written.
        unsafe { to.set_len(to.len() + length) };
        true
    }

    /// Read an int that has not exactly one digit: 0, or one of two digits that is below 2³¹.
    ///
    /// # Safety
    /// `item` is an int.
    #[cold]
    unsafe fn rare(self, item: *const Integer) -> Option<i32> {
        let (flags, zero, two) = if self.tagged { (4, 1, 16) } else { (0, 0, 2) };
        // SAFETY: an int has its size, and as many digits as that tells.
        unsafe {
            let digits = &raw const (*item).digits as *const u32;
            let size = (*item).size & !flags;
            if size == zero {
                Some(0)
            } else if size == two && *digits.add(1) == 1 {
                Some((*digits | 1 << 30) as i32)
            } else {
                None
            }
        }
    }
}

/// Append the ids of a list or tuple of exact ints from 0 to 2³¹ − 1. False for anything else, and if direct reads are
/// forbidden.
pub fn read(sequence: &Bound<'_, PyAny>, to: &mut Vec<i32>) -> bool {
    let Some(layout) = layout(sequence.py()) else {
        return false;
    };
    if let Ok(list) = sequence.cast_exact::<PyList>() {
        return layout.list(list, to);
    }
    sequence
        .cast_exact::<PyTuple>()
        .is_ok_and(|tuple| layout.tuple(tuple, to))
}

/// Longer arrays are borrowed. To copy a shorter one takes less time than to note that it is borrowed.
const COPIED: usize = 1024;

/// Append an array that is short or not contiguous, and return the first id outside 0 … 2³¹ − 1; None for other arrays.
pub fn copy<T>(array: &Bound<'_, PyArray1<T>>, to: &mut Vec<i32>) -> PyResult<Option<Option<i64>>>
where
    T: Element + Copy,
    for<'a> Tokens<'a>: From<&'a [T]>,
{
    // SAFETY: this thread holds the GIL and runs no Python code meanwhile, so nothing writes to the array.
    match unsafe { array.as_slice() } {
        Ok(ids) if ids.len() > COPIED => Ok(None),
        Ok(ids) => Ok(Some(append(ids.into(), to))),
        Err(_) => Ok(Some(append(
            array.try_readonly()?.as_array().to_vec().as_slice().into(),
            to,
        ))),
    }
}

fn append(tokens: Tokens<'_>, to: &mut Vec<i32>) -> Option<i64> {
    match tokens {
        Tokens::I32(ids) => to.extend_from_slice(ids),
        Tokens::I64(ids) => to.extend(ids.iter().map(|id| *id as i32)),
    }
    tokens.invalid()
}
