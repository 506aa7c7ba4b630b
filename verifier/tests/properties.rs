//! Property tests: an answer equals itself in every notation and equals no other answer, and every text gets a verdict.

use omr_verify::{BUDGET, Mode, UNEVALUATED, grade, verify};
use proptest::prelude::*;

use super::formula::{Formula, ONES, Rng, Style, formula, write};
use crate::seed::proptest as config;

/// Returns true if the values are equal. An answer that is refused as a calculation has the right value.
fn equal(gold: &str, answer: &str) -> bool {
    let verdict = verify(gold, answer, Mode::Strict);
    verdict.equal || verdict.why == UNEVALUATED
}

fn judge(gold: &str, answer: &str) {
    for mode in [Mode::Strict, Mode::Compat] {
        let verdict = verify(gold, answer, mode);
        let short = |t: &str| t.chars().take(60).collect::<String>();
        assert!(verdict.steps <= BUDGET, "{} steps for {:?} and {:?}", verdict.steps, short(gold), short(answer));
        let graded = grade(answer, gold, None, mode);
        assert!(!graded.why.is_empty(), "{graded:?}");
    }
}

/// Generates texts from pieces that have a meaning for the parser.
fn notation() -> impl Strategy<Value = String> {
    let pieces = "\\frac|\\boxed{|\\sqrt|\\text{|{|}|(|)|[|]|^|_|!|%|$|\\(|\\)|\\pm|\\cup|\\le|<|=|1|23|4.5|.5|,|1,000|x|ab\
        |\\pi|sin|\\log|\\left|\\{|\\}| |\n|+|-|*|/|:|;|and|or|cm|\u{2212}|\u{b2}|\u{221a}|\u{661}|\\|e|1e5|9^9^9|\\binom\
        |<answer>|</answer>|<think>|</think>|answer is|\\circ|^\\circ|\\infty|\\in|**|A|(B)|\u{1f600}|\u{0}|\\emptyset";
    let pieces: Vec<&'static str> = pieces.split('|').chain(["|"]).collect();
    prop::collection::vec(prop::sample::select(pieces), 0..40).prop_map(|p| p.concat())
}

/// Generates formulas that are compared within the budget.
fn formulas() -> impl Strategy<Value = Formula> {
    (any::<u64>(), 0u32..3).prop_map(|(seed, depth)| formula(&mut Rng::new(seed), depth))
}

proptest! {
    #![proptest_config(config(256))]

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
    fn a_formula_equals_itself_in_every_style(f in formulas()) {
        let styles = [Style::Tight, Style::Loose, Style::Plain];
        for a in styles {
            for b in styles {
                let (x, y) = (write(&f, a), write(&f, b));
                prop_assert!(equal(&x, &y), "{x} and {y}: {}", verify(&x, &y, Mode::Strict).why);
            }
        }
        let text = write(&f, Style::Tight);
        for answer in [format!("${text}$"), format!("\\boxed{{{text}}}"), format!("The answer is \\({text}\\)."), text.replace("+", "  +\n")] {
            prop_assert!(equal(&text, &answer), "{text} and {answer}");
        }
    }

    #[test]
    fn a_formula_equals_itself_times_one(f in formulas()) {
        let text = write(&f, Style::Tight);
        for one in ONES {
            let times = format!("({one})\\cdot({text})");
            prop_assert!(equal(&text, &times) && equal(&times, &text), "{text} and {times}");
        }
    }

    #[test]
    fn verdicts_on_formulas_are_symmetric(f in formulas(), g in formulas()) {
        let (x, y) = (write(&f, Style::Tight), write(&g, Style::Plain));
        prop_assert_eq!(equal(&x, &y), equal(&y, &x), "{} and {}", x, y);
    }

    #[test]
    fn a_changed_digit_changes_the_verdict(digits in "-?[1-9][0-9]{0,12}(\\.[0-9]{0,8}[1-9])?", place in any::<prop::sample::Index>(), by in 1u8..10) {
        let places: Vec<usize> = digits.bytes().enumerate().filter(|(_, b)| b.is_ascii_digit()).map(|(i, _)| i).collect();
        let at = places[place.index(places.len())];
        let mut changed = digits.clone().into_bytes();
        changed[at] = b'0' + (changed[at] - b'0' + by) % 10;
        let changed = String::from_utf8(changed).unwrap();
        prop_assert!(!equal(&digits, &changed), "{digits} and {changed}");
        let sum = equal(&format!("\\sqrt{{2}}+{digits}"), &format!("\\sqrt{{2}}+{changed}"));
        let pair = equal(&format!("({digits}, 7)"), &format!("({changed}, 7)"));
        prop_assert!(!sum && !pair, "{digits} and {changed} in a sum, in a pair");
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
            prop_assert!(equal(&gold, &answer), "{gold} and {answer}");
            let other = format!("({n} + 1)/{d}");
            prop_assert!(!equal(&other, &answer), "{other} and {answer}");
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

// A single table of texts.
#[allow(clippy::too_many_lines)]
#[test]
fn hostile_texts_take_bounded_work() {
    let long = 50_000;
    let megabyte = 1 << 20;
    let texts = [
        "\\boxed{".repeat(long),
        "{".repeat(long),
        "(".repeat(long),
        "\\frac{".repeat(long),
        "\\text{".repeat(1_500) + &"}".repeat(1_500),
        "1+".repeat(long),
        "9".repeat(long),
        "9".repeat(1_400),
        "5 ".to_owned() + &"ab cd ".repeat(1_500) + "2",
        "9,".repeat(long),
        "-".repeat(long),
        "\\sqrt".repeat(300),
        "(".repeat(300) + "1" + &")".repeat(300),
        "{{1,2},".repeat(200) + &"}".repeat(200),
        "\\{1,\\{2,".repeat(150) + &"\\}\\}".repeat(150),
        "\\pm".repeat(300) + "1",
        "1\\pm1".repeat(60),
        "10^{10^{10}}".to_owned(),
        "9^{9^{9}}".to_owned(),
        "9^9^9^9^9".to_owned(),
        "(9^{999})^{999}".to_owned(),
        "(".repeat(7) + "9" + &"^{4000})".repeat(7),
        "(".repeat(7) + "0.9" + &"^{4000})".repeat(7) + "+\\pi",
        "e^{".repeat(9) + "9" + &"}".repeat(9),
        "\\sin(10^{1000})".to_owned(),
        "1000!".to_owned() + &"*1000!".repeat(200),
        "2^{3000}+".repeat(100) + "1",
        "\\binom{1000}{500}".repeat(50),
        "1/7+".repeat(400) + "1/11",
        "1e3000*".repeat(200) + "1",
        "x^".repeat(500) + "2",
        "\\sqrt{2+".repeat(50) + "x" + &"}".repeat(50),
        "\\int_0^1".repeat(12) + "x" + &"dx".repeat(12),
        "\\sum_{k=1}^{999}".repeat(6) + "k",
        "\\sin(".repeat(50) + "x" + &")".repeat(50),
        "x,".repeat(400) + "y",
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
        "\\frac{1}{2}+".repeat(megabyte / 12),
        "\\(x\\) and ".repeat(megabyte / 10),
        "]1,2[ ".repeat(1_500),
        "[0,1[ \\cup ".repeat(900),
        "about ".repeat(50) + "5" + &" up".repeat(50),
        "a loss of ".repeat(200) + "5",
        "between 2 and ".repeat(100) + "5",
        "\\int_0^1".repeat(20) + "(x+y+z+1)^{12}(x+y+z+2)^{11}" + &"\\,dx\\,dy\\,dz".repeat(7),
        "\\int_0^x x^3 ".repeat(15) + "\\sin(x)" + &"dx".repeat(15),
        "\\begin{cases}".to_owned() + &"x^2 & x<1\\\\".repeat(12) + "\\end{cases}",
        "1+2+\\cdots+".repeat(100) + "n",
        "(1 2 3)".repeat(1_000),
        "5'6\" ".repeat(1_000),
        "1,00,".repeat(1_500),
        "0.\\dot{1}".repeat(800),
        "one over ".repeat(60) + "two",
        "x=1,y=2 or ".repeat(400) + "x=2,y=1",
        "f: x \\mapsto ".repeat(300) + "x",
        "(1,2)+t".repeat(600) + "(3,4)",
        "diag(".to_owned() + &"1,".repeat(300) + "1)",
        "\\zeta(3)".repeat(12),
        "median: ".repeat(60) + "5",
        "2 hours and ".repeat(300) + "3 minutes",
        "\\underline{".repeat(long / 12),
        "\\colorbox{red}{".repeat(2_000) + "1" + &"}".repeat(2_000),
        "\\mathbf{\\text{".repeat(2_000) + &"}}".repeat(2_000),
        "<b".repeat(20_000),
        "<sup>".repeat(9_000),
        "&lt;".repeat(12_000),
        "~~".repeat(20_000),
        "{\"answer\": ".repeat(300) + "1" + &"}".repeat(300),
        "- a\n".repeat(long),
        "- red\n".repeat(39),
        "it is called ".repeat(40),
        "red and ".repeat(300) + "blue",
        "o\u{308}".repeat(20_000),
        "Let me know. ".repeat(10_000),
        "I, II and ".repeat(20) + "III",
        "\\begin{align}".to_owned() + &"x+1&=2\\\\".repeat(600) + "x&=1\\end{align}",
    ];
    for text in &texts {
        judge("5", text);
        judge(text, "5");
        judge(text, text);
    }
}

#[test]
fn limits_inside_limits_do_not_panic() {
    for place in ["0", "\\infty"] {
        let text = format!("\\lim_{{x\\to {place}}}").repeat(8) + "\\frac{\\ln x}{x}";
        judge("5", &text);
        judge(&text, &text);
    }
}
