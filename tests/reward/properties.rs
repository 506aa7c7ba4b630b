//! Any text is judged: no panic, no long wait.

use std::time::{Duration, Instant};

use omr::reward::{Mode, score, verify};
use proptest::prelude::*;

use crate::seed::proptest as config;

/// Longest wait for one pair, with room for a slow machine without optimisation; typical is under a millisecond.
const LIMIT: Duration = Duration::from_secs(2);

fn judge(gold: &str, answer: &str) {
    let start = Instant::now();
    for mode in [Mode::Strict, Mode::Compat] {
        verify(gold, answer, mode);
        let s = score(answer, gold, None, mode);
        assert!((0.0..=1.0).contains(&s.score), "{s:?}");
    }
    let short = |t: &str| t.chars().take(60).collect::<String>();
    assert!(start.elapsed() < LIMIT, "{:?} for {:?} and {:?}", start.elapsed(), short(gold), short(answer));
}

/// Texts made of pieces that mean something to the parser.
fn notation() -> impl Strategy<Value = String> {
    let pieces = "\\frac|\\boxed{|\\sqrt|\\text{|{|}|(|)|[|]|^|_|!|%|$|\\(|\\)|\\pm|\\cup|\\le|<|=|1|23|4.5|.5|,|1,000|x|ab\
        |\\pi|sin|\\log|\\left|\\{|\\}| |\n|+|-|*|/|:|;|and|or|cm|\u{2212}|\u{b2}|\u{221a}|\u{661}|\\|e|1e5|9^9^9|\\binom\
        |<answer>|</answer>|<think>|</think>|answer is|\\circ|^\\circ|\\infty|\\in|**|A|(B)|\u{1f600}|\u{0}|\\emptyset";
    let pieces: Vec<&'static str> = pieces.split('|').chain(["|"]).collect();
    prop::collection::vec(prop::sample::select(pieces), 0..40).prop_map(|p| p.concat())
}

proptest! {
    #![proptest_config(config(512))]

    #[test]
    fn any_text_is_judged(gold in "\\PC{0,40}", answer in any::<String>()) {
        judge(&gold, &answer);
    }

    #[test]
    fn any_notation_is_judged(gold in notation(), answer in notation()) {
        judge(&gold, &answer);
        judge(&answer, &answer);
    }

    #[test]
    fn a_rational_equals_itself_however_written(n in -999_999i64..1_000_000, d in 1i64..1000, k in 1i64..50) {
        let gold = format!("{n}/{d}");
        for answer in [
            format!("\\frac{{{}}}{{{}}}", n * k, d * k),
            format!("$-\\frac{{{}}}{{{d}}}$", -n),
            format!("\\boxed{{{n} \\div {d}}}"),
            format!("x = \\dfrac{{{n}}}{{{d}}}"),
        ] {
            prop_assert!(verify(&gold, &answer, Mode::Strict).equal, "{gold} and {answer}");
            let other = format!("({n} + 1)/{d}");
            prop_assert!(!verify(&other, &answer, Mode::Strict).equal, "{other} and {answer}");
        }
    }

    #[test]
    fn an_integer_equals_itself_and_no_other(a in any::<i32>(), b in any::<i32>()) {
        for mode in [Mode::Strict, Mode::Compat] {
            let decimal = format!("{a}.0");
            prop_assert!(verify(&a.to_string(), &decimal, mode).equal);
            prop_assert_eq!(verify(&a.to_string(), &b.to_string(), mode).equal, a == b);
        }
    }
}

#[test]
fn hostile_texts_take_bounded_time() {
    let long = 50_000;
    let texts = [
        "\\boxed{".repeat(long),
        "{".repeat(long),
        "(".repeat(long),
        "\\frac{".repeat(long),
        "1+".repeat(long),
        "9".repeat(long),
        "9,".repeat(long),
        "-".repeat(long),
        "\\sqrt".repeat(300),
        "(".repeat(300) + "1" + &")".repeat(300),
        "{{1,2},".repeat(200) + &"}".repeat(200),
        "\\{1,\\{2,".repeat(150) + &"\\}\\}".repeat(150),
        "\\pm".repeat(300) + "1",
        "1\\pm1".repeat(60),
        "10^{10^{10}}".to_owned(),
        "9^9^9^9^9".to_owned(),
        "(9^{999})^{999}".to_owned(),
        "1000!".to_owned() + &"*1000!".repeat(200),
        "2^{3000}+".repeat(100) + "1",
        "\\binom{1000}{500}".repeat(50),
        "1/7+".repeat(400) + "1/11",
        "1e3000*".repeat(200) + "1",
        "x^".repeat(500) + "2",
        "1 000 ".repeat(5_000),
        " 1".repeat(long),
        "=1".repeat(long),
        "$1$".repeat(20_000),
        "answer is ".repeat(20_000),
        "\\[".repeat(long),
        "\u{661}".repeat(long),
        "<answer>".repeat(long),
        "</think>".repeat(long),
        "a\n".repeat(long),
        "A ".repeat(long),
        "1)".repeat(long),
    ];
    for text in &texts {
        judge("5", text);
        judge(text, "5");
        judge(text, text);
    }
}
