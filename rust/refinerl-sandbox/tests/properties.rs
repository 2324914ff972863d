//! Properties of the decoder and the comparators on arbitrary bytes. `PROPTEST_CASES` sets the number of cases.

use proptest::prelude::*;
use refinerl_sandbox::value::{key, Big, Equality, Value};
use refinerl_sandbox::{apps, excerpt, strict, wire};

const STRICT: Equality = Equality {
    tuple_is_list: true,
    atol: Some(1e-6),
};

/// Values that can be keys.
fn hashable() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::None),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        (any::<bool>(), prop::collection::vec(0u16..0x8000, 0..12))
            .prop_map(|(sign, digits)| Big::normalise(sign, digits)),
        any::<f64>().prop_map(Value::Float),
        (any::<f64>(), any::<f64>()).prop_map(|(re, im)| Value::Complex(re, im)),
        ".{0,8}".prop_map(|text| Value::Str(text.into_bytes())),
        Just(Value::Str(vec![0xED, 0xA0, 0x80])),
        prop::collection::vec(any::<u8>(), 0..8).prop_map(Value::Bytes),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        let many = prop::collection::vec(inner, 0..4);
        prop_oneof![many.clone().prop_map(Value::Tuple), many.prop_map(Value::FrozenSet)]
    })
}

fn value() -> impl Strategy<Value = Value> {
    hashable().prop_recursive(4, 32, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::List),
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::Tuple),
            prop::collection::vec(hashable(), 0..5).prop_map(Value::Set),
            prop::collection::vec((hashable(), inner), 0..4).prop_map(Value::Dict),
        ]
    })
}

/// Bytes that begin like data more often than by chance.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let letters = prop::sample::select(b"NTFilgyus[(<>{0\x00\x01\x02\x7f\x80\xff\xed\xa0".to_vec());
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..64),
        prop::collection::vec(letters, 0..64),
        (value(), any::<prop::sample::Index>(), any::<u8>()).prop_map(|(value, at, byte)| {
            let mut bytes = wire::encode(&value);
            let at = at.index(bytes.len());
            bytes[at] = byte;
            bytes
        }),
    ]
}

/// Text like output, of few letters, so that matches happen.
fn text() -> impl Strategy<Value = Vec<u8>> {
    let pieces = prop::sample::select(vec![
        "1", "2", "-0", "1.0", "1e3", "nan", "inf", "1_0", " ", "  ", "\n", "\r\n", "\n\n", "\t", "x", "\u{2028}",
        "\u{1f}",
    ]);
    prop_oneof![
        prop::collection::vec(pieces, 0..12).prop_map(|pieces| pieces.concat().into_bytes()),
        prop::collection::vec(any::<u8>(), 0..32),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_value_survives_the_wire(value in value()) {
        let bytes = wire::encode(&value);
        // Bytes are compared, not values, because they may hold nan.
        prop_assert_eq!(wire::encode(&wire::decode(&bytes).unwrap()), bytes);
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in hostile()) {
        if let Ok(value) = wire::decode(&bytes) {
            // Everything that decodes can be compared, shown and encoded.
            let again = wire::decode(&wire::encode(&value)).unwrap();
            prop_assert_eq!(key(&again), key(&value));
            let _ = excerpt::of_value(&value);
            let _ = (STRICT.holds(&value, &again), apps::result_matches(&value, &again));
        }
    }

    #[test]
    fn strict_equality_is_reflexive(value in value()) {
        // Only a nan inside a set or a key equals nothing, as in Python.
        let bytes = wire::encode(&value);
        let nan = bytes.windows(9).any(|w| matches!(w[0], b'g') && f64::from_le_bytes(w[1..].try_into().unwrap()).is_nan());
        prop_assert!(nan || bytes.contains(&b'y') || STRICT.holds(&value, &value));
    }

    #[test]
    fn equal_values_have_equal_keys(a in hashable(), b in hashable()) {
        let number = |value: &Value| !matches!(value, Value::Tuple(_));
        if number(&a) && number(&b) {
            prop_assert_eq!(Equality::PYTHON.holds(&a, &b), Equality::PYTHON.holds(&b, &a));
        }
        if Equality::PYTHON.holds(&a, &b) {
            prop_assert_eq!(key(&a), key(&b));
        }
    }

    #[test]
    fn results_never_make_a_comparator_panic(a in value(), b in value(), wrapped: bool) {
        let _ = (apps::result_matches(&a, &b), excerpt::of_value(&a));
        if strict::result_matches(&a, &b, false, 0.0) {
            prop_assert!(strict::result_matches(&a, &b, wrapped, 1e-6), "a wider tolerance accepts no less");
        }
    }

    #[test]
    fn outputs_never_make_a_comparator_panic(a in text(), b in text()) {
        let same = strict::output_matches(&a, &b, 0.0);
        let _ = excerpt::of_output(&a, &b, 0.0);
        prop_assert!(!same || strict::output_matches(&a, &b, 1e-6));
        prop_assert!(strict::output_matches(&a, &a, 0.0));
        // The official checker splits only one side at \r, \u2028 and their like, so that such a text differs from
        // itself.
        let plain = a.iter().all(|b| matches!(b, b' '..=b'~' | b'\n'));
        prop_assert!(!plain || apps::output_matches(&a, &a));
        let _ = apps::output_matches(&a, &b);
    }

    #[test]
    fn what_differs_is_shown(a in text(), b in text()) {
        if !strict::output_matches(&a, &b, 0.0) {
            let (expected, got) = excerpt::of_output(&a, &b, 0.0);
            prop_assert!(expected.starts_with("line ") && got.starts_with("line "));
        }
    }
}
