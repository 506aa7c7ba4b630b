//! Classifies labels by their form (letter, number, fraction, ...) for an overview of a data set.

use std::sync::LazyLock;

use regex::Regex;

/// Kinds of labels with the pattern of each; the first match is used.
static KINDS: LazyLock<Vec<(&str, Regex)>> = LazyLock::new(|| {
    let number = r"[-+]?(\d{1,3}(,\d{3})+|\d+)";
    let fraction = format!(r"{number}\s*/\s*{number}|[-+]?\\[dt]?frac\s*\{{?[^{{}}]+\}}?\s*\{{?[^{{}}]+\}}?");
    let with_unit = format!(r"[$€£¥]?\s*{number}(\.\d+)?\s*(\\?%|°|\\circ|[a-zµμω°/²³^\\{{}} 0-9-]{{1,24}})");
    let look = |pattern: &str| Regex::new(&format!("(?is)^(?:{pattern})$")).expect("a pattern of this table");
    vec![
        ("a letter", look(r"\(?[a-j]\)?\.?")),
        ("yes or no", look("yes|no|true|false")),
        ("a whole number", look(number)),
        ("a decimal", look(&format!(r"{number}?\.\d+(e[-+]?\d+)?"))),
        ("a fraction", look(&fraction)),
        ("an expression", look(r".*(\\(sqrt|[dt]?frac|pi|times|cdot|left|log|ln|sin|cos|tan)|[=<>+*_]).*")),
        ("a number with a unit", look(&with_unit)),
        ("several", look(r"[\[({].*,.*[\])}]|[^,;]{1,40}([,;][^,;]{1,40})+")),
        ("an expression", look(r".*[\\^=<>+*/_].*")),
        ("a word", look(r"\S{1,40}")),
        ("a text", look(".*")),
    ]
});

/// Returns the kind of a label. Surrounding `$` and one surrounding `\boxed{}` are ignored.
pub fn kind(answer: &str) -> &'static str {
    let bare = answer.trim().trim_matches('$').trim();
    let inner = bare.strip_prefix("\\boxed{").and_then(|rest| rest.strip_suffix('}')).unwrap_or(bare).trim();
    KINDS.iter().find(|(_, look)| look.is_match(inner)).map_or("a text", |(kind, _)| kind)
}

#[cfg(test)]
mod tests {
    use super::kind;

    #[test]
    fn answers_are_of_the_kind_they_look_like() {
        for (want, answers) in [
            ("a letter", &["B", "(c)", "\\boxed{A}", "D."][..]),
            ("yes or no", &["Yes", "false"]),
            ("a whole number", &["7", "-12", "1,234", "$42$"]),
            ("a decimal", &["3.14", "-.5", "2.0e-3"]),
            ("a fraction", &["3/4", "\\frac{1}{2}", "\\boxed{\\frac{1}{2}}"]),
            ("a number with a unit", &["12 cm", "45°", "30%", "$5 m/s$", "6 \\mathrm"]),
            ("several", &["1, 2", "(3, 4)", "[1,2,3]"]),
            ("an expression", &["x^2+1", "2\\sqrt{3}", "y = 3"]),
            ("a word", &["blue"]),
            ("a text", &["the red one", ""]),
        ] {
            answers.iter().for_each(|answer| assert_eq!(kind(answer), want, "{answer}"));
        }
    }
}
