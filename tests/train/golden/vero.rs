//! Compares the judge's scores and the complete rewards with Vero's reward manager, run by its authors' code
//! (`verifier/tests/data/vero`, see the README there).

use omr_base::config::ScorerConfig;
use omr_base::config::rl::OverlongBufferConfig;
use omr_data::reward::judge::{Reply, rating};
use omr_data::reward::{Item, Mode, typed};
use omr_train::rl::overlong;
use serde_json::Value;

fn cases(file: &str) -> Vec<Value> {
    let path = omr_base_tests::root().join("verifier/tests/data/vero").join(file);
    omr_base_tests::golden::json(&path)["cases"].as_array().unwrap().clone()
}

fn close(found: f64, wanted: &Value, tolerance: f64) -> bool {
    (found - wanted.as_f64().unwrap()).abs() <= tolerance
}

#[test]
fn judge_replies() {
    let cases = cases("judge_reply.json");
    assert_eq!(cases.len(), 50);
    for case in cases {
        let raw = rating::of(case["reply"].as_str().unwrap(), Mode::Compat);
        let is_nan = raw.is_some_and(f64::is_nan);
        assert_eq!(is_nan, case["raw_is_nan"].as_bool().unwrap(), "{case}");
        assert!(is_nan || raw == case["raw"].as_f64(), "{case}: {raw:?}");
        assert!(close(raw.map_or(0.0, rating::scaled), &case["scaled"]["0_to_1"], 1e-12), "{case}: {raw:?}");
    }
}

/// Reward types that a program of the user scores, with their numbers of cases.
const LEFT_OUT: [(&str, usize); 2] = [("instruction_following", 12), ("instruction_following_llm_judge", 12)];

/// The conversation in the judge's prompt is not compared: omr sends the row's question.
#[test]
fn rewards_with_a_judge() {
    let (mut left_out, mut compared) = ([0; LEFT_OUT.len()], 0);
    for case in cases("judge_manager.json") {
        let text = |key: &str| case[key].as_str().unwrap();
        let kind = case["extra_info"]["reward_type"].as_str().unwrap();
        if let Some(i) = LEFT_OUT.iter().position(|(name, _)| *name == kind) {
            left_out[i] += 1;
            continue;
        }
        compared += 1;
        let number = |key: &str| case["config"][key].as_f64().unwrap();
        let config = ScorerConfig { format_weight: number("format_score"), ..ScorerConfig::default() };
        let rubric = config.rubric(Mode::Compat);
        let item = Item {
            // Responses are decoded without special tokens.
            response: text("response").trim_end_matches("<|im_end|>").to_owned(),
            extra_info: case["extra_info"].as_object().unwrap().clone(),
            ..Item::default()
        };
        let of_type = typed::kind(&item, Mode::Compat).unwrap().unwrap();
        let mut score = typed::score(&item, of_type, text("ground_truth"), rubric).unwrap();
        if typed::is_rated(&item) {
            assert_eq!(score.predict_str, case["asked"]["answer"], "{case}");
            assert_eq!(case["ground_truth"], case["asked"]["reference"], "{case}");
            let judged = rating::judged(score, &Reply::Said(text("judge_reply").to_owned()), rubric);
            assert!(close(judged.score.acc_score, &case["llm_judge_reward"], 1e-12), "{case}: {judged:?}");
            score = judged.score;
        } else {
            assert!(case["asked"].is_null(), "{case}");
        }
        let given = score.score.expect("a score");
        for (found, key) in [(given, "score"), (score.acc_score, "accuracy"), (score.format_reward_score, "format")] {
            assert!(close(found, &case[key], 1e-12), "{key}: {case}: {score:?}");
        }
        let (len, penalty_factor) = (number("overlong_len") as usize, number("penalty_factor"));
        let buffer = OverlongBufferConfig { enable: true, len, penalty_factor };
        let length = case["length"].as_u64().unwrap() as usize;
        let reward = given + overlong::penalty(&buffer, number("max_resp_len") as usize, length);
        assert!(close(reward, &case["reward"], 1e-6), "{case}: {reward}");
    }
    assert_eq!((left_out, compared), (LEFT_OUT.map(|(_, count)| count), 24));
}
