//! `compare = "apps"`: the verdicts of the official APPS checker, with all its quirks.
//!
//! Each step mirrors a step of the checker, in the same order, because its leniency is the sum of all of them. It is
//! not for rewards: it ignores the order and the repetition of lines and of tokens.

use std::collections::BTreeSet;

use crate::value::{Equality, Value};

/// Compare the output of a script with the expected text.
pub fn output_matches(got: &[u8], expected: &[u8]) -> bool {
    let (Ok(got), Ok(expected)) = (std::str::from_utf8(got), std::str::from_utf8(expected)) else {
        return false;
    };
    let output = split_lines(got);
    if strip(&output.join("\n")) == strip(expected) {
        return true;
    }
    let stripped: Vec<&str> = output.iter().map(|line| strip(line)).collect();
    if strip(&stripped.join("\n")) == strip(expected) {
        return true;
    }
    let expected: Vec<&str> = expected
        .split('\n')
        .filter(|line| !line.is_empty())
        .map(strip)
        .collect();
    let output: Vec<&str> = output.into_iter().filter(|line| !line.is_empty()).collect();
    if output == expected || lines_are_close(&output, &expected) {
        return true;
    }
    let expected: BTreeSet<BTreeSet<&str>> = expected.iter().map(|line| tokens(line)).collect();
    let output: BTreeSet<BTreeSet<&str>> = output
        .iter()
        .map(|line| tokens(line))
        .filter(|tokens| !tokens.is_empty())
        .collect();
    output == expected || matches!((rounded(&output), rounded(&expected)), (Some(a), Some(b)) if a == b)
}

/// Compare lines of one number each like `numpy.allclose` (rtol 1e-5, atol 1e-8; nan equals nothing).
fn lines_are_close(got: &[&str], expected: &[&str]) -> bool {
    let numbers = |lines: &[&str]| {
        lines
            .iter()
            .map(|line| python_float(line))
            .collect::<Option<Vec<f64>>>()
    };
    match (numbers(got), numbers(expected)) {
        (Some(a), Some(b)) => {
            a.len() == b.len()
                && a.iter()
                    .zip(&b)
                    .all(|(a, b)| a == b || (b.is_finite() && (a - b).abs() <= 1e-8 + 1e-5 * b.abs()))
        }
        _ => false,
    }
}

/// Sets of sets of numbers rounded to three digits; None if a token is not a number or is nan, which equals nothing.
fn rounded(lines: &BTreeSet<BTreeSet<&str>>) -> Option<BTreeSet<BTreeSet<u64>>> {
    lines
        .iter()
        .map(|line| line.iter().map(|token| round3(python_float(token)?)).collect())
        .collect()
}

/// The bits of Python's `round(x, 3)`: half to even on the exact decimal value, as Rust's formatting does too.
fn round3(x: f64) -> Option<u64> {
    if x.is_nan() {
        return None;
    }
    let rounded: f64 = if x.is_finite() {
        format!("{x:.3}").parse().ok()?
    } else {
        x
    };
    Some((rounded + 0.0).to_bits())
}

/// Python's `float(text)`.
fn python_float(text: &str) -> Option<f64> {
    let text = strip(text);
    let bytes = text.as_bytes();
    let between_digits =
        |i: usize| i > 0 && bytes[i - 1].is_ascii_digit() && bytes.get(i + 1).is_some_and(u8::is_ascii_digit);
    if bytes.iter().enumerate().any(|(i, &b)| b == b'_' && !between_digits(i)) {
        return None;
    }
    // Without underscores Rust's grammar is Python's: both accept inf, infinity and nan in any case.
    text.replace('_', "").parse().ok()
}

fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

fn strip(text: &str) -> &str {
    text.trim_matches(is_space)
}

fn tokens(line: &str) -> BTreeSet<&str> {
    line.split(is_space).filter(|token| !token.is_empty()).collect()
}

/// `str.splitlines`.
fn split_lines(text: &str) -> Vec<&str> {
    let is_break = |c: char| {
        matches!(
            c,
            '\n' | '\r' | '\x0b' | '\x0c' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}'
        )
    };
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some(end) = rest.find(is_break) {
        lines.push(&rest[..end]);
        let width = if rest[end..].starts_with("\r\n") {
            2
        } else {
            rest[end..].chars().next().map_or(1, char::len_utf8)
        };
        rest = &rest[end + width..];
    }
    if !rest.is_empty() {
        lines.push(rest);
    }
    lines
}

/// Compare the result of a call with the expected value, which may be wrapped in a list.
pub fn result_matches(got: &Value, expected: &Value) -> bool {
    let expected = &with_integer_keys(expected);
    let equal = |a: &Value, b: &Value| Equality::PYTHON.holds(a, b);
    // Expected values come from JSON, so a tuple at the top counts as a list, and one level down in a second try.
    let got = match got {
        Value::Tuple(items) => &Value::List(items.clone()),
        other => other,
    };
    if equal(got, expected) {
        return true;
    }
    let Value::List(wrapped) = expected else { return false };
    let Some(first) = wrapped.first() else { return false };
    if equal(got, first) {
        return true;
    }
    match got {
        Value::List(items) if matches!(items.first(), Some(Value::Tuple(_))) => {
            let listed: Option<Vec<Value>> = items.iter().map(as_list).collect();
            listed.is_some_and(|items| equal(&Value::List(items), first))
        }
        _ => false,
    }
}

/// Convert the keys of a dict back to integers, which JSON turned into text. The checker does so if all keys are
/// integers, for a bare dict and for the first item of a list (whose other items it drops).
fn with_integer_keys(expected: &Value) -> Value {
    let dict = match expected {
        Value::Dict(items) => items,
        Value::List(items) => match items.first() {
            Some(Value::Dict(items)) => items,
            _ => return expected.clone(),
        },
        _ => return expected.clone(),
    };
    let converted: Option<Vec<(Value, Value)>> = dict
        .iter()
        .map(|(key, value)| Some((integer_key(key)?, value.clone())))
        .collect();
    converted.map_or_else(|| expected.clone(), |items| Value::List(vec![Value::Dict(items)]))
}

/// Python's `int(key)`, within 64 bits.
fn integer_key(key: &Value) -> Option<Value> {
    match key {
        Value::Int(_) | Value::Big(_) => Some(key.clone()),
        Value::Bool(b) => Some(Value::Int(i64::from(*b))),
        Value::Str(text) => {
            let text = strip(std::str::from_utf8(text).ok()?);
            text.parse().ok().map(Value::Int)
        }
        _ => None,
    }
}

/// Python's `list(x)`, for values whose order is defined.
fn as_list(value: &Value) -> Option<Value> {
    match value {
        Value::List(items) | Value::Tuple(items) => Some(Value::List(items.clone())),
        Value::Dict(items) => Some(Value::List(items.iter().map(|(key, _)| key.clone()).collect())),
        Value::Str(text) => {
            let text = std::str::from_utf8(text).ok()?;
            Some(Value::List(
                text.chars().map(|c| Value::Str(c.to_string().into_bytes())).collect(),
            ))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_as_python_reads_them() {
        assert_eq!(python_float(" 1_000.5 "), Some(1000.5));
        assert_eq!(python_float("1__0"), None);
        assert_eq!(python_float("_1"), None);
        assert_eq!(python_float("1_"), None);
        assert_eq!(python_float("0x10"), None);
        assert_eq!(python_float("-Infinity"), Some(f64::NEG_INFINITY));
        assert_eq!(python_float(""), None);
        assert_eq!(round3(0.0005), round3(0.001), "0.0005 lies above the half in binary");
        assert_eq!(round3(2.5e-4), round3(-0.0));
    }

    #[test]
    fn lines_as_python_splits_them() {
        assert_eq!(split_lines("a\r\nb\rc\n\nd"), ["a", "b", "c", "", "d"]);
        assert_eq!(split_lines("a\u{2028}b\n"), ["a", "b"]);
        assert!(split_lines("").is_empty());
    }

    #[test]
    fn order_and_repetition_do_not_matter() {
        assert!(output_matches(b"2\n1", b"1\n2"));
        assert!(output_matches(b"1 1 2", b"2 1"));
        assert!(output_matches(b"1.0004 2", b"1 2"));
        assert!(!output_matches(b"1 2\n3", b"1\n2\n3"));
        assert!(!output_matches(b"nan 1.0001", b"nan 1"));
    }

    #[test]
    fn dict_keys() {
        let text = |s: &str| Value::Str(s.as_bytes().to_vec());
        let got = Value::Dict(vec![(Value::Int(1), Value::Int(2))]);
        assert!(result_matches(&got, &Value::Dict(vec![(text("1"), Value::Int(2))])));
        let named = Value::Dict(vec![(text("a"), Value::Int(2))]);
        assert!(result_matches(&named, &named));
    }
}
