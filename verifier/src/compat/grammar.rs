//! Parses tokens to values by the published grammar: a list of elements that may follow a name, or an expression of
//! sets.

use std::sync::LazyLock;

use regex::Regex;

use super::lex::lex;
use super::number;
use super::terms::Reader;
use super::token::Kind;
use super::tree::{Sign, Tree, Value, negative, sum};
use crate::python::compiled;
use crate::steps::Steps;

/// Maximum number of members of a list.
const MAX_ITEMS: usize = 400;

/// Parses a rewritten formula. If that fails, parses only the text after the last of several equals signs.
pub(super) fn read(source: &str, steps: &Steps) -> Option<Value> {
    once(source, steps).or_else(|| {
        let last = last_side(source)?;
        once(last, steps)
    })
}

/// Returns the text after the last equals sign, if a formula without lists contains at least two.
fn last_side(source: &str) -> Option<&str> {
    if source.contains([',', ';']) {
        return None;
    }
    let bytes = source.as_bytes();
    let splits = |i: &usize| bytes[*i] == b'=' && !i.checked_sub(1).is_some_and(|j| b"\\<!>".contains(&bytes[j]));
    let at: Vec<usize> = (0..bytes.len()).filter(splits).collect();
    (at.len() >= 2).then(|| &source[at[at.len() - 1] + 1..])
}

/// Returns true for a formula that the published library takes for complex numbers or matrices. Its letters are then
/// not real.
fn is_complex(source: &str) -> bool {
    static SIGNS: LazyLock<Regex> = LazyLock::new(|| {
        compiled(concat!(
            r"\\mathbb\{C\}|\bi\b|\\text\{i\}|\\mathrm\{i\}|\\imath\b|\\det|\\operatorname\{(?:tr|rank|Re|Im)\}|",
            r"\\text\{(?:rank|Re|Im)\}|\\arg\{|\\Re\{|\\Im\{"
        ))
    });
    SIGNS.is_match(source)
}

fn once(source: &str, steps: &Steps) -> Option<Value> {
    static GROUPED: LazyLock<Regex> = LazyLock::new(|| compiled(r"^\s*-?[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?\s*$"));
    let tokens = lex(source, steps)?;
    let reader = Reader::new(&tokens, !is_complex(source), steps);
    let end = tokens.len();
    if tokens.is_empty() {
        return None;
    }
    let of_sets = |t: &str| matches!(t, "cup" | "cap" | "setminus" | "supset" | "subset" | "notin");
    if tokens.iter().any(|t| t.kind == Kind::Sign && of_sets(&t.text)) {
        return reader.combined(0, 0, 0).and_then(|(v, at)| (at == end).then_some(v));
    }
    if let Some((name, at)) = reader.names(0)
        && (reader.is(at, "=") || reader.is(at, "in"))
        && let Some((elements, at)) = reader.elements(at + 1, false, 0)
        && at == end
    {
        return Some(Value::Relation(Sign::Equal, Box::new(name), Box::new(gathered(elements)?)));
    }
    let (elements, at) = reader.elements(0, true, 0)?;
    if at != end {
        return None;
    }
    if GROUPED.is_match(source) {
        let digits = source.trim();
        let (sign, digits) = (digits.starts_with('-'), digits.trim_start_matches('-'));
        // A group that begins with zero is a decimal.
        let digits = if digits.starts_with('0') && !sign { digits.replace(',', ".") } else { digits.replace(',', "") };
        let value = number::read(&digits)?;
        return Some(Value::Tree(if sign { negative(value) } else { value }));
    }
    gathered(elements)
}

/// Combines the elements of a list without a name: a single element, or a set.
fn gathered(mut elements: Vec<Vec<Value>>) -> Option<Value> {
    Some(if elements.len() == 1 {
        let mut only = elements.pop()?;
        if only.len() == 1 { only.pop()? } else { Value::Set(only) }
    } else if elements.iter().all(|e| e.len() == 1) {
        Value::Set(elements.into_iter().flatten().collect())
    } else {
        Value::Set(elements.into_iter().map(Value::Tuple).collect())
    })
}

type Found<T> = Option<(T, usize)>;

impl Reader<'_> {
    /// Parses a name, or names in round brackets.
    fn names(&self, at: usize) -> Found<Value> {
        let name = |at: usize| {
            let named = matches!(self.kind(at), Some(Kind::Letter | Kind::Greek | Kind::Other | Kind::Accent));
            if named { self.atom(at, 0) } else { None }
        };
        if self.is(at, "(") {
            let (mut all, mut at) = (Vec::new(), at);
            loop {
                let (n, end) = name(at + 1)?;
                all.push(Value::Tree(n));
                at = end;
                if !self.is(at, ",") {
                    break;
                }
            }
            if !self.is(at, ")") {
                return None;
            }
            return Some((if all.len() == 1 { all.pop()? } else { Value::Tuple(all) }, at + 1));
        }
        name(at).map(|(n, end)| (Value::Tree(n), end))
    }

    /// Parses groups that are separated by semicolons. Each group contains elements that are separated by commas.
    fn elements(&self, at: usize, relations: bool, depth: usize) -> Found<Vec<Vec<Value>>> {
        let (mut all, mut at) = (vec![Vec::new()], at);
        loop {
            let (found, end) = self.element(at, relations, depth)?;
            all.last_mut()?.extend(found);
            if all.iter().map(Vec::len).sum::<usize>() > MAX_ITEMS {
                return None;
            }
            at = end + 1;
            if self.is(end, ";") {
                all.push(Vec::new());
            } else if !self.is(end, ",") {
                return Some((all, end));
            }
        }
    }

    /// Parses one element. An element with a plus-minus sign gives two values.
    fn element(&self, at: usize, relations: bool, depth: usize) -> Found<Vec<Value>> {
        if depth > super::terms::MAX_DEPTH {
            return None;
        }
        if let Some((set, end)) = self.set_atom(at, depth)
            && self.ends(end)
        {
            return Some((vec![set], end));
        }
        if self.is(at, "pm") {
            let (e, end) = self.expr(at + 1, depth + 1)?;
            return Some((vec![Value::Tree(negative(e.clone())), Value::Tree(e)], end));
        }
        let (first, at) = self.expr(at, depth + 1)?;
        if self.is(at, "pm") {
            let (second, end) = self.expr(at + 1, depth + 1)?;
            let plus = sum(first.clone(), second.clone());
            return Some((vec![Value::Tree(plus), Value::Tree(sum(first, negative(second)))], end));
        }
        if !relations {
            return Some((vec![Value::Tree(first)], at));
        }
        let (mut value, mut at) = (Value::Tree(first), at);
        while self.kind(at) == Some(Kind::Relation) {
            let sign = match self.text(at) {
                "=" | "==" => Some(Sign::Equal),
                "<" => Some(Sign::Less),
                "<=" => Some(Sign::AtMost),
                ">" => Some(Sign::Greater),
                ">=" => Some(Sign::AtLeast),
                "!=" => Some(Sign::Unequal),
                _ => None,
            };
            if self.is(at, "in") {
                return None;
            }
            let (right, end) = self.expr(at + 1, depth + 1)?;
            at = end;
            let right = Value::Tree(right);
            value = match sign {
                // An approximation is replaced by its left side, which is exact, unless that is a name.
                None if value.is_of_letters() => right,
                None => value,
                Some(sign) => value.related(sign, right),
            };
        }
        Some((vec![value], at))
    }

    /// Returns true if an element can end here.
    fn ends(&self, at: usize) -> bool {
        self.kind(at).is_none_or(|k| k == Kind::Close) || self.is(at, ",") || self.is(at, ";")
    }

    /// Parses an interval, a named set, or a tuple or set in brackets.
    fn set_atom(&self, open: usize, depth: usize) -> Found<Value> {
        self.steps.spend(4)?;
        if self.kind(open) == Some(Kind::Set) {
            let name = self.text(open).chars().next()?;
            return Some((if name == '0' { Value::Set(Vec::new()) } else { Value::Named(name) }, open + 1));
        }
        if self.kind(open) != Some(Kind::Open) {
            return None;
        }
        // If the formula continues after the bracket, the bracket is a factor and not a set.
        let close = self.closes[open]?;
        let text = self.text(open);
        if let Some(v) = self.interval(open, close, depth) {
            return v.map(|v| (v, close + 1));
        }
        if text == "{" && close == open + 1 {
            return Some((Value::Set(Vec::new()), close + 1));
        }
        let pair = (text, self.text(close));
        if !matches!(pair, ("(", ")") | ("\\(", "\\)") | ("[", "]") | ("{", "}") | ("\\{", "\\}")) {
            return None;
        }
        if !self.ends(close + 1) && !self.of_sets(close + 1) {
            return None;
        }
        let (elements, end) = self.elements(open + 1, true, depth + 1)?;
        if end != close {
            return None;
        }
        let value = if matches!(text, "{" | "\\{") {
            Value::Set(elements.into_iter().flatten().collect())
        } else {
            let mut all: Vec<Value> = elements.into_iter().flatten().collect();
            if all.len() == 1 { all.pop()? } else { Value::Tuple(all) }
        };
        Some((value, close + 1))
    }

    fn of_sets(&self, at: usize) -> bool {
        self.kind(at) == Some(Kind::Sign) && matches!(self.text(at), "cup" | "cap" | "setminus" | "supset" | "subset")
    }

    /// Parses two expressions in round or square brackets as an interval, unless the interval is empty. The inner
    /// option is `None` if the published library raises an exception.
    fn interval(&self, open: usize, close: usize, depth: usize) -> Option<Option<Value>> {
        let is_open = |text: &str| matches!(text, "(" | ")" | "\\(" | "\\)" | "lgroup" | "rgroup");
        let fits = |text: &str| is_open(text) || matches!(text, "[" | "]" | "lbrack" | "rbrack");
        if !fits(self.text(open)) || !fits(self.text(close)) || !(self.ends(close + 1) || self.of_sets(close + 1)) {
            return None;
        }
        let (left, middle) = self.expr(open + 1, depth + 1)?;
        if !self.is(middle, ",") {
            return None;
        }
        let (right, end) = self.expr(middle + 1, depth + 1)?;
        if end != close {
            return None;
        }
        let opens = [is_open(self.text(open)), is_open(self.text(close))];
        if left == right {
            return Some(Some(Value::Tuple(vec![Value::Tree(left), Value::Tree(right)])));
        }
        // The library raises an exception for ends that are not real.
        let unreal = |t: &Tree| {
            t.any(&|t| matches!(t, Tree::Symbol(_, false) | Tree::Constant("i") | Tree::Matrix(_) | Tree::Undefined))
        };
        if unreal(&left) || unreal(&right) {
            return Some(None);
        }
        let infinite = |t: &Tree| matches!(t, Tree::Infinite(_));
        let opens = [opens[0] || infinite(&left), opens[1] || infinite(&right)];
        Some(Some(Value::Interval([left, right], opens)))
    }

    /// Parses differences of unions of intersections.
    fn combined(&self, at: usize, level: usize, depth: usize) -> Found<Value> {
        const SIGNS: [(&str, char); 3] = [("setminus", '-'), ("cup", '+'), ("cap", '*')];
        if depth > super::terms::MAX_DEPTH {
            return None;
        }
        let Some((sign, name)) = SIGNS.get(level) else {
            return self.set_atom(at, depth);
        };
        let (mut left, mut at) = self.combined(at, level + 1, depth)?;
        for _ in 0..super::terms::MAX_DEPTH {
            if !self.is(at, sign) {
                break;
            }
            let (right, end) = self.combined(at + 1, level + 1, depth)?;
            let set = |v: Value| match v {
                Value::Tuple(items) if *name != '-' => Value::Set(items),
                v => v,
            };
            let (a, b) = (set(left), set(right));
            if !a.is_set() || !b.is_set() {
                return None;
            }
            left = Value::Combined(*name, Box::new(a), Box::new(b));
            at = end;
        }
        Some((left, at))
    }
}

impl Value {
    /// Returns true for sets. Tuples are not sets.
    pub(super) fn is_set(&self) -> bool {
        matches!(self, Value::Set(_) | Value::Interval(..) | Value::Named(_) | Value::Combined(..))
    }

    /// Returns true if the value consists only of letters.
    pub(super) fn is_of_letters(&self) -> bool {
        match self {
            Value::Tree(t) => t.is_of_letters(),
            Value::Tuple(all) | Value::Set(all) => !all.is_empty() && all.iter().all(Value::is_of_letters),
            _ => false,
        }
    }

    /// Adds one more relation. A chain relates each side to the next.
    fn related(self, sign: Sign, right: Value) -> Value {
        match self {
            Value::Chain(mut all) => {
                if let Some(Value::Relation(_, _, last)) = all.last() {
                    let last = last.clone();
                    all.push(Value::Relation(sign, last, Box::new(right)));
                }
                Value::Chain(all)
            }
            Value::Relation(s, a, b) => {
                let next = Value::Relation(sign, b.clone(), Box::new(right));
                Value::Chain(vec![Value::Relation(s, a, b), next])
            }
            left => Value::Relation(sign, Box::new(left), Box::new(right)),
        }
    }
}
