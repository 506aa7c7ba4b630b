//! Playing cards: `Q♦` is the queen of diamonds.

const SUITS: [(&str, &str, &str); 4] = [
    ("spade", "\u{2660}\u{2664}", "spadesuit"),
    ("heart", "\u{2665}\u{2661}", "heartsuit"),
    ("diamond", "\u{2666}\u{2662}", "diamondsuit"),
    ("club", "\u{2663}\u{2667}", "clubsuit"),
];

const RANKS: [(&str, &str); 13] = [
    ("ace", "a"),
    ("king", "k"),
    ("queen", "q"),
    ("jack", "j"),
    ("ten", "10"),
    ("nine", "9"),
    ("eight", "8"),
    ("seven", "7"),
    ("six", "6"),
    ("five", "5"),
    ("four", "4"),
    ("three", "3"),
    ("two", "2"),
];

/// Whether two texts name the same card; `None` where one of them names none.
pub fn same_card(gold: &str, answer: &str) -> Option<bool> {
    Some(card(gold)? == card(answer)?)
}

/// A card by the places of its rank and suit.
fn card(text: &str) -> Option<(usize, usize)> {
    let text = text.trim().trim_end_matches('.').to_lowercase().replace('\u{fe0f}', "");
    let text = text.strip_prefix("the ").unwrap_or(&text);
    let rank = |w: &str| RANKS.iter().position(|r| r.0 == w.trim() || r.1 == w.trim());
    if let Some((r, s)) = text.split_once(" of ") {
        return Some((rank(r)?, SUITS.iter().position(|u| s.strip_suffix('s') == Some(u.0))?));
    }
    let text = text.replace('$', "");
    let suit = SUITS.iter().enumerate().find_map(|(n, u)| {
        let sign = |c: char| u.1.contains(c);
        let rest = text.strip_suffix(sign).or_else(|| text.strip_prefix(sign));
        let rest = rest.or_else(|| text.strip_suffix(u.2).and_then(|t| t.strip_suffix('\\')));
        rest.map(|r| (n, r.to_owned()))
    })?;
    Some((rank(&suit.1)?, suit.0))
}
