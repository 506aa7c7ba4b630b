//! Ratios, scales and times with a colon: `2 : 3`, `1 cm : 250 m`, `6:45 PM`, `1 in 4`.

use super::expr::Expr;
use super::lex::{Tok, Token};
use super::parse::{Reader, Value, is_word, split};
use super::region::{Region, Span};
use super::relation::name_of;
use super::scalar::{is, scalar, scalar_with_unit, shown};
use super::unit::Unit;

impl Reader<'_> {
    /// `2 : 3`, `6:45 PM`.
    pub(super) fn ratio(&self, tokens: &[Token], depth: usize) -> Option<Option<Value>> {
        // 1 in 4, 1 out of 4, 3 to 5.
        let word = |n: usize, w: &str| matches!(tokens.get(n).map(|t| &t.tok), Some(Tok::Word(t)) if t == w);
        let number = |n: usize| matches!(tokens.get(n).map(|t| &t.tok), Some(Tok::Num(_)));
        let between = usize::from(word(1, "in") || word(1, "to")) + 2 * usize::from(word(1, "out") && word(2, "of"));
        if between > 0 && number(0) && number(1 + between) && tokens.len() == 2 + between {
            let both = (scalar(&tokens[..1], self.steps)?, scalar(&tokens[1 + between..], self.steps)?);
            return Some(Some(Value::Ratio(vec![both.0, both.1])));
        }
        let counted = |part: &&[Token]| matches!(part.first().map(|t| &t.tok), Some(Tok::Num(_)));
        let said = split(tokens, |t| is_word(t, &["to"]))?;
        let parts = match split(tokens, |t| *t == Tok::Sym(':'))? {
            // 2 to 3 to 5
            one if one.len() < 2 && said.len() > 1 && said.iter().all(counted) => said,
            parts => parts,
        };
        if parts.len() < 2 {
            return None;
        }
        let colon = tokens.iter().any(|t| is(Some(t), ':'));
        if let Some(ratio) = self.measured_ratio(&parts, !colon) {
            return Some(Some(ratio));
        }
        // median: 4
        if let [name, value] = parts.as_slice()
            && let Some(name) = name_of(name).filter(|n| n.len() > 2 && n.chars().all(|c| c.is_alphabetic()))
        {
            return Some(self.value(value, depth + 1).map(|v| Value::Assignment(name, Box::new(v))));
        }
        let last = parts.last()?;
        let behind: String = last[1.min(last.len())..].iter().map(|t| shown(&t.tok).to_lowercase()).collect();
        let half = match behind.replace(['.', ' '], "").as_str() {
            "am" => Some(0),
            "pm" => Some(12),
            _ => None,
        };
        if let ([[Token { tok: Tok::Num(h), .. }], [Token { tok: Tok::Num(m), .. }, ..]], Some(half)) =
            (parts.as_slice(), half)
        {
            let (h, m) = (h.parse::<u32>().ok()?, m.parse::<u32>().ok()?);
            return Some((h <= 12 && m < 60).then_some(Value::Time((h % 12 + half) * 60 + m)));
        }
        let exprs: Option<Vec<Expr>> = parts.iter().map(|p| scalar(p, self.steps)).collect();
        Some(exprs.map(Value::Ratio))
    }

    /// `a : b = 7 : 3`.
    pub(super) fn named_ratio(&self, sides: &[&[Token]], depth: usize) -> Option<Value> {
        let [names, values] = sides else { return None };
        let names: Vec<String> =
            split(names, |t| *t == Tok::Sym(':'))?.into_iter().map(name_of).collect::<Option<_>>()?;
        match self.value(values, depth + 1)? {
            Value::Ratio(parts) if names.len() > 1 && parts.len() == names.len() => {
                Some(Value::Assignment(names.join(":"), Box::new(Value::Ratio(parts))))
            }
            _ => None,
        }
    }

    /// `1 cm : 250 m`, each part in a unit of one kind; in one unit and with "to" it is a range.
    fn measured_ratio(&self, parts: &[&[Token]], said: bool) -> Option<Value> {
        let amounts: Vec<(Expr, Unit)> = parts
            .iter()
            .map(|p| scalar_with_unit(p, self.steps).and_then(|(e, u)| Some((e, u?))))
            .collect::<Option<_>>()?;
        let Unit::Measure(first) = &amounts.first()?.1 else { return None };
        let sized = amounts.iter().map(|(e, u)| {
            let Unit::Measure(m) = u else { return None };
            let reading = m.0.iter().find(|r| r.is_like(first.first()))?;
            Some(Expr::Mul(vec![e.clone(), super::expr::number(reading.size.clone())]))
        });
        let sized: Vec<Expr> = sized.collect::<Option<_>>()?;
        if let ([low, high], true) = (sized.as_slice(), said && amounts.iter().all(|a| a.1 == amounts[0].1)) {
            let span = Span { low: low.clone(), low_closed: true, high: high.clone(), high_closed: true };
            return Some(Value::Region(Region::new(vec![span])));
        }
        Some(Value::Ratio(sized))
    }
}

/// A ratio with named parts in the order of other names.
pub(super) fn reordered(names: &str, value: &Value, order: &str) -> Option<Value> {
    let Value::Ratio(parts) = value else { return None };
    let names: Vec<&str> = names.split(':').collect();
    let part = |name: &str| names.iter().position(|n| *n == name).and_then(|n| parts.get(n)).cloned();
    let sorted: Vec<Expr> = order.split(':').map(part).collect::<Option<_>>()?;
    (sorted.len() == names.len() && names.len() > 1).then_some(Value::Ratio(sorted))
}
