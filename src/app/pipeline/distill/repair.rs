//! Repairs a teacher's answer into the format `<think>T</think><answer>A</answer>`.

use omr_verify::extract::last_answer_tag;

use omr_data::reward::Mode;
use omr_data::rows::forms::answer::between;

/// Returns `<think>T</think><answer>A</answer>` with the first reasoning and one answer of a response, and nothing else.
/// In strict mode, this is the last answer after the reasoning, because the reasoning may quote others. In compat mode, or
/// without an answer there, it is the first one. A missing `<think>` is inserted at the start if there is a `</think>`;
/// otherwise the text before the last answer is enclosed in `<think>` tags. `<tool_call>` is removed. Errors with the short
/// name of what is missing: the reasoning or the answer.
pub fn repair(response: &str, mode: Mode) -> Result<String, &'static str> {
    let mut text = response.replace("<tool_call>", "");
    if !text.contains("<think>") {
        let pair = text.rfind("<answer>").filter(|&open| text[open..].contains("</answer>"));
        if text.contains("</think>") {
            text.insert_str(0, "<think>");
        } else if let Some(open) = pair {
            text = format!("<think>{}</think>{}", &text[..open], &text[open..]);
        }
    }
    let think = between(&text, "<think>", "</think>").ok_or("no_think")?;
    let after = text.split_once("</think>").filter(|_| mode == Mode::Strict);
    let last = after.and_then(|(_, after)| last_answer_tag(after));
    let answer = last.or_else(|| between(&text, "<answer>", "</answer>")).ok_or("no_answer")?;
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
            assert_eq!(repair(response, Mode::Compat).unwrap(), good, "{response}");
        }
        // Strict mode takes the answer that its scorer reads.
        for (response, first, last) in [
            ("<answer>1</answer> no, <answer>5</answer>", "1", "5"),
            ("<think><answer>2</answer>? No.</think><answer>-7</answer>", "2", "-7"),
            ("<think>It goes in <answer></answer>.</think>So <answer>5</answer>", "", "5"),
            ("<think><answer>2</answer></think>2", "2", "2"),
            ("<think>In <answer></answer> tags.</think><answer>5</answer> (inside <answer> tags)", "", "5"),
        ] {
            for (mode, answer) in [(Mode::Compat, first), (Mode::Strict, last)] {
                let repaired = repair(response, mode).unwrap();
                assert!(repaired.ends_with(&format!("</think><answer>{answer}</answer>")), "{repaired}");
            }
        }
        for (response, why) in [
            ("", "no_think"),
            ("The answer is 5.", "no_think"),
            ("<think>t", "no_think"),
            ("<think>t</think>5", "no_answer"),
            ("<think>t<answer>5", "no_think"),
            ("t</think><answer>5", "no_answer"),
        ] {
            assert_eq!(repair(response, Mode::Compat), Err(why), "{response}");
            assert_eq!(repair(response, Mode::Strict), Err(why), "{response}");
        }
    }
}
