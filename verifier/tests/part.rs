//! Tests which part of a response is taken as the answer.

use omr_verify::{Mode, grade};

/// Asserts that every response is right (`want`) or wrong for its label.
fn all(want: bool, rows: &[(&str, &str)]) {
    let graded = rows.iter().map(|(gold, response)| (gold, response, grade(response, gold, None, Mode::Strict)));
    let wrong: Vec<_> = graded.filter(|row| row.2.correct != want).map(|row| format!("{row:?}")).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_end_of_an_expression_is_not_the_answer() {
    all(
        false,
        &[
            ("2", "So the probability is 1/2."),
            ("3", "It equals 2^3"),
            ("5", "The distance is 3 x 10^5"),
            ("2", "I get 4 1/2"),
            ("30", "It ends at 12:30"),
            ("4", "The ratio is 3:4"),
            ("4", "The ratio is 3 to 4."),
            ("5", "x = 3 - 5"),
            ("25", "Es sind 12,25"),
            ("24", "2026-11-24"),
            ("24", "It was on November 24"),
            ("2", "The area is 9 cm^2"),
            ("2", "x = \u{221a}2"),
            ("2", "It is the square root of 2"),
            ("3", "x = 2\u{3c0}/3"),
            ("2", "The answer is not 2"),
            ("2", "It cannot be 2"),
            ("5", "x = 3 or x = 5"),
            ("5", "It is 3 or 5."),
            ("5", "x = 3 and x = 5"),
            ("24", "The legs are 18 and 24"),
            ("5", "It is at least 5"),
            ("5", "The number is greater than 5"),
            ("5", "The set is 3, 4, 5"),
            ("8", "The answer is log 8"),
            ("7", "The sum is 3 + 4 + 7"),
            ("5", "4 out of 5"),
            ("5", "\u{901f}\u{5ea6}\u{4e0d}\u{662f}5"),
            ("2", "It is the cube root of 2"),
            ("4", "The ratio is 3 : 4"),
        ],
    );
    all(
        true,
        &[
            ("0.5", "So the probability is 1/2."),
            ("8", "It equals 2^3"),
            ("300000", "The distance is 3 x 10^5"),
            ("4.5", "I get 4 1/2"),
            ("3:4", "The ratio is 3:4"),
            ("3:4", "The ratio is 3 : 4"),
            ("\\sqrt{2}", "It is the square root of 2"),
            ("12.25", "Es sind 12,25"),
            ("\\frac{2\\pi}{3}", "x = 2\u{3c0}/3"),
            ("\\sqrt{2}", "x = \u{221a}2"),
            ("3, 5", "x = 3 or x = 5"),
        ],
    );
}

#[test]
fn a_number_behind_words_and_layout_is_the_answer() {
    all(
        true,
        &[
            ("7", "x = 7"),
            ("-5", "so x = -5."),
            ("1250", "Answer: $1,250"),
            ("9", "The product is 9"),
            ("64", "8*8=64\n#### 64"),
            ("64", "so it is **64**"),
            ("64", "**Answer: 64**\n\nLet me know if you need more detail."),
            ("64", "The result is 64.\n\n(Checked 2 times)"),
            ("64", "Step 1: 46\nStep 2: 64"),
            ("64", "- 64"),
            ("64", "2. 64"),
            ("64", "Adding 3 and 61 gives 64"),
            ("64", "The total is equal to 64"),
            ("64", "$x=64$"),
            ("64", "Therefore, 64"),
            ("64", "8 \u{00d7} 8 = 64"),
        ],
    );
    all(false, &[("2", "Step 1: 46\nStep 2: 64"), ("2", "The result is 64.\n\n(Checked 2 times)")]);
}

#[test]
fn a_corrected_box_is_not_the_answer() {
    let corrected = "A first try gives \\boxed{6}. That is wrong; the corrected answer is \\boxed{8}.";
    let legs = "The legs are \\boxed{18} and \\boxed{24}.";
    all(
        true,
        &[
            ("8", corrected),
            ("64", "\\boxed{64}\n\nCheck: 2^6 = \\boxed{64.0}"),
            ("1/2", "\\boxed{\\frac12}, that is \\boxed{0.5}"),
            ("64", "\\boxed{64} \\text{ (that is } \\boxed{2^6})"),
            ("64", "\\boxed{64}, which is \\boxed{8 \\cdot 8}"),
            ("64", "As asked, I write \\boxed{\\text{your answer}}: \\boxed{64}"),
            ("64", "\\boxed{64}. In the form \\boxed{...}"),
            ("18, 24", legs),
            ("2, 3", "$x = \\boxed{2}$ or $x = \\boxed{3}$"),
            ("1/2", "\\boxed{1/2} or \\boxed{0.5}"),
        ],
    );
    all(false, &[("6", corrected), ("6, 8", corrected), ("24", legs), ("2", "$x = \\boxed{2}$ or $x = \\boxed{3}$")]);
    let question = Some("Which gas?\nA. oxygen\nB. hydrogen\nC. carbon dioxide\nD. nitrogen");
    for response in ["I first thought \\boxed{A}. No: \\boxed{C}", "The rate is \\boxed{v = k A}.\n\n**Answer: C**"] {
        assert!(grade(response, "C", question, Mode::Strict).correct, "{response}");
    }
}

#[test]
fn a_formula_at_the_end_of_a_line_is_the_answer() {
    all(
        true,
        &[
            ("\\frac{1}{32}", "So the probability is $\\dfrac{1}{32}$."),
            ("7/12", "The sum is $\\frac{1}{3} + \\frac{1}{4} = \\frac{7}{12}$"),
            ("2\\sqrt{5}", "The length is \\(\\sqrt{20} = 2\\sqrt{5}\\)."),
            ("0.0036", "The wavelength equals $3.6 \\times 10^{-3}$"),
            ("34", "**The value is $\\mathbf{34}$.**"),
            ("15", "Plugging in gives \\(3 \\cdot 5 = 15\\), so it is \\(15\\)."),
            ("64", "The result is 64.\n\nThis is the value of $x$."),
            ("3:7", "Therefore the ratio is $3:7$."),
            ("x^2 - 4x + 1", "Collecting like terms, the polynomial is $x^2 - 4x + 1$."),
            ("-1, 4", "Factoring gives $(x+1)(x-4)=0$.\nHence $x = -1$ or $x = 4$."),
            ("-2, 3", "$x^2 - x - 6 = 0$ has the solutions \\(x = -2\\) or \\(x = 3\\)."),
            ("1, 2, 3", "The equation has the roots x = 1, x = 2 and x = 3"),
            ("\\pm 3", "From $x^2 = 9$ we get $x = \\pm 3$."),
            ("1/2, 1/3", "The roots are $x = \\frac{1}{2} \\text{ or } x = \\frac{1}{3}$."),
        ],
    );
    all(
        false,
        &[
            ("1/3", "The roots are $x = \\frac{1}{2} \\text{ or } x = \\frac{1}{3}$."),
            ("3", "From $x^2 = 9$ we get $x = \\pm 3$."),
            ("3", "$x^2 - x - 6 = 0$ has the solutions $x = -2$ or $x = 3$."),
            ("3", "x^2 - x - 6 = 0 has the solutions x = -2 or x = 3"),
            ("2, 3", "The equation has the roots x = 1, x = 2 and x = 3"),
            ("1/3", "It is $\\frac{1}{2}$ or $\\frac{1}{3}$."),
            ("1/3", "The probability is not $\\frac{1}{3}$."),
            ("1/3", "$x \\ne \\frac{1}{3}$"),
            ("1/3", "$x \\ge \\frac{1}{3}$"),
            ("1/3", "The slope of $y = \\frac{1}{3} x$"),
            ("9", "The asymptotes are at x = -9 and x = 9"),
            ("9", "The asymptotes are at x=-9 and x=9"),
            ("4", "The number of teams is 9 choose 4."),
        ],
    );
    all(
        true,
        &[
            ("-9, 9", "The asymptotes are at x = -9 and x = 9"),
            ("26", "It is not 24 but 26."),
            ("12", "twelve"),
            ("D", "<answer>Choose D</answer>"),
        ],
    );
}
