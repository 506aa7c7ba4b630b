//! Genotypes and how often each comes: "1 AA : 2 Aa : 1 aa", "AA:Aa:aa = 1:2:1", "25% AA, 50% Aa, 25% aa". The case of
//! a letter tells one allele from the other.

use super::super::words::tables::{all_as, is_wordless, replaced};

/// The kinds and their shares, in the order of the kinds.
fn read(text: &str) -> Option<Vec<(String, f64)>> {
    let text = all_as(replaced(text, &[("\\%", "%")]), &["\\text", "\\mathrm", "$", "{", "}"], "");
    let text = replaced(text.trim().trim_end_matches('.'), &[(" and ", ", "), (",,", ",")]);
    let kind = |t: &str| (1..=6).contains(&t.len()) && t.chars().all(|c| c.is_ascii_alphabetic());
    let share = |t: &str| {
        let t = t.trim_end_matches('%');
        match t.split_once('/') {
            Some((a, b)) => Some(a.parse::<f64>().ok()? / b.parse::<f64>().ok()?),
            None => t.parse::<f64>().ok(),
        }
    };
    let mut all: Vec<(String, f64)> = match text.split_once('=') {
        Some((kinds, shares)) => {
            let (kinds, shares): (Vec<_>, Vec<_>) =
                (kinds.split(':').map(str::trim).collect(), shares.split(':').map(str::trim).collect());
            (kinds.len() == shares.len() && kinds.iter().all(|k| kind(k))).then_some(())?;
            kinds.into_iter().zip(shares).map(|(k, s)| Some((k.to_owned(), share(s)?))).collect::<Option<_>>()?
        }
        None => text
            .split([':', ','])
            .map(|part| {
                let (s, k) = part.trim().split_once(' ')?;
                kind(k.trim()).then_some(())?;
                Some((k.trim().to_owned(), share(s.trim())?))
            })
            .collect::<Option<_>>()?,
    };
    let whole: f64 = all.iter().map(|p| p.1).sum();
    let sound = all.len() > 1 && whole.is_finite() && whole > 0.0 && all.iter().all(|p| p.1 >= 0.0);
    // Genotypes, not units: one letter in two cases.
    let both = all.iter().any(|p| p.0.chars().any(char::is_uppercase))
        && all.iter().any(|p| p.0.chars().any(char::is_lowercase));
    let letters = |k: &str| k.to_lowercase();
    let alike = all.iter().all(|p| letters(&p.0) == letters(&all[0].0));
    (sound && both && alike).then_some(())?;
    all.iter_mut().for_each(|p| p.1 /= whole);
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all.windows(2).all(|w| w[0].0 != w[1].0).then_some(all)
}

pub(super) fn same(gold: &str, answer: &str) -> Option<bool> {
    if is_wordless(gold) || is_wordless(answer) {
        return None;
    }
    let (a, b) = (read(gold)?, read(answer)?);
    Some(a.len() == b.len() && a.iter().zip(&b).all(|(x, y)| x.0 == y.0 && (x.1 - y.1).abs() < 1e-9))
}
