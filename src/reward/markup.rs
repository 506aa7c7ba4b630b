//! Elements and named characters of HTML in an answer.

/// HTML elements whose marks say nothing; of some that they begin a line.
const ELEMENTS: [(&str, &str); 38] = [
    ("b", ""),
    ("i", ""),
    ("u", ""),
    ("em", ""),
    ("strong", ""),
    ("span", ""),
    ("font", ""),
    ("mark", ""),
    ("small", ""),
    ("big", ""),
    ("code", ""),
    ("tt", ""),
    ("kbd", ""),
    ("center", ""),
    ("pre", "\n"),
    ("p", "\n"),
    ("div", "\n"),
    ("br", "\n"),
    ("hr", "\n"),
    ("h1", "\n"),
    ("h2", "\n"),
    ("h3", "\n"),
    ("h4", "\n"),
    ("ul", "\n"),
    ("ol", "\n"),
    ("li", "\n- "),
    ("html", ""),
    ("body", ""),
    ("blockquote", "\n"),
    ("section", "\n"),
    ("math", ""),
    ("var", ""),
    ("nobr", ""),
    ("s", ""),
    ("bos", ""),
    ("eos", ""),
    ("pad", ""),
    ("a", ""),
];

/// Named characters of HTML.
const ENTITIES: [(&str, &str); 62] = [
    ("lt", "<"),
    ("gt", ">"),
    ("amp", "&"),
    ("nbsp", " "),
    ("quot", "\""),
    ("apos", "'"),
    ("le", "\u{2264}"),
    ("ge", "\u{2265}"),
    ("ne", "\u{2260}"),
    ("times", "\u{d7}"),
    ("divide", "\u{f7}"),
    ("minus", "\u{2212}"),
    ("plusmn", "\u{b1}"),
    ("middot", "\u{b7}"),
    ("sdot", "\u{22c5}"),
    ("deg", "\u{b0}"),
    ("micro", "\u{b5}"),
    ("frac12", "\u{bd}"),
    ("frac14", "\u{bc}"),
    ("frac34", "\u{be}"),
    ("radic", "\u{221a}"),
    ("infin", "\u{221e}"),
    ("sup1", "\u{b9}"),
    ("sup2", "\u{b2}"),
    ("sup3", "\u{b3}"),
    ("ndash", "\u{2013}"),
    ("mdash", "\u{2014}"),
    ("hellip", "\u{2026}"),
    ("rarr", "\u{2192}"),
    ("larr", "\u{2190}"),
    ("rArr", "\u{21d2}"),
    ("hArr", "\u{21d4}"),
    ("isin", "\u{2208}"),
    ("cup", "\u{222a}"),
    ("cap", "\u{2229}"),
    ("empty", "\u{2205}"),
    ("asymp", "\u{2248}"),
    ("equiv", "\u{2261}"),
    ("sum", "\u{2211}"),
    ("prod", "\u{220f}"),
    ("int", "\u{222b}"),
    ("ang", "\u{2220}"),
    ("perp", "\u{22a5}"),
    ("prime", "\u{2032}"),
    ("Prime", "\u{2033}"),
    ("and", "\u{2227}"),
    ("or", "\u{2228}"),
    ("cent", "\u{a2}"),
    ("pound", "\u{a3}"),
    ("euro", "\u{20ac}"),
    ("yen", "\u{a5}"),
    ("lsquo", "\u{2018}"),
    ("rsquo", "\u{2019}"),
    ("ldquo", "\u{201c}"),
    ("rdquo", "\u{201d}"),
    ("permil", "\u{2030}"),
    ("pi", "\u{3c0}"),
    ("theta", "\u{3b8}"),
    ("alpha", "\u{3b1}"),
    ("beta", "\u{3b2}"),
    ("lambda", "\u{3bb}"),
    ("mu", "\u{3bc}"),
];

/// The text without the marks of elements, characters by themselves.
pub(super) fn without_html(text: &str) -> String {
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(at) = rest.find(['<', '&']) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        match if rest.starts_with('<') { element(rest) } else { entity(rest) } {
            Some((shown, length)) => {
                out.push_str(&shown);
                rest = &rest[length..];
            }
            None => {
                out.push_str(&rest[..1]);
                rest = &rest[1..];
            }
        }
    }
    out.push_str(rest);
    out
}

/// What the element's mark at the beginning of `text` stands for, and its length.
fn element(text: &str) -> Option<(String, usize)> {
    const LONGEST: usize = 120;
    let end = text.bytes().take(LONGEST).position(|b| b == b'>')?;
    let inner = text.get(1..end)?;
    // <|im_end|> and its kin end a model's turn.
    let special = inner.strip_prefix('|').and_then(|i| i.strip_suffix('|'));
    if special.is_some_and(|n| !n.is_empty() && n.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')) {
        return Some((" ".to_owned(), end + 1));
    }
    let (closing, inner) = inner.strip_prefix('/').map_or((false, inner), |i| (true, i));
    let name: String = inner.chars().take_while(char::is_ascii_alphanumeric).collect();
    let attributes = &inner[name.len()..];
    if !(attributes.is_empty() || attributes.starts_with([' ', '/'])) {
        return None;
    }
    let name = name.to_ascii_lowercase();
    let shown = match name.as_str() {
        "sup" => {
            if closing {
                "}"
            } else {
                "^{"
            }
        }
        "sub" => {
            if closing {
                "}"
            } else {
                "_{"
            }
        }
        name => ELEMENTS.iter().find(|e| e.0 == name).map(|e| if closing && e.1 == "\n- " { "" } else { e.1 })?,
    };
    Some((shown.to_owned(), end + 1))
}

/// The character that is named at the beginning of `text`, and the length of its name.
fn entity(text: &str) -> Option<(String, usize)> {
    const LONGEST: usize = 12;
    let end = text.bytes().take(LONGEST).position(|b| b == b';')?;
    let name = text.get(1..end)?;
    let shown = match name.strip_prefix('#') {
        Some(code) => {
            let code = match code.strip_prefix(['x', 'X']) {
                Some(hex) => u32::from_str_radix(hex, 16),
                None => code.parse(),
            };
            char::from_u32(code.ok()?)?.to_string()
        }
        None => ENTITIES.iter().find(|e| e.0 == name)?.1.to_owned(),
    };
    Some((shown, end + 1))
}
