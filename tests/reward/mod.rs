//! Tests of scores: by the rules, by a judge, and by a user's own reward process.

mod judge;
pub mod judge_server;
mod process;
mod protocol;

use omr::reward::{Mode, score};

#[test]
fn strict_and_compat_part_where_the_original_is_wrong() {
    // (response, gold, strict accuracy, compat accuracy)
    let cases = [
        ("<think>\\boxed{7}</think><answer>8</answer>", "8", 1.0, 1.0),
        ("<think>maybe <answer>3</answer></think><answer>8</answer>", "8", 1.0, 0.0),
        ("<think>x</think><answer>5</answer> no: <answer>8</answer>", "8", 1.0, 0.0),
        ("<think>x</think><answer>12345678901</answer>", "1234567890", 0.0, 1.0),
        ("the result is -7", "-7", 1.0, 0.0),
        ("so the total is 1,234", "1234", 1.0, 0.0),
        ("<answer></answer>", "", 0.0, 1.0),
        ("<think>a</think><answer>Circle</answer>", "C", 0.0, 1.0),
        ("<think>a</think><answer>J</answer>", "J", 1.0, 1.0),
    ];
    for (response, gold, strict, compat) in cases {
        assert_eq!(score(response, gold, None, Mode::Strict).acc_score, strict, "strict {response:?}");
        assert_eq!(score(response, gold, None, Mode::Compat).acc_score, compat, "compat {response:?}");
    }
    let padded = " <think>a</think><answer>5</answer>\n";
    assert_eq!(score(padded, "5", None, Mode::Strict).score, 1.0);
    assert_eq!(score(padded, "5", None, Mode::Compat).score, 0.9);
}

#[test]
fn the_score_is_nine_parts_accuracy_and_one_part_format() {
    for (response, want) in [
        ("<think>3 + 5 = 8.</think><answer>8</answer>", 1.0),
        ("<think>3 + 5 = 9.</think><answer>9</answer>", 0.1),
        ("It looks like 8.", 0.9),
        ("", 0.0),
        ("<think>3 + 5", 0.0),
    ] {
        assert_eq!(score(response, "8", None, Mode::Strict).score, want, "{response:?}");
    }
}
