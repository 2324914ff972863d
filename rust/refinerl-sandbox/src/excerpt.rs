//! Short texts beside a verdict: the first line that differs, a value as Python would write it.

use crate::strict::{line_matches, lines};
use crate::value::Value;

/// Most characters of an excerpt.
const LIMIT: usize = 200;

/// Line number and text of the first line that differs: (expected, got).
pub fn of_output(got: &[u8], expected: &[u8], atol: f64) -> (String, String) {
    let (mut got, mut expected) = (lines(got), lines(expected));
    let mut number = 1;
    loop {
        match (got.next(), expected.next()) {
            (Some(a), Some(b)) if line_matches(a, b, atol) => number += 1,
            (a, b) => return (line(b, number), line(a, number)),
        }
    }
}

fn line(text: Option<&[u8]>, number: usize) -> String {
    match text {
        // Bytes that would be cut later are not decoded.
        Some(text) => cut(format!(
            "line {number}: {}",
            String::from_utf8_lossy(&text[..text.len().min(4 * LIMIT)]).trim_end()
        )),
        None => format!("line {number}: nothing"),
    }
}

/// A value as Python would write it, up to the limit.
pub fn of_value(value: &Value) -> String {
    let mut out = String::new();
    write(value, &mut out);
    cut(out)
}

fn write(value: &Value, out: &mut String) {
    // What follows would be cut; stopping here limits the work for huge values.
    if out.len() > 4 * LIMIT {
        return;
    }
    match value {
        Value::None => out.push_str("None"),
        Value::Bool(b) => out.push_str(if *b { "True" } else { "False" }),
        Value::Int(i) => out.push_str(&i.to_string()),
        Value::Big(big) => out.push_str(&format!(
            "<{}integer of about {} bits>",
            if big.negative { "negative " } else { "" },
            big.digits.len() * 15
        )),
        Value::Float(f) => out.push_str(&format!("{f:?}")),
        Value::Complex(re, im) => out.push_str(&format!("({re:?}{im:+?}j)")),
        Value::Str(text) => out.push_str(&format!(
            "{:?}",
            String::from_utf8_lossy(&text[..text.len().min(4 * LIMIT)])
        )),
        Value::Bytes(bytes) => out.push_str(&format!("b\"{}\"", bytes[..bytes.len().min(LIMIT)].escape_ascii())),
        Value::List(items) => sequence("[", items, "]", out),
        Value::Tuple(items) => sequence("(", items, if items.len() == 1 { ",)" } else { ")" }, out),
        Value::Set(items) => sequence("{", items, "}", out),
        Value::FrozenSet(items) => sequence("frozenset({", items, "})", out),
        Value::Dict(items) => {
            out.push('{');
            for (i, (key, value)) in items.iter().enumerate().take(LIMIT) {
                out.push_str(if i > 0 { ", " } else { "" });
                write(key, out);
                out.push_str(": ");
                write(value, out);
            }
            out.push('}');
        }
    }
}

fn sequence(open: &str, items: &[Value], close: &str, out: &mut String) {
    out.push_str(open);
    for (i, item) in items.iter().enumerate().take(LIMIT) {
        out.push_str(if i > 0 { ", " } else { "" });
        write(item, out);
    }
    out.push_str(close);
}

/// Cut a text to `LIMIT` characters.
fn cut(text: String) -> String {
    match text.char_indices().nth(LIMIT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_differing_line() {
        let (expected, got) = of_output(b"1\n2\n4\n", b"1\n2\n3\n", 0.0);
        assert_eq!((expected.as_str(), got.as_str()), ("line 3: 3", "line 3: 4"));
        let (expected, got) = of_output(b"1", b"1\n2\n", 0.0);
        assert_eq!((expected.as_str(), got.as_str()), ("line 2: 2", "line 2: nothing"));
    }

    #[test]
    fn values_are_cut() {
        assert_eq!(of_value(&Value::Tuple(vec![Value::Int(1)])), "(1,)");
        let long = Value::List(vec![Value::Int(7); 100_000]);
        assert!(of_value(&long).chars().count() == LIMIT + 1);
    }
}
