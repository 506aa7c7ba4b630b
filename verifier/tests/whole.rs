//! Tests that an answer is accepted only if all of it is understood. Text beside the value that is not understood leads
//! to rejection.

use omr_verify::{Mode, verify};

/// Asserts that every pair has the verdict `want`.
fn all(want: bool, pairs: &[(&str, &str)]) {
    for (gold, answer) in pairs {
        let verdict = verify(gold, answer, Mode::Strict);
        assert_eq!(verdict.equal, want, "{gold:?} and {answer:?}: {verdict:?}");
    }
}

#[test]
fn words_are_compared_in_order_as_words() {
    all(
        false,
        &[
            ("no", "on"),
            ("on", "no"),
            ("ABCD", "BCDA"),
            ("dog", "god"),
            ("act", "cat"),
            ("HHT", "HTH"),
            ("{HH, HT, TH, TT}", "{HH, HT, TT}"),
            ("A-B-D-C", "A-B-C-D"),
            ("CO", "Co"),
            ("AA", "Aa"),
            ("dark red", "red dark"),
        ],
    );
    all(
        true,
        &[
            ("ABCD", "ABCD"),
            ("ab", "a \\cdot b"),
            ("ab", "b*a"),
            ("$xy$", "x y"),
            ("2ab", "2ba"),
            ("YES", "yes"),
            ("red circle", "The red circle."),
        ],
    );
}

#[test]
fn a_second_value_refuses_the_first() {
    all(
        false,
        &[
            ("7", "7 or 8"),
            ("7", "7, 8"),
            ("5", "either 5 or 6"),
            ("5", "5 (or 6)"),
            ("5", "5 or perhaps 6"),
            ("3", "approximately 3 or 4"),
            ("5", "between 5 and 6"),
            ("5", "5 +/- 1"),
            ("red", "red or blue"),
            ("Tokyo", "Tokyo, Japan"),
            ("4", "4 out of 5"),
            ("42", "4 2"),
        ],
    );
    all(true, &[("7, 8", "7 and 8"), ("2, -2", "\\pm 2"), ("(1, 2)", "x = 1, y = 2")]);
}

#[test]
fn several_boxes_are_the_list_of_them() {
    all(
        false,
        &[("5", "\\boxed{4}, \\boxed{5}"), ("5", "\\boxed{5} or \\boxed{6}"), ("4", "\\boxed{4} and \\boxed{5}")],
    );
    all(true, &[("4, 5", "\\boxed{4} and \\boxed{5}"), ("5", "\\boxed{5} ... so \\boxed{5}")]);
    // A value that another sentence corrects is not the answer.
    all(true, &[("5", "I get \\boxed{4}. That ignores the sign, so it is \\boxed{5}.")]);
}

#[test]
fn a_second_value_a_question_or_a_denial_is_no_answer() {
    all(
        false,
        &[
            ("5", "5 and maybe 7"),
            ("5", "5?"),
            ("5", "Is it 5?"),
            ("5", "not 5"),
            ("5", "The answer is not 5."),
            ("5", "it isn't 5"),
            ("5", "5 is wrong"),
            ("5", "I think 5 but it may be 6"),
            ("5", "5 or so"),
            ("red", "not red"),
            ("red", "red?"),
            ("red", "perhaps red"),
            ("6", "The answer is 5, not 6."),
        ],
    );
    all(
        true,
        &[
            ("5", "about 5"),
            ("5", "maybe 5"),
            ("3.14", "approximately 3.14"),
            ("5", "The answer is 5, not 6."),
            ("5", "The value is 5 since 2+3=5."),
            ("no solution", "There are no real solutions."),
        ],
    );
}

#[test]
fn text_behind_a_number_is_its_unit_or_it_is_not_understood() {
    all(
        false,
        &[
            ("5", "5 mumble"),
            ("5", "5 blorp quux"),
            ("5 blorp", "5 quux"),
            ("12 apples", "12 oranges"),
            ("12", "12 bananas or oranges"),
            ("12 cm", "12 kg"),
            ("5 m", "5 km"),
            ("2.2 M\u{3a9}", "2.2 m\u{3a9}"),
            ("5", "5 times as much as before"),
            ("3 A from P to Q", "3 A from Q to P"),
            ("33.5\u{b0} S", "33.5\u{b0} N"),
            ("60 mph", "60 km/h"),
            ("2 \u{d7} 3 matrix", "3 \u{d7} 2 matrix"),
            ("1/2", "1/2 of 3"),
            ("10", "10 dozen"),
            ("5", "5 if x > 0"),
            ("10", "10 percent of 50"),
            ("20% increase", "20% decrease"),
            ("20% increase", "The price fell by 20%."),
        ],
    );
    all(
        true,
        &[
            ("5 blorp", "5 blorp"),
            ("12", "12 cm"),
            ("12 cm", "12"),
            ("12", "12 apples"),
            ("120", "10 dozen"),
            ("5 m/s north", "5 m/s northward"),
            ("212\u{b0}F", "100\u{b0}C"),
            ("90 km/h", "25 m/s"),
        ],
    );
}

#[test]
fn words_before_a_number_that_change_it_refuse_it() {
    all(
        false,
        &[
            ("5", "less than 5"),
            ("5", "at least 5"),
            ("5", "5 more than x"),
            ("5", "twice 5"),
            ("(1,3)", "all real numbers outside the interval (1,3)"),
        ],
    );
}

#[test]
fn several_options_a_range_or_something_attached_are_no_option() {
    all(
        false,
        &[
            ("A", "A or B"),
            ("A", "A and B"),
            ("A", "A, B"),
            ("A", "(A) or (B)"),
            ("A", "A-C"),
            ("B", "A-C"),
            ("A", "Apple"),
            ("A", "A1"),
            ("A", "not A"),
            ("C", "Circle"),
        ],
    );
    all(
        true,
        &[
            ("A", "The answer is A."),
            ("A", "(A)"),
            ("A", "a"),
            ("A", "A. 12"),
            ("C", "C) seven"),
            ("AC", "A and C"),
            ("ACD", "(D), (A) and (C)"),
        ],
    );
}

#[test]
fn hedging_between_yes_and_no_is_neither() {
    for gold in ["yes", "no"] {
        all(false, &[(gold, "yes and no"), (gold, "yes or no"), (gold, "yes/no"), (gold, "maybe yes")]);
    }
    all(false, &[("yes", "No."), ("yes", "Yes? No."), ("no", "Yes, of course."), ("yes, no", "no, yes")]);
    all(true, &[("yes", "Yes, it is."), ("no", "No, because 4 is even."), ("true", "True")]);
}

#[test]
fn bare_money_at_the_end_wins_over_an_earlier_formula() {
    all(
        true,
        &[
            ("12.50", "So the total is $x + 3 = 15$, and the cost is $12.50."),
            ("\\$12.50", "We had $2x = 25$ so it is $12.50"),
        ],
    );
    all(false, &[("15", "So the total is $x + 3 = 15$, and the cost is $12.50.")]);
}
