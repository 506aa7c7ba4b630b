//! Repairs a teacher's answer into the format `<think>T</think><answer>A</answer>`.

use crate::data::answer::between;

/// Reason why an answer cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// There is no reasoning.
    NoThink,
    /// There is no answer.
    NoAnswer,
}

/// Returns `<think>T</think><answer>A</answer>` with the first reasoning and the first answer of a response, and
/// nothing else. A missing `<think>` is inserted at the start if there is a `</think>`; otherwise the text before the
/// last answer is enclosed in `<think>` tags. `<tool_call>` is removed.
pub fn repair(response: &str) -> Result<String, Malformed> {
    let mut text = response.replace("<tool_call>", "");
    if !text.contains("<think>") {
        let pair = text.rfind("<answer>").filter(|&open| text[open..].contains("</answer>"));
        if text.contains("</think>") {
            text.insert_str(0, "<think>");
        } else if let Some(open) = pair {
            text = format!("<think>{}</think>{}", &text[..open], &text[open..]);
        }
    }
    let think = between(&text, "<think>", "</think>").ok_or(Malformed::NoThink)?;
    let answer = between(&text, "<answer>", "</answer>").ok_or(Malformed::NoAnswer)?;
    Ok(format!("<think>{think}</think><answer>{answer}</answer>"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_repaired_as_the_original_pipeline_does() {
        let good = "<think>t</think><answer>5</answer>";
        for response in [
            good,
            "\n<think>t</think>\n\n<answer>5</answer> done",
            "t</think><answer>5</answer>",
            "t<answer>5</answer>",
            "<tool_call><think>t</think><answer>5</answer><answer>6</answer>",
            "<think>t</think><think>u</think><answer>5</answer>",
        ] {
            assert_eq!(repair(response).unwrap(), good, "{response}");
        }
        let last = repair("<answer>1</answer> no, <answer>5</answer>").unwrap();
        assert!(last.ends_with("<answer>1</answer>"), "{last}");
        for (response, why) in [
            ("", Malformed::NoThink),
            ("The answer is 5.", Malformed::NoThink),
            ("<think>t", Malformed::NoThink),
            ("<think>t</think>5", Malformed::NoAnswer),
            ("<think>t<answer>5", Malformed::NoThink),
            ("t</think><answer>5", Malformed::NoAnswer),
        ] {
            assert_eq!(repair(response), Err(why), "{response}");
        }
    }
}
