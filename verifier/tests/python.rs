//! Tests that characters and numbers are classified as in Python.

use omr_verify::python::{digit_value, int, is_space, is_word};

#[test]
fn characters_as_python_classifies_them() {
    assert!(is_space('\u{1c}') && is_space('\u{85}') && is_space('\u{3000}'));
    assert!(!is_space('\u{200b}') && !is_space('\u{180e}') && !is_space('\u{feff}'));
    assert!(is_word('\u{b2}') && is_word('\u{2460}') && is_word('_') && !is_word('\u{300}') && !is_word('\u{203f}'));
    assert_eq!(digit_value('\u{663}'), Some(3));
    assert_eq!(digit_value('\u{1d7d7}'), Some(9));
    assert_eq!(digit_value('\u{1d7d8}'), Some(0));
    assert_eq!(digit_value('\u{b2}'), None);
}

#[test]
fn integers_as_python_reads_them() {
    let cases = [("1", Some(1)), (" +1_0\n", Some(10)), ("-1", Some(-1)), ("\u{663}", Some(3))];
    for (text, want) in cases {
        assert_eq!(int(text), want, "{text:?}");
    }
    for text in ["", "1_", "_1", "1__0", "1.0", "one", "+ 1", "--1"] {
        assert_eq!(int(text), None, "{text:?}");
    }
}
