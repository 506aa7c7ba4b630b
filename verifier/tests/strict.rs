//! Tests which answers strict mode accepts and rejects, with one pair for each kind of answer.

use omr_verify::{Mode, verify};

fn equal(gold: &str, answer: &str) -> bool {
    verify(gold, answer, Mode::Strict).equal
}

#[test]
fn strict_accepts_the_same_value_written_otherwise() {
    let pairs = [
        ("1/2", "0.5"),
        ("We add 70 and 2, so the answer is $\\boxed{72}$.", "\\boxed{72}"),
        ("She sold 48/2 = <<48/2=24>>24 clips.\n#### 24", "24"),
        ("0.5", "\\frac12"),
        ("St. Louis", "St. Louis"),
        ("Yes! It is", "Yes! It is"),
        ("B", "\\boxed{B.\\ 4}"),
        ("-5", "\u{2212}5"),
        ("1000", "1e3"),
        ("1000", "1,000"),
        ("1234567", "1{,}234{,}567"),
        ("\\frac{1}{2}", "\u{bd}"),
        ("42", "\u{664}\u{662}"),
        ("12", "12 cm"),
        ("5 cm", "5\\text{ cm}"),
        ("50%", "0.5"),
        ("50%", "50"),
        ("3", "3.00"),
        ("1.5", "1 1/2"),
        ("1.5", "1\\frac{1}{2}"),
        ("x=5", "5"),
        ("5", "x = 5"),
        ("1024", "2^{10}"),
        ("120", "5!"),
        ("3", "|-3|"),
        ("2\\sqrt{2}", "\\sqrt{8}"),
        ("2\\pi", "2\u{3c0}"),
        ("x^2+2x+1", "(x+1)^2"),
        ("300000", "3 \\times 10^5"),
        ("(1, 2)", "(1,2)"),
        ("\\{2,1\\}", "\\{1,2\\}"),
        ("2, -2", "\\pm 2"),
        ("(C)", "C"),
        ("C", "The answer is (C)."),
        ("B", "B) seven"),
        ("Yes", "yes"),
        ("red circle", "The red circle."),
        ("17", "\\boxed{17}"),
        ("17", "Hence the total is $\\boxed{17"),
        ("17", "**Answer:** 17"),
        ("30", "30^\\circ"),
        ("1/3", "0.333333"),
        ("16\\pi", "\\pi(16)"),
        ("y(0)+1", "1+y(0)"),
        ("x=1或x=2", "x=2或x=1"),
        ("2或-1", "-1, 2"),
        ("a=1, b=2", "a=1 \\quad b=2"),
        ("小明和小红", "小明和小红"),
        ("60 W", "60W"),
        ("5", "5个"),
        ("No", "No - it does not."),
        ("T", "True"),
        ("T", "T (true)"),
        ("30°或150°", "150°或30°"),
        ("2或-1", "2或−1"),
        ("5", "So \\quad x = 5"),
        ("F - mg", "F-mg"),
        ("5 \\mathrm{~m} / \\mathrm{s}", "5m/s"),
        ("1200 J", "1.2×10^3J"),
        ("C = 2 \\pi r = 10\\pi", "C=10\\pi"),
        ("n^2, if n is even", "n^2, if n is even"),
        (
            "\\begin{cases} x, & \\text{if } x > 0 \\\\ 1, & x = 0 \\end{cases}",
            "\\begin{cases} x & x>0 \\\\ 1 & x=0 \\end{cases}",
        ),
        ("\\begin{cases} x + y &= 3 \\\\ x - y &= 1 \\end{cases}", "x + y = 3, x - y = 1"),
    ];
    for (gold, answer) in pairs {
        assert!(equal(gold, answer), "{gold:?} and {answer:?}: {:?}", verify(gold, answer, Mode::Strict));
    }
}

#[test]
fn strict_refuses_another_value() {
    let pairs = [
        ("5", "-5"),
        ("5", "5.0001"),
        ("1/3", "0.333"),
        ("1234567890", "12345678901"),
        ("(1,2)", "(2,1)"),
        ("5 m", "5 km"),
        ("A", "Answer: B"),
        ("C", "Circle"),
        ("C", "A and C"),
        ("7", "7 or 8"),
        ("", ""),
        ("5", ""),
        ("41%", "0.041"),
        ("10^{-36}", "10^{-37}"),
        ("10^{29}", "10^{29}+1"),
        ("2x+1", "2x-1"),
        ("x=1或x=2", "x=2"),
        ("a=1 \\quad b=2", "a=3 \\quad b=2"),
        ("T", "T/2"),
        ("NO", "NO_2"),
        ("mgR", "mgr"),
        ("AaBb", "aabb"),
        ("60 W", "60V"),
        ("5", "5多"),
        ("F - mg", "F - ma"),
        ("NO", "NO2"),
        ("对，错", "错，对"),
        ("C: 5, D: 6", "C: 7, D: 6"),
        ("C", "C. 5 and D. 6"),
        ("(I) 12; (II) 30", "(I) 13; (II) 31"),
        ("\\begin{cases} 2 & x>0 \\\\ 3 & x<0 \\end{cases}", "\\begin{cases} 7 & x>0 \\\\ 9 & x<0 \\end{cases}"),
        ("5, at x=2", "5, at x=3"),
        ("n^2, if n is even", "n^2, if n is odd"),
        ("x=1\ny=2", "x=3\ny=2"),
        ("x=1 \\\\ x=2", "x=2"),
        ("P(A)=1/2 \\quad P(B)=1/3", "P(A)=1/4 \\quad P(B)=1/3"),
        ("R=5, r=3", "R=3, r=5"),
        ("yes", "no"),
        ("Tokyo", "Tokyo, Japan"),
        ("1 - \\frac{1}{e}", "1 + \\frac{1}{e}"),
        ("2", "\\langle 2,-3\\rangle"),
        ("I(0) e^{-\\frac{t}{R C}}", "0"),
        ("I(0) e^{-\\frac{t}{R C}}", "I(0) e^{\\frac{t}{R C}}"),
        ("\\phi(0) \\cos t", "\\phi(0) \\sin t"),
        ("V(1)", "V"),
        ("y(0)", "0"),
    ];
    for (gold, answer) in pairs {
        let verdict = verify(gold, answer, Mode::Strict);
        assert!(
            !verdict.equal || (gold.is_empty() && verdict.why == "both empty"),
            "{gold:?} and {answer:?}: {verdict:?}"
        );
    }
}
