//! Distributions of probability by their names: `X \sim B(10, 0.3)` and "Binomial(n = 10, p = 0.3)".

use super::Steps;
use super::compare::equal;
use super::parse::parse;

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
    let (Some((f, p, sure)), Some((g, q, certain))) = (read(a), read(b)) else { return false };
    if f != g || p.len() != q.len() || !(sure || certain) {
        return false;
    }
    p.iter().zip(&q).all(|(x, y)| equal(&parse(x, true, steps), &parse(y, true, steps), steps).equal)
}

/// Which distribution, its parameters, and whether it can be nothing else.
fn read(text: &str) -> Option<(usize, Vec<String>, bool)> {
    if text.len() > 160 {
        return None;
    }
    let mut plain = text.replace("\\left", "").replace("\\right", "").replace('$', "").replace("\\,", " ");
    for face in ["\\text", "\\mathrm", "\\mathcal", "\\operatorname", "\\mathbf", "\\textbf", "\\rm"] {
        plain = plain.replace(face, "");
    }
    let plain = plain.replace("\\sim", "~").replace('\u{223c}', "~").replace('\\', "").replace(['{', '}'], "");
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
