//! Currencies: their signs, names and codes, and their hundredths.

use super::Reading;
use crate::reward::math::Rational;

/// Signs of currencies and their names.
pub(in crate::reward::math) const CURRENCIES: [(char, &str); 18] = [
    ('$', "$"),
    ('\u{20ac}', "euro"),
    ('\u{a3}', "pound sterling"),
    ('\u{a5}', "yen"),
    ('\u{20b9}', "rupee"),
    ('\u{20a8}', "rupee"),
    ('\u{20a9}', "won"),
    ('\u{20bd}', "ruble"),
    ('\u{20ba}', "lira"),
    ('\u{20b1}', "peso"),
    ('\u{e3f}', "baht"),
    ('\u{20ab}', "dong"),
    ('\u{20a6}', "naira"),
    ('\u{20aa}', "shekel"),
    ('\u{20b4}', "hryvnia"),
    ('\u{20bf}', "bitcoin"),
    ('\u{20b8}', "tenge"),
    ('\u{20b5}', "cedi"),
];

/// Other names and codes of currencies.
const MONEYS: [(&str, &str); 93] = [
    ("$", "$"),
    ("usd", "$"),
    ("us$", "$"),
    ("us", "$"),
    ("dollar", "$"),
    ("us dollar", "$"),
    ("american dollar", "$"),
    ("dolar", "$"),
    ("dolare", "$"),
    ("buck", "$"),
    ("\u{434}\u{43e}\u{43b}\u{43b}\u{430}\u{440}\u{43e}\u{432}", "$"),
    ("eur", "euro"),
    ("euro", "euro"),
    ("\u{435}\u{432}\u{440}\u{43e}", "euro"),
    ("gbp", "pound sterling"),
    ("quid", "pound sterling"),
    ("pound", "pound sterling"),
    ("pound sterling", "pound sterling"),
    ("pounds sterling", "pound sterling"),
    ("british pound", "pound sterling"),
    ("jpy", "yen"),
    ("yen", "yen"),
    ("japanese yen", "yen"),
    ("inr", "rupee"),
    ("rs", "rupee"),
    ("rupee", "rupee"),
    ("indian rupee", "rupee"),
    ("rmb", "yuan"),
    ("cny", "yuan"),
    ("yuan", "yuan"),
    ("chinese yuan", "yuan"),
    ("renminbi", "yuan"),
    ("krw", "won"),
    ("won", "won"),
    ("korean won", "won"),
    ("rub", "ruble"),
    ("ruble", "ruble"),
    ("rouble", "ruble"),
    ("\u{440}\u{443}\u{431}", "ruble"),
    ("\u{440}\u{443}\u{431}\u{43b}\u{44c}", "ruble"),
    ("\u{440}\u{443}\u{431}\u{43b}\u{44f}", "ruble"),
    ("\u{440}\u{443}\u{431}\u{43b}\u{435}\u{439}", "ruble"),
    ("chf", "franc"),
    ("franc", "franc"),
    ("swiss franc", "franc"),
    ("brl", "real"),
    ("r", "real"),
    ("reais", "real"),
    ("mxn", "peso"),
    ("php", "peso"),
    ("peso", "peso"),
    ("try", "lira"),
    ("lira", "lira"),
    ("turkish lira", "lira"),
    ("thb", "baht"),
    ("baht", "baht"),
    ("vnd", "dong"),
    ("dong", "dong"),
    ("ngn", "naira"),
    ("naira", "naira"),
    ("ils", "shekel"),
    ("nis", "shekel"),
    ("shekel", "shekel"),
    ("uah", "hryvnia"),
    ("hryvnia", "hryvnia"),
    ("btc", "bitcoin"),
    ("bitcoin", "bitcoin"),
    ("kzt", "tenge"),
    ("sek", "krona"),
    ("krona", "krona"),
    ("kronor", "krona"),
    ("nok", "norwegian krone"),
    ("dkk", "danish krone"),
    ("czk", "koruna"),
    ("pln", "zloty"),
    ("zloty", "zloty"),
    ("huf", "forint"),
    ("forint", "forint"),
    ("zar", "rand"),
    ("rand", "rand"),
    ("aed", "dirham"),
    ("sar", "riyal"),
    ("idr", "rupiah"),
    ("rupiah", "rupiah"),
    ("pkr", "pakistani rupee"),
    ("bdt", "taka"),
    ("taka", "taka"),
    ("aud", "australian dollar"),
    ("cad", "canadian dollar"),
    ("australian dollar", "australian dollar"),
    ("canadian dollar", "canadian dollar"),
    ("sgd", "singapore dollar"),
    ("hkd", "hong kong dollar"),
];

/// Hundredths.
const PARTS: [(&str, &str); 15] = [
    ("c", "$"),
    ("p", "pound sterling"),
    ("cent", "$"),
    ("\u{a2}", "$"),
    ("penny", "$"),
    ("us cent", "$"),
    ("euro cent", "euro"),
    ("eurocent", "euro"),
    ("pence", "pound sterling"),
    ("penny", "pound sterling"),
    ("paisa", "rupee"),
    ("paise", "rupee"),
    ("kopeck", "ruble"),
    ("fen", "yuan"),
    ("centavo", "peso"),
];

/// The currency that a name or code says.
pub(in crate::reward::math) fn money(name: &str) -> Option<&'static str> {
    let lower = name.trim_end_matches('.').to_lowercase();
    let find = |n: &str| MONEYS.iter().find(|m| m.0 == n).map(|m| m.1);
    find(&lower).or_else(|| lower.strip_suffix('s').filter(|s| s.len() > 2).and_then(find))
}

/// The unit of a currency by the name that stands in [`CURRENCIES`].
pub(in crate::reward::math) fn currency(name: &str) -> Reading {
    Reading::thing(name)
}

/// The amounts of money that a word may mean.
pub(super) fn readings(name: &str) -> Option<Vec<Reading>> {
    if name.chars().count() < 3 && !matches!(name, "$" | "\u{a2}" | "p" | "c") {
        return None;
    }
    if let Some(known) = money(name) {
        return Some(vec![Reading::thing(known)]);
    }
    let one = match name {
        "pennies" => "penny",
        n => n.strip_suffix('s').unwrap_or(n),
    };
    let part = |over: i64, of: &str| Reading { size: Rational::new(over.into(), 100.into()), ..Reading::thing(of) };
    let parts: Vec<Reading> = PARTS.iter().filter(|p| p.0 == one || p.0 == name).map(|p| part(1, p.1)).collect();
    (!parts.is_empty()).then_some(parts)
}
