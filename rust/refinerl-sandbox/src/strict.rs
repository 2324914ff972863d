//! `compare = "strict"`: the comparison for rewards.

use crate::value::{close, Equality, Value};

/// Compare texts line by line and token by token. An expected token with a decimal point or an exponent is a number:
/// |a − b| ≤ atol·max(1, |b|). Blank lines before and after the text do not count.
pub fn output_matches(got: &[u8], expected: &[u8], atol: f64) -> bool {
    let (mut got, mut expected) = (lines(got), lines(expected));
    loop {
        match (got.next(), expected.next()) {
            (None, None) => return true,
            (Some(got), Some(expected)) if line_matches(got, expected, atol) => {}
            _ => return false,
        }
    }
}

/// Compare values with Python's `==`, except that tuples equal lists and floats need only be near. If every test of the
/// program expects a list of one item, the data may have wrapped its answers (`wrapped`), and the bare item is right
/// too.
pub fn result_matches(got: &Value, expected: &Value, wrapped: bool, atol: f64) -> bool {
    let equality = Equality {
        tuple_is_list: true,
        atol: Some(atol),
    };
    equality.holds(got, expected)
        || match expected {
            Value::List(items) if wrapped && items.len() == 1 => equality.holds(got, &items[0]),
            _ => false,
        }
}

/// True for ASCII white space as `bytes.split` in Python has it.
pub fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

/// Split a text into lines, without blank ones at either end.
pub fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let start = text.iter().position(|&b| !is_space(b)).unwrap_or(text.len());
    let end = text.iter().rposition(|&b| !is_space(b)).map_or(start, |last| last + 1);
    let body = &text[start..end];
    body.split(|&b| b == b'\n')
        .take(if body.is_empty() { 0 } else { usize::MAX })
}

fn tokens(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|&b| is_space(b)).filter(|token| !token.is_empty())
}

/// Compare one line token by token.
pub fn line_matches(got: &[u8], expected: &[u8], atol: f64) -> bool {
    let (mut got, mut expected) = (tokens(got), tokens(expected));
    loop {
        match (got.next(), expected.next()) {
            (None, None) => return true,
            (Some(got), Some(expected)) if got == expected || numbers_match(got, expected, atol) => {}
            _ => return false,
        }
    }
}

fn numbers_match(got: &[u8], expected: &[u8], atol: f64) -> bool {
    match (decimal(got), decimal(expected)) {
        (Some((a, _)), Some((b, true))) => close(a, b, atol),
        _ => false,
    }
}

/// Parse a plain decimal number; true if it is written as a float.
fn decimal(token: &[u8]) -> Option<(f64, bool)> {
    let digits = token.strip_prefix(b"-").or(token.strip_prefix(b"+")).unwrap_or(token);
    // Rust's parser also accepts "inf" and "nan", but a number here starts with a digit or a point.
    if !matches!(digits.first(), Some(b'0'..=b'9' | b'.')) {
        return None;
    }
    let value = std::str::from_utf8(token).ok()?.parse().ok()?;
    Some((value, digits.iter().any(|b| matches!(b, b'.' | b'e' | b'E'))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(got: &str, expected: &str) -> bool {
        output_matches(got.as_bytes(), expected.as_bytes(), 1e-6)
    }

    #[test]
    fn lines_and_tokens_are_exact() {
        assert!(same("  42 \r\n\n", "42\n"));
        assert!(same("1  2\n3", "1 2\n3\n"));
        assert!(!same("1 2 3", "1 2\n3"));
        assert!(!same("1\n\n2", "1\n2"));
        assert!(!same("", "0"));
        assert!(same("", "\n"));
        assert!(!same("42\n43", "42"));
        assert!(!same("42", "42\n43"));
        assert!(!same("2 1", "1 2"));
        assert!(!same("042", "42"));
    }

    #[test]
    fn only_expected_floats_have_a_tolerance() {
        assert!(same("2", "2.0"));
        assert!(!same("2.0", "2"));
        assert!(same("0.3000001", "0.3"));
        assert!(!same("0.31", "0.3"));
        assert!(same("1000000.5", "1000000.0"));
        assert!(same("1e3", "1000.0"));
        assert!(!same("nan", "1.0"));
        assert!(same("nan", "nan"));
        assert!(!output_matches(b"0.3000001", b"0.3", 0.0));
        assert!(output_matches(b"2", b"2.0", 0.0));
        assert!(!output_matches(b"\xff\xfe42", b"42", 1e-6));
    }

    #[test]
    fn wrapped_results() {
        let (bare, list) = (Value::Int(42), Value::List(vec![Value::Int(42)]));
        assert!(result_matches(&bare, &list, true, 0.0));
        assert!(!result_matches(&bare, &list, false, 0.0));
        assert!(result_matches(&list, &list, false, 0.0));
        assert!(!result_matches(&list, &bare, true, 0.0));
    }
}
