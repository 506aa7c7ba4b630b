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

/// A distribution in words: "a binomial distribution with n = 10 and p = 0.3", "normal with mean 50 and variance 16",
/// "uniformly distributed on [0, 1]", "the standard normal distribution".
fn in_words(text: &str, steps: &Steps) -> Option<(usize, Vec<String>, bool)> {
    const NOUNS: [&str; 6] = ["distribution", "distributed", "random variable", "variable", "law", "model"];
    if text.len() > 200 {
        return None;
    }
    let lower = all_as(text.to_lowercase(), &["$", "\\left", "\\right"], "");
    let told = |name: &&str| name.len() > 3 && name.bytes().all(|b| b.is_ascii_lowercase() || b == b' ');
    let begins = |at: usize| lower[..at].chars().next_back().is_none_or(|c| matches!(c, ' ' | '-'));
    let (which, name, at) = NAMES.iter().enumerate().find_map(|(which, all)| {
        let found = all.iter().copied().filter(told).filter_map(|name| Some((which, name, lower.find(name)?)));
        found.filter(|f| begins(f.2)).max_by_key(|f| f.1.len())
    })?;
    if lower.split(' ').any(|w| matches!(w, "not" | "discrete" | "never" | "no")) {
        return None;
    }
    let behind = &lower[at + name.len()..];
    let adverb = behind.strip_prefix("ly");
    let mut rest = adverb.unwrap_or(behind);
    let mut noun = false;
    rest = rest.trim_start();
    while let Some(tail) = NOUNS.iter().find_map(|n| rest.strip_prefix(n)) {
        (rest, noun) = (tail.trim_start(), true);
    }
    if adverb.is_some() && !noun {
        return None;
    }
    let rest = rest.trim_end_matches(['.', ' ']);
    steps.spend(20)?;
    if rest.is_empty() {
        let standard = which == 1 && lower[..at].ends_with("standard ");
        return standard.then(|| (which, vec!["0".to_owned(), "1".to_owned()], true));
    }
    // A uniform distribution by its interval.
    if name == "uniform" {
        let over = ["on ", "over ", "in "].iter().find_map(|w| rest.strip_prefix(w)).unwrap_or(rest);
        let over = ["the interval ", "the range "].iter().find_map(|w| over.strip_prefix(w)).unwrap_or(over);
        let ends = match over.strip_prefix(['[', '(']).and_then(|r| r.strip_suffix([']', ')'])) {
            Some(inner) => inner.split_once(','),
            None => over
                .strip_prefix("between ")
                .and_then(|r| r.split_once(" and "))
                .or_else(|| over.strip_prefix("from ").and_then(|r| r.split_once(" to "))),
        };
        let (low, high) = ends.filter(|(_, high)| !high.trim().contains([',', ' ']))?;
        return Some((which, vec![low.trim().to_owned(), high.trim().to_owned()], true));
    }
    let rest = ["with ", "of "].iter().find_map(|w| rest.strip_prefix(w))?;
    let rest = replaced(rest, &[("parameters ", ""), ("parameter ", ""), (" and ", ", ")]);
    let mut found: Vec<(String, String)> = Vec::new();
    for part in rest.split(", ") {
        let (name, value) = part.rfind([' ', '=']).map_or(("", part), |at| (&part[..at], &part[at + 1..]));
        let name = name.trim().trim_end_matches([' ', '=']).trim_end_matches(" of").trim();
        found.push((name.replace('\\', ""), value.trim().to_owned()));
    }
    let unnamed = found.iter().all(|(n, _)| n.is_empty());
    let named = |names: &[&str]| found.iter().find(|(n, _)| names.contains(&n.as_str())).map(|(_, v)| v.clone());
    let parameters = match which {
        0 if unnamed && found.len() == 2 => found.iter().map(|(_, v)| v.clone()).collect(),
        2 | 3 | 5 | 6 if unnamed && found.len() == 1 => vec![found[0].1.clone()],
        0 => vec![named(&["n", "number of trials"])?, named(&["p", "probability", "success probability"])?],
        1 => {
            let spread = named(&["variance", "sigma^2", "\u{3c3}^2", "\u{3c3}\u{b2}"])
                .or_else(|| named(&["standard deviation", "sd", "sigma", "\u{3c3}"]).map(|s| format!("({s})^2")));
            vec![named(&["mean", "mu", "\u{3bc}"])?, spread?]
        }
        2 => vec![named(&["mean", "lambda", "\u{3bb}", "rate"])?],
        // Its sign holds the rate.
        3 => vec![named(&["lambda", "\u{3bb}", "rate"]).or_else(|| named(&["mean"]).map(|m| format!("1/({m})")))?],
        5 | 6 => vec![named(&["p", "probability", "success probability"])?],
        _ => return None,
    };
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
    const FACES: [&str; 12] = [
        "\\left",
        "\\right",
        "$",
        "\\text",
        "\\mathrm",
        "\\mathcal",
        "\\operatorname",
        "\\mathbf",
        "\\textbf",
        "\\rm",
        "\\bigl",
        "\\bigr",
    ];
    // Spaces and the sign of a distribution.
    const SIGNS: [(&str, &str); 3] = [("\\,", " "), ("\\sim", "~"), ("\u{223c}", "~")];
    let plain = replaced(all_as(text, &FACES, ""), &SIGNS);
    let mut sure = false;
    let mut body = plain.trim().trim_end_matches('.');
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
    // Of a command the letters stay.
    let name = all_as(name, &["\\", "{", "}"], "").trim().to_lowercase();
    let name = name.strip_suffix("distribution").unwrap_or(&name).trim().trim_end_matches('_').trim();
    let which = NAMES.iter().position(|all| all.contains(&name))?;
    sure |= name.len() > 2;
    // n = 10 names a parameter.
    let value = |t: &str| t.rsplit_once('=').map_or(t, |(_, v)| v).trim().to_owned();
    let parts: Vec<String> = inner.split([',', ';']).map(value).collect();
    (parts.len() <= 4 && parts.iter().all(|p| !p.is_empty())).then_some((which, parts, sure))
}
