//! Tests answers from fresh lists on which the verifier's verdict was once wrong, grouped by the kind of mistake.

use omr_verify::{Mode, extract, verify};

fn equal(gold: &str, answer: &str) -> bool {
    verify(gold, answer, Mode::Strict).equal
}

/// Asserts that each answer is accepted for its gold answer. The format of a pair is `GOLD <- ANSWER ~ ANSWER`, with `
/// ; ` between pairs.
fn accepted(pairs: &str) {
    for pair in pairs.split(" ; ") {
        let (gold, answers) = pair.split_once(" <- ").unwrap();
        answers.split(" ~ ").for_each(|answer| assert!(equal(gold, answer), "{gold:?} and {answer:?}"));
    }
}

/// Asserts that no answer is accepted for its gold answer. The format is the one of [`accepted`].
fn refused(pairs: &str) {
    for pair in pairs.split(" ; ") {
        let (gold, answers) = pair.split_once(" <- ").unwrap();
        answers.split(" ~ ").for_each(|answer| assert!(!equal(gold, answer), "{gold:?} and {answer:?}"));
    }
}

#[test]
fn a_range_is_not_a_ratio() {
    refused(
        "2 to 4 <- 1 to 2 ~ 0.5 ~ 1/2 ; 10 to 20 <- 5 to 10 ; 0 to 100 <- 0 ~ 0 to 50 ; -5 to 5 <- 5 to -5 ; 5 to 10 cm <- 5-10 kg",
    );
    accepted(
        "0 to 100 <- from 0 to 100 ~ [0, 100] ~ 0-100 ~ 0 - 100 ; [0, 100] <- 0 to 100 ; 5 to 10 cm <- 5-10 cm ; 3:5 <- 3 to 5 ; 2:4 <- the ratio is 1 to 2",
    );
}

#[test]
fn two_letters_are_no_choice() {
    for gold in ["A", "B", "C", "D", "E"] {
        refused(&format!(
            "{gold} <- A to D ~ A through D ~ Options A through D ~ Choices A to E ~ \\boxed{{A through D}} ~ A or B"
        ));
    }
    accepted("D <- The answer is D ; B <- B) from A to C ; A <- A. To be");
}

#[test]
fn a_sum_of_letters_that_was_asked_for_has_a_value() {
    accepted("204 <- m+n=204 ~ \\boxed{m+n=204} ~ \\boxed{|a-b|=204} ~ a+b+c=204 ~ 204 = m + n ~ a \\cdot b = 204");
    refused("6 <- 2x=6 ~ x+1=6 ~ x^2+y^2=6 ; x+y=1 <- 1 ; 204 <- m+n=205 ~ 2m+n=204");
}

#[test]
fn a_lone_hedge_is_an_answer() {
    accepted("6307 <- I think it is 6307. ~ It appears to be 6307. ~ I believe it is 6307.");
    accepted("C <- I think it is C. ~ It is likely C.");
    refused("5 <- I think 5 but it may be 6 ~ 5 or perhaps 6 ~ maybe 5 or 6 ~ I think it is 6, maybe 5");
}

#[test]
fn a_bound_or_a_denial_is_no_number() {
    refused("12 <- 12 or more ~ 12 or less ~ 12 or fewer ~ anything but 12 ~ 12_13");
    accepted("12 or more <- 12 or more ; 101_2 <- 101 ~ 5");
}

#[test]
fn a_point_of_another_name_is_another_point() {
    refused("(3,4) <- A(4,3) ; A(3,4) <- B(3,4)");
}

#[test]
fn chinese_markers_stand_right_before_the_answer() {
    accepted("42 <- 答案是42 ~ 故答案为42。 ~ 结果是42 ; B <- 答案选B ~ 故选B。 ~ 答案是B");
    refused("42 <- 答案不是42 ~ 答案是43 ; B <- 故选C。");
}

#[test]
fn a_day_of_another_year_is_another_day() {
    assert!(!equal("July 4", "July 4, 1776") && equal("July 4, 1776", "4 July 1776"));
}

#[test]
fn a_thinking_without_its_beginning_is_stripped() {
    let strip = |text: &str| extract::strip_think(text, Mode::Compat);
    assert_eq!(strip("We add.</think>\n<answer>5</answer>"), "<answer>5</answer>");
    assert_eq!(strip("<think>a</think>5"), "5");
    assert_eq!(strip("a</think>b<think>c"), "a</think>b<think>c");
}
