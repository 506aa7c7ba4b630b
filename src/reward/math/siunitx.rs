//! The commands of siunitx: quantities as a number and `\text` with the names of their units.

/// Commands and how many arguments they have: a number, a unit, or both.
const COMMANDS: [(&str, bool, bool); 8] = [
    ("SI", true, true),
    ("qty", true, true),
    ("SIrange", true, true),
    ("si", false, true),
    ("unit", false, true),
    ("num", true, false),
    ("ang", true, false),
    ("numproduct", true, false),
];

/// The text with such commands written out; `None` when there are none.
pub(super) fn plain(text: &str) -> Option<String> {
    let (mut out, mut rest, mut found) = (String::new(), text, false);
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let end = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        let (name, behind) = rest.split_at(end);
        let command = COMMANDS.iter().find(|c| c.0 == name && behind.starts_with(['{', '[']));
        let Some((written, after)) = command.and_then(|c| write(c, behind)) else {
            out.push('\\');
            continue;
        };
        found = true;
        out.push_str(&written);
        rest = after;
    }
    out.push_str(rest);
    found.then_some(out)
}

fn write<'a>(command: &(&str, bool, bool), text: &'a str) -> Option<(String, &'a str)> {
    let mut rest = text;
    if let Some(options) = rest.strip_prefix('[') {
        rest = options.split_once(']')?.1;
    }
    let mut out = String::new();
    if command.1 {
        let (number, after) = group(rest)?;
        rest = after;
        out.push_str(&match command.0 {
            "ang" => angle(number),
            _ => number.replace(' ', ""),
        });
    }
    if command.2 {
        // Between number and unit something may stand that is set before the number: a currency.
        if let Some(options) = rest.strip_prefix('[') {
            rest = options.split_once(']')?.1;
        }
        let (unit, after) = group(rest)?;
        rest = after;
        out.push_str(&format!(" \\text{{{}}} ", words(unit)));
    }
    Some((out, rest))
}

fn group(text: &str) -> Option<(&str, &str)> {
    let inner = text.strip_prefix('{')?;
    let mut depth = 1;
    for (i, c) in inner.char_indices() {
        depth += i32::from(c == '{') - i32::from(c == '}');
        if depth == 0 {
            return Some((&inner[..i], &inner[i + 1..]));
        }
    }
    None
}

/// `30;15;20` as degrees, minutes and seconds.
fn angle(text: &str) -> String {
    let marks = ["^\\circ ", "'", "''"];
    text.split(';').zip(marks).filter(|(n, _)| !n.trim().is_empty()).map(|(n, m)| format!("{}{m}", n.trim())).collect()
}

/// The words of a unit in macros: `\kilo\metre\per\second\squared`; letters with points between them stay.
fn words(unit: &str) -> String {
    let mut out = String::new();
    let mut rest = unit;
    while let Some(c) = rest.chars().next() {
        if let Some(macros) = rest.strip_prefix('\\') {
            let end = macros.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(macros.len());
            let (name, behind) = macros.split_at(end);
            rest = behind;
            match name {
                // A prefix joins the unit behind it.
                "kilo" | "mega" | "giga" | "tera" | "peta" | "exa" | "zetta" | "yotta" | "hecto" | "deca" | "deka"
                | "deci" | "centi" | "milli" | "micro" | "nano" | "pico" | "femto" | "atto" | "zepto" | "yocto"
                | "kibi" | "mebi" | "gibi" | "tebi" => {
                    out.push(' ');
                    out.push_str(name);
                    // The unit itself, without a space.
                    if let Some(unit) = rest.strip_prefix('\\') {
                        let end = unit.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(unit.len());
                        out.push_str(&unit[..end]);
                        rest = &unit[end..];
                    }
                    out.push(' ');
                }
                "tothe" | "raiseto" => {
                    if let Some((power, behind)) = group(rest) {
                        out.truncate(out.trim_end().len());
                        out.push_str(&format!("^{power} "));
                        rest = behind;
                    }
                }
                "of" | "highlight" | "cancel" => {}
                "degreeCelsius" | "celsius" => out.push_str(" celsius "),
                "degree" => out.push_str(" deg "),
                "percent" => out.push_str(" % "),
                "cdot" | "," | "" => out.push(' '),
                name => out.push_str(&format!(" {name} ")),
            }
        } else {
            out.push(if matches!(c, '.' | '~') { ' ' } else { c });
            rest = &rest[c.len_utf8()..];
        }
    }
    out.split_whitespace().collect::<Vec<_>>().join(" ")
}
