//! Distributions of probability by their names: `X \sim B(10, 0.3)` and "Binomial(n = 10, p = 0.3)".

use super::Steps;
use super::compare::equal;
use super::parse::parse;
use crate::reward::words::tables::{all_as, is_wordless, replaced};

/// Names of one distribution, in lower case.
const NAMES: [&[&str]; 15] = [
    &["b", "bin", "binom", "binomial"],
    &["n", "norm", "normal", "gaussian", "gauss"],
    &["po", "pois", "poi", "poisson"],
    &["exp", "exponential", "expo"],
    &["u", "unif", "uniform"],
    &["geo", "geom", "geometric"],
    &["ber", "bern", "bernoulli", "be"],
    &["nb", "negbin", "negativebinomial", "negative binomial"],
    &["gamma", "\u{3b3}", "ga"],
    &["beta"],
    &["chi^2", "chi2", "chi-squared", "chi squared", "chi-square", "\u{3c7}^2", "\u{3c7}\u{b2}"],
    &["t", "student", "students t", "student t"],
    &["f"],
    &["hyp", "hypergeometric", "hypergeom", "hg"],
    &["multinomial", "mult", "multi"],
];

/// True when both are the same distribution with the same parameters.
pub(super) fn same_distribution(a: &str, b: &str, steps: &Steps) -> bool {
    let told = |t: &str| read(t).or_else(|| in_words(t, steps));
    let Some((f, p, sure)) = told(a) else { return false };
    let Some((g, q, certain)) = told(b) else { return false };
    if f != g || p.len() != q.len() || !(sure || certain) {
        return false;
    }
    p.iter().zip(&q).all(|(x, y)| equal(&parse(x, true, steps), &parse(y, true, steps), steps).equal)
}

/// A distribution in words: "a binomial distribution with n = 10 and p = 0.3", "normal with mean 50 and variance 16".
fn in_words(text: &str, steps: &Steps) -> Option<(usize, Vec<String>, bool)> {
    let lower = all_as(text.to_lowercase(), &["$"], "");
    let (head, rest) = lower.split_once(" with ")?;
    let words: Vec<&str> = head.split([' ', '-']).collect();
    let which = NAMES.iter().position(|all| all.iter().any(|n| n.len() > 3 && words.contains(n)))?;
    let rest = replaced(rest, &[("parameters ", ""), ("parameter ", ""), (" and ", ", ")]);
    let mut found: Vec<(String, String)> = Vec::new();
    for part in rest.trim_end_matches('.').split(", ") {
        let at = part.rfind([' ', '='])?;
        let name = part[..at].trim().trim_end_matches([' ', '=']).trim_end_matches(" of").trim();
        found.push((name.replace('\\', ""), part[at + 1..].trim().to_owned()));
    }
    let named = |names: &[&str]| found.iter().find(|(n, _)| names.contains(&n.as_str())).map(|(_, v)| v.clone());
    let parameters = match which {
        0 => vec![named(&["n", "number of trials"])?, named(&["p", "probability", "success probability"])?],
        1 => {
            let spread = named(&["variance", "sigma^2", "\u{3c3}^2", "\u{3c3}\u{b2}"])
                .or_else(|| named(&["standard deviation", "sd", "sigma", "\u{3c3}"]).map(|s| format!("({s})^2")));
            vec![named(&["mean", "mu", "\u{3bc}"])?, spread?]
        }
        2 | 3 => {
            vec![named(&["mean", "lambda", "\u{3bb}", "rate"]).filter(|_| which == 2 || named(&["mean"]).is_none())?]
        }
        5 | 6 => vec![named(&["p", "probability", "success probability"])?],
        _ => return None,
    };
    steps.spend(20)?;
    Some((which, parameters, true))
}

/// True for a distribution in words.
pub(super) fn is_worded(text: &str, steps: &Steps) -> bool {
    text.len() <= 160 && in_words(text, steps).is_some()
}

/// Which distribution, its parameters, and whether it can be nothing else.
fn read(text: &str) -> Option<(usize, Vec<String>, bool)> {
    if text.len() > 160 || is_wordless(text) {
        return None;
    }
    const FACES: [&str; 10] =
        ["\\left", "\\right", "$", "\\text", "\\mathrm", "\\mathcal", "\\operatorname", "\\mathbf", "\\textbf", "\\rm"];
    // Spaces and the sign of a distribution; of other commands the letters stay.
    const SIGNS: [(&str, &str); 3] = [("\\,", " "), ("\\sim", "~"), ("\u{223c}", "~")];
    let plain = all_as(replaced(all_as(text, &FACES, ""), &SIGNS), &["\\", "{", "}"], "");
    let mut sure = false;
    let mut body = plain.trim();
    for mark in ["~", " follows ", " is distributed as ", " has distribution ", " has a ", " is "] {
        if let Some((name, rest)) = body.split_once(mark)
            && name.trim().len() <= 3
        {
            (body, sure) = (rest.trim(), true);
            break;
        }
    }
    let body = body.strip_prefix("a ").or(body.strip_prefix("the ")).unwrap_or(body);
    let open = body.find('(').or_else(|| body.find('_'))?;
    let (name, rest) = body.split_at(open);
    let inner = match rest.strip_prefix('(') {
        Some(rest) => rest.strip_suffix(')')?,
        None => rest.strip_prefix('_')?,
    };
    let name = name.trim().to_lowercase();
    let name = name.strip_suffix("distribution").unwrap_or(&name).trim().trim_end_matches('_').trim();
    let which = NAMES.iter().position(|all| all.contains(&name))?;
    sure |= name.len() > 2;
    // n = 10 names a parameter.
    let value = |t: &str| t.rsplit_once('=').map_or(t, |(_, v)| v).trim().to_owned();
    let parts: Vec<String> = inner.split([',', ';']).map(value).collect();
    (parts.len() <= 4 && parts.iter().all(|p| !p.is_empty())).then_some((which, parts, sure))
}
