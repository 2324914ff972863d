//! Encoding of plain data: the part of CPython's `marshal` format (version 2) without code and references.
//!
//! The child encodes with `marshal.dumps(value, 2)`, in C. Its bytes are hostile: every length is checked before memory
//! is allocated for it, and depth is bounded.

use crate::value::{Big, Value};

/// Deepest nesting that either side accepts.
pub const MAX_DEPTH: usize = 200;

/// An error: the bytes are not plain data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

/// Decode the one value that fills `bytes`.
pub fn decode(bytes: &[u8]) -> Result<Value, Malformed> {
    let mut reader = Reader { rest: bytes };
    let value = reader.value(0)?;
    if reader.rest.is_empty() {
        Ok(value)
    } else {
        Err(Malformed("bytes after the value"))
    }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        if count > self.rest.len() {
            return Err(Malformed("cut short"));
        }
        let (head, rest) = self.rest.split_at(count);
        self.rest = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        Ok(self.take(N)?.try_into().unwrap_or([0; N]))
    }

    fn float(&mut self) -> Result<f64, Malformed> {
        Ok(f64::from_le_bytes(self.array()?))
    }

    /// Read a count of items that take at least one byte each.
    fn count(&mut self) -> Result<usize, Malformed> {
        let count = u32::from_le_bytes(self.array()?) as usize;
        if count > self.rest.len() {
            return Err(Malformed("more items than bytes"));
        }
        Ok(count)
    }

    fn items(&mut self, depth: usize) -> Result<Vec<Value>, Malformed> {
        let count = self.count()?;
        (0..count).map(|_| self.value(depth + 1)).collect()
    }

    fn value(&mut self, depth: usize) -> Result<Value, Malformed> {
        if depth > MAX_DEPTH {
            return Err(Malformed("nested too deeply"));
        }
        Ok(match self.array::<1>()?[0] {
            b'N' => Value::None,
            b'T' => Value::Bool(true),
            b'F' => Value::Bool(false),
            b'i' => Value::Int(i64::from(i32::from_le_bytes(self.array()?))),
            b'l' => self.long()?,
            b'g' => Value::Float(self.float()?),
            b'y' => Value::Complex(self.float()?, self.float()?),
            b'u' => {
                let count = self.count()?;
                Value::Str(text(self.take(count)?)?)
            }
            b's' => {
                let count = self.count()?;
                Value::Bytes(self.take(count)?.to_vec())
            }
            b'[' => Value::List(self.items(depth)?),
            b'(' => Value::Tuple(self.items(depth)?),
            b'<' => Value::Set(self.hashable(depth)?),
            b'>' => Value::FrozenSet(self.hashable(depth)?),
            b'{' => self.dict(depth)?,
            _ => return Err(Malformed("not plain data")),
        })
    }

    fn hashable(&mut self, depth: usize) -> Result<Vec<Value>, Malformed> {
        let items = self.items(depth)?;
        items.iter().try_for_each(check_hashable)?;
        Ok(items)
    }

    fn dict(&mut self, depth: usize) -> Result<Value, Malformed> {
        let mut items = Vec::new();
        while self.rest.first() != Some(&b'0') {
            let key = self.value(depth + 1)?;
            check_hashable(&key)?;
            items.push((key, self.value(depth + 1)?));
        }
        self.take(1)?;
        Ok(Value::Dict(items))
    }

    fn long(&mut self) -> Result<Value, Malformed> {
        let count = i32::from_le_bytes(self.array()?);
        let size = count.unsigned_abs() as usize;
        let bytes = self.take(size.checked_mul(2).ok_or(Malformed("cut short"))?)?;
        let digits: Vec<u16> = bytes
            .chunks_exact(2)
            .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
            .collect();
        if digits.iter().any(|&d| d > 0x7fff) {
            return Err(Malformed("a digit beyond 15 bits"));
        }
        Ok(Big::normalise(count < 0, digits))
    }
}

fn check_hashable(value: &Value) -> Result<(), Malformed> {
    match value {
        Value::List(_) | Value::Set(_) | Value::Dict(_) => Err(Malformed("a key that cannot be hashed")),
        Value::Tuple(items) => items.iter().try_for_each(check_hashable),
        _ => Ok(()),
    }
}

/// Check that bytes are UTF-8 with possibly lone surrogates (ED A0 80 – ED BF BF), as Python's `surrogatepass` decodes.
fn text(bytes: &[u8]) -> Result<Vec<u8>, Malformed> {
    let mut rest = bytes;
    while let Err(error) = std::str::from_utf8(rest) {
        match rest[error.valid_up_to()..] {
            [0xED, 0xA0..=0xBF, 0x80..=0xBF, ..] => rest = &rest[error.valid_up_to() + 3..],
            _ => return Err(Malformed("text that is not UTF-8")),
        }
    }
    Ok(bytes.to_vec())
}

/// Encode a value for `marshal.loads`.
pub fn encode(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    write(value, &mut out);
    out
}

/// Append `value` to `out`.
pub fn write(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::None => out.push(b'N'),
        Value::Bool(b) => out.push(if *b { b'T' } else { b'F' }),
        Value::Int(i) => match i32::try_from(*i) {
            Ok(small) => {
                out.push(b'i');
                out.extend_from_slice(&small.to_le_bytes());
            }
            Err(_) => {
                let mut rest = i.unsigned_abs();
                let mut digits = Vec::new();
                while rest > 0 {
                    digits.push((rest & 0x7fff) as u16);
                    rest >>= 15;
                }
                write_long(*i < 0, &digits, out);
            }
        },
        Value::Big(big) => write_long(big.negative, &big.digits, out),
        Value::Float(f) => {
            out.push(b'g');
            out.extend_from_slice(&f.to_le_bytes());
        }
        Value::Complex(re, im) => {
            out.push(b'y');
            out.extend_from_slice(&re.to_le_bytes());
            out.extend_from_slice(&im.to_le_bytes());
        }
        Value::Str(text) => write_bytes(b'u', text, out),
        Value::Bytes(bytes) => write_bytes(b's', bytes, out),
        Value::List(items) => write_items(b'[', items, out),
        Value::Tuple(items) => write_items(b'(', items, out),
        Value::Set(items) => write_items(b'<', items, out),
        Value::FrozenSet(items) => write_items(b'>', items, out),
        Value::Dict(items) => {
            out.push(b'{');
            for (key, value) in items {
                write(key, out);
                write(value, out);
            }
            out.push(b'0');
        }
    }
}

fn write_long(negative: bool, digits: &[u16], out: &mut Vec<u8>) {
    let count = digits.len() as i32;
    out.push(b'l');
    out.extend_from_slice(&(if negative { -count } else { count }).to_le_bytes());
    out.extend(digits.iter().flat_map(|d| d.to_le_bytes()));
}

/// Append the letter of a type and the number of items that follow.
pub fn write_head(tag: u8, count: usize, out: &mut Vec<u8>) {
    out.push(tag);
    out.extend_from_slice(&(count as u32).to_le_bytes());
}

/// Append bytes (`s`) or text (`u`).
pub fn write_bytes(tag: u8, bytes: &[u8], out: &mut Vec<u8>) {
    write_head(tag, bytes.len(), out);
    out.extend_from_slice(bytes);
}

fn write_items(tag: u8, items: &[Value], out: &mut Vec<u8>) {
    write_head(tag, items.len(), out);
    items.iter().for_each(|item| write(item, out));
}
