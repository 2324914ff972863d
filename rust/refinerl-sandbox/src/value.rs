//! Plain data: the values that a program may return, and their comparison.

use std::collections::{HashMap, HashSet};

/// A Python value of a built-in type. Nothing in it can run code.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `None`
    None,
    /// `True` or `False`
    Bool(bool),
    /// An integer that fits 64 bits; all others are `Big`.
    Int(i64),
    /// An integer beyond 64 bits.
    Big(Big),
    /// A float.
    Float(f64),
    /// A complex number.
    Complex(f64, f64),
    /// Text in UTF-8. Lone surrogates have the three bytes that Python gives them (`surrogatepass`).
    Str(Vec<u8>),
    /// A bytes object.
    Bytes(Vec<u8>),
    /// A list.
    List(Vec<Value>),
    /// A tuple.
    Tuple(Vec<Value>),
    /// A set.
    Set(Vec<Value>),
    /// A frozenset.
    FrozenSet(Vec<Value>),
    /// A dict, in insertion order.
    Dict(Vec<(Value, Value)>),
}

/// Sign and magnitude, least significant digit first, in base 2^15 (CPython's own digits), no leading zeros.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Big {
    /// Below zero.
    pub negative: bool,
    /// Base-2^15 digits.
    pub digits: Vec<u16>,
}

/// Relaxations of Python's `==`.
#[derive(Clone, Copy, Debug)]
pub struct Equality {
    /// A tuple equals a list of the same items.
    pub tuple_is_list: bool,
    /// The tolerance where the expected value is a float: |a − b| ≤ atol·max(1, |b|), and nan equals nan.
    pub atol: Option<f64>,
}

impl Equality {
    /// Python's `==`, unchanged.
    pub const PYTHON: Equality = Equality {
        tuple_is_list: false,
        atol: None,
    };

    /// Compare `got` with `expected`.
    pub fn holds(self, got: &Value, expected: &Value) -> bool {
        use Value::{Complex, Dict, Float, FrozenSet, List, Set, Str, Tuple};
        match (got, expected) {
            (List(a), List(b)) | (Tuple(a), Tuple(b)) => self.all(a, b),
            (List(a), Tuple(b)) | (Tuple(a), List(b)) if self.tuple_is_list => self.all(a, b),
            (Set(a) | FrozenSet(a), Set(b) | FrozenSet(b)) => keys(a) == keys(b),
            (Dict(a), Dict(b)) => self.dicts(a, b),
            (Str(a), Str(b)) => a == b,
            (Value::Bytes(a), Value::Bytes(b)) => a == b,
            (Value::None, Value::None) => true,
            (Complex(a, b), Complex(c, d)) => self.near(*a, *c) && self.near(*b, *d),
            (_, Float(b)) => match approximate(got) {
                // An integer beyond the range of floats does not equal the infinity that it would round to.
                Some(a) if self.atol.is_some() => self.near(a, *b) && (a.is_finite() || matches!(got, Float(_))),
                _ => number(got).is_some_and(|a| Some(a) == number(expected)),
            },
            _ => match (number(got), number(expected)) {
                (Some(a), Some(b)) => a == b,
                _ => false,
            },
        }
    }

    fn all(self, a: &[Value], b: &[Value]) -> bool {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| self.holds(a, b))
    }

    fn dicts(self, a: &[(Value, Value)], b: &[(Value, Value)]) -> bool {
        let index = |items: &[(Value, Value)]| -> HashMap<Vec<u8>, usize> {
            items.iter().enumerate().map(|(i, (k, _))| (key(k), i)).collect()
        };
        let (left, right) = (index(a), index(b));
        left.len() == right.len()
            && left
                .iter()
                .all(|(k, &i)| right.get(k).is_some_and(|&j| self.holds(&a[i].1, &b[j].1)))
    }

    fn near(self, a: f64, b: f64) -> bool {
        match self.atol {
            Some(atol) => close(a, b, atol) || (a.is_nan() && b.is_nan()),
            None => a == b,
        }
    }
}

/// Check that |a − b| ≤ atol·max(1, |b|); infinities equal themselves.
pub fn close(a: f64, b: f64, atol: f64) -> bool {
    a == b || ((a - b).abs() <= atol * b.abs().max(1.0) && a.is_finite() && b.is_finite())
}

/// The float nearest to a number, if the value is a real number.
fn approximate(value: &Value) -> Option<f64> {
    match value {
        Value::Bool(b) => Some(f64::from(u8::from(*b))),
        Value::Int(i) => Some(*i as f64),
        Value::Float(f) => Some(*f),
        Value::Big(big) => Some(big.approximate()),
        _ => None,
    }
}

/// A canonical form in which equal numbers of any type are equal; None for nan and for what is not a number.
fn number(value: &Value) -> Option<Value> {
    match value {
        Value::Bool(b) => Some(Value::Int(i64::from(*b))),
        Value::Int(_) | Value::Big(_) => Some(value.clone()),
        Value::Float(f) if f.is_nan() => None,
        Value::Float(f) if f.is_finite() && f.fract() == 0.0 => Some(Big::of_integral(*f)),
        Value::Float(_) => Some(value.clone()),
        Value::Complex(re, im) if *im == 0.0 => number(&Value::Float(*re)),
        Value::Complex(re, im) if !re.is_nan() && !im.is_nan() => Some(value.clone()),
        _ => None,
    }
}

fn keys(items: &[Value]) -> HashSet<Vec<u8>> {
    items.iter().map(key).collect()
}

/// Bytes that are equal for values that are the same key of a dict or set in Python.
pub fn key(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    write_key(value, &mut out);
    out
}

fn write_key(value: &Value, out: &mut Vec<u8>) {
    let mut tagged = |tag: u8, bytes: &[u8]| {
        out.push(tag);
        out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        out.extend_from_slice(bytes);
    };
    match number(value).as_ref().unwrap_or(value) {
        Value::Int(i) => tagged(b'i', &i.to_le_bytes()),
        Value::Big(big) => {
            let digits: Vec<u8> = big.digits.iter().flat_map(|d| d.to_le_bytes()).collect();
            tagged(if big.negative { b'-' } else { b'+' }, &digits);
        }
        Value::Float(f) => tagged(b'f', &f.to_bits().to_le_bytes()),
        Value::Complex(re, im) => {
            // 0.0 and -0.0 are the same number.
            let bits = [(re + 0.0).to_bits().to_le_bytes(), (im + 0.0).to_bits().to_le_bytes()].concat();
            tagged(b'c', &bits);
        }
        Value::Str(text) => tagged(b's', text),
        Value::Bytes(bytes) => tagged(b'b', bytes),
        Value::None => tagged(b'N', &[]),
        Value::List(items) | Value::Tuple(items) => tagged(b't', &items.iter().flat_map(key).collect::<Vec<u8>>()),
        Value::Set(items) | Value::FrozenSet(items) => {
            let mut sorted: Vec<Vec<u8>> = keys(items).into_iter().collect();
            sorted.sort_unstable();
            tagged(b'z', &sorted.concat());
        }
        // No dict or bool gets here as a key; returning something avoids a panic.
        Value::Dict(items) => tagged(b'd', &(items.len() as u64).to_le_bytes()),
        Value::Bool(b) => tagged(b'i', &i64::from(*b).to_le_bytes()),
    }
}

impl Big {
    /// Build an integer from its digits, as the smallest variant that holds it.
    pub fn normalise(negative: bool, mut digits: Vec<u16>) -> Value {
        while digits.last() == Some(&0) {
            digits.pop();
        }
        if digits.len() <= 5 {
            let magnitude = digits.iter().rev().fold(0u128, |sum, &d| (sum << 15) | u128::from(d));
            let signed = if negative {
                -(magnitude as i128)
            } else {
                magnitude as i128
            };
            if let Ok(small) = i64::try_from(signed) {
                return Value::Int(small);
            }
        }
        Value::Big(Big { negative, digits })
    }

    /// Convert a finite float without a fraction exactly.
    fn of_integral(f: f64) -> Value {
        let bits = f.abs().to_bits();
        let exponent = (bits >> 52) as i64 - 1075;
        let mantissa = u128::from((bits & ((1 << 52) - 1)) | (1 << 52));
        if f == 0.0 {
            return Value::Int(0);
        }
        if exponent <= 0 {
            // |f| < 2^53 here, because a fraction would need a negative exponent.
            return Value::Int(f as i64);
        }
        let mut digits = vec![0u16; (exponent / 15) as usize];
        let mut rest = mantissa << (exponent % 15);
        while rest > 0 {
            digits.push((rest & 0x7fff) as u16);
            rest >>= 15;
        }
        Big::normalise(f < 0.0, digits)
    }

    fn approximate(&self) -> f64 {
        let magnitude = self
            .digits
            .iter()
            .rev()
            .fold(0.0f64, |sum, &d| sum * 32768.0 + f64::from(d));
        if self.negative {
            -magnitude
        } else {
            magnitude
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn big(shift: usize) -> Value {
        let mut digits = vec![0; shift / 15];
        digits.push(1 << (shift % 15));
        Big::normalise(false, digits)
    }

    #[test]
    fn numbers_of_different_types_are_equal_as_in_python() {
        let eq = |a: &Value, b: &Value| Equality::PYTHON.holds(a, b);
        assert!(eq(&Value::Bool(true), &Value::Int(1)));
        assert!(eq(&Value::Float(42.0), &Value::Int(42)));
        assert!(eq(&Value::Int(42), &Value::Float(42.0)));
        assert!(eq(&Value::Float(2f64.powi(80)), &big(80)));
        assert!(!eq(&Value::Float(2f64.powi(80)), &big(81)));
        assert!(!eq(&Value::Int((1 << 53) + 1), &Value::Float(2f64.powi(53))));
        assert!(!eq(&Value::Float(f64::NAN), &Value::Float(f64::NAN)));
        assert!(eq(&Value::Complex(1.0, 0.0), &Value::Int(1)));
        assert!(eq(&Value::Complex(1.0, -0.0), &Value::Float(1.0)));
        assert!(!eq(&Value::Tuple(vec![]), &Value::List(vec![])));
    }

    #[test]
    fn strict_equality_takes_tuples_for_lists_and_near_floats() {
        let eq = Equality {
            tuple_is_list: true,
            atol: Some(1e-6),
        };
        assert!(eq.holds(&Value::Tuple(vec![Value::Int(1)]), &Value::List(vec![Value::Int(1)])));
        assert!(eq.holds(&Value::Float(0.1 + 0.2), &Value::Float(0.3)));
        assert!(!eq.holds(&Value::Float(0.301), &Value::Float(0.3)));
        assert!(!eq.holds(&Value::Float(3.0000001), &Value::Int(3)));
        assert!(eq.holds(&Value::Float(f64::INFINITY), &Value::Float(f64::INFINITY)));
        assert!(!eq.holds(&Value::Float(1e300), &Value::Float(f64::INFINITY)));
        assert!(!eq.holds(&big(1330), &Value::Float(f64::INFINITY)), "10**400");
    }

    #[test]
    fn sets_and_dicts_ignore_order() {
        let eq = Equality::PYTHON;
        let (a, b) = (Value::Int(1), Value::Float(2.0));
        assert!(eq.holds(
            &Value::Set(vec![a.clone(), b.clone()]),
            &Value::FrozenSet(vec![Value::Int(2), a.clone()])
        ));
        let left = Value::Dict(vec![(a.clone(), Value::None), (b.clone(), a.clone())]);
        let right = Value::Dict(vec![(b, a.clone()), (a, Value::None)]);
        assert!(eq.holds(&left, &right));
    }
}
