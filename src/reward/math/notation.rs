//! Other names of commands, and Unicode notation as ASCII or LaTeX.

use crate::reward::python;
use crate::reward::words::tables::replaced;

/// Commands that only change how things look.
pub(super) const INVISIBLE: [&str; 34] = [
    "left",
    "right",
    "big",
    "Big",
    "bigg",
    "Bigg",
    "bigl",
    "bigr",
    "Bigl",
    "Bigr",
    "biggl",
    "biggr",
    "Biggl",
    "Biggr",
    "displaystyle",
    "textstyle",
    "scriptstyle",
    "limits",
    "nolimits",
    "quad",
    "qquad",
    "boldsymbol",
    "middle",
    "mathstrut",
    "boxed",
    "fbox",
    "bf",
    "it",
    "rm",
    "strut",
    "thinspace",
    "enspace",
    "large",
    "Large",
];

/// Commands with an argument that is only set in another face.
pub(super) const FACES: [&str; 22] = [
    "text",
    "mathrm",
    "textbf",
    "textit",
    "mathbf",
    "mathit",
    "mbox",
    "textrm",
    "operatorname",
    "mathsf",
    "texttt",
    "mathtt",
    "textsf",
    "emph",
    "underline",
    "hbox",
    "textnormal",
    "textup",
    "bm",
    "mathnormal",
    "mathop",
    "tt",
];

/// Commands whose argument says nothing about the value.
pub(super) const DROPPED: [&str; 9] =
    ["phantom", "hspace", "vspace", "label", "tag", "color", "textcolor", "hphantom", "vphantom"];

/// Other names of commands.
pub(super) fn canonical(name: &str) -> &str {
    match name {
        "dfrac" | "tfrac" | "cfrac" | "nicefrac" | "sfrac" | "flatfrac" => "frac",
        "dbinom" | "tbinom" => "binom",
        "leq" | "leqslant" | "leqq" => "le",
        "geq" | "geqslant" | "geqq" => "ge",
        "neq" => "ne",
        "lt" => "<",
        "gt" => ">",
        "times" | "ast" => "cdot",
        "simeq" | "thickapprox" | "doteq" => "approx",
        "varnothing" | "O" => "emptyset",
        "lbrace" => "{",
        "rbrace" => "}",
        "lbrack" => "[",
        "rbrack" => "]",
        "lparen" => "(",
        "rparen" => ")",
        "degree" | "textdegree" | "degrees" => "circ",
        "arcsinh" | "arsinh" | "asinh" => "arcsinh",
        "arccosh" | "arcosh" | "acosh" => "arccosh",
        "arctanh" | "artanh" | "atanh" => "arctanh",
        "arcoth" | "acoth" => "arccoth",
        "arsech" | "asech" => "arcsech",
        "arcsch" | "acsch" => "arccsch",
        "asin" => "arcsin",
        "acos" => "arccos",
        "atan" | "arctg" => "arctan",
        "tg" => "tan",
        "ctg" => "cot",
        "cosec" => "csc",
        "mid" | "vert" | "lvert" | "rvert" | "mathbin" => "|",
        "lVert" | "rVert" | "Vert" | "Vert " => "Vert",
        "bigcup" | "sqcup" => "cup",
        "bigcap" => "cap",
        "smallsetminus" | "backslash" => "setminus",
        "dots" | "ldots" | "cdots" | "dotsc" | "dotsb" | "vdots" => "dots",
        "infin" => "infty",
        "percent" => "%",
        "colon" => ":",
        "vee" => "lor",
        "wedge" => "land",
        "to" | "longrightarrow" => "rightarrow",
        "longmapsto" => "mapsto",
        "lnot" => "neg",
        "implies" | "Longrightarrow" | "iff" | "Leftrightarrow" => "Rightarrow",
        "text dollar" | "textdollar" => "$",
        "varepsilon" => "epsilon",
        "varphi" => "phi",
        "vartheta" => "theta",
        "prime" => "'",
        n => n,
    }
}

/// Unicode notation as ASCII or LaTeX.
fn plain(c: char) -> Option<&'static str> {
    Some(match c {
        '\u{2212}' | '\u{2013}' | '\u{2010}' | '\u{2011}' | '\u{fe63}' => "-",
        '\u{d7}' | '\u{b7}' | '\u{22c5}' | '\u{2217}' | '\u{2219}' | '\u{2022}' => "*",
        '\u{2062}' | '\u{2061}' | '\u{200b}' | '\u{feff}' | '\u{2060}' => " ",
        '\u{f7}' | '\u{2215}' | '\u{2044}' => "/",
        '\u{2236}' => ":",
        '\u{221a}' => "\\sqrt ",
        '\u{221b}' => "\\sqrt[3] ",
        '\u{221c}' => "\\sqrt[4] ",
        '\u{221e}' => "\\infty ",
        '\u{2264}' | '\u{2a7d}' | '\u{2266}' => "\\le ",
        '\u{2265}' | '\u{2a7e}' | '\u{2267}' => "\\ge ",
        '\u{2260}' => "\\ne ",
        '\u{2248}' | '\u{2243}' => "\\approx ",
        '\u{2261}' => "\\equiv ",
        '\u{b1}' => "\\pm ",
        '\u{2213}' => "\\mp ",
        '\u{222a}' => "\\cup ",
        '\u{2229}' => "\\cap ",
        '\u{2216}' => "\\setminus ",
        '\u{2208}' => "\\in ",
        '\u{2205}' | '\u{2300}' => "\\emptyset ",
        '\u{211d}' => "\\mathbb{R}",
        '\u{2124}' => "\\mathbb{Z}",
        '\u{2115}' => "\\mathbb{N}",
        '\u{211a}' => "\\mathbb{Q}",
        '\u{2102}' => "\\mathbb{C}",
        '\u{b0}' | '\u{ba}' => "\\circ ",
        '\u{b5}' => "\\mu ",
        '\u{2126}' => "\\Omega ",
        '\u{c5}' | '\u{212b}' => "\\AA ",
        '\u{2032}' | '\u{2019}' | '\u{2018}' => "'",
        '\u{2033}' => "''",
        '\u{2220}' => "\\angle ",
        '\u{25b3}' | '\u{2206}' => "\\triangle ",
        '\u{2211}' => "\\sum ",
        '\u{220f}' => "\\prod ",
        '\u{222b}' => "\\int ",
        '\u{2192}' => "\\rightarrow ",
        '\u{21d2}' | '\u{21d4}' => "\\Rightarrow ",
        '\u{27e8}' | '\u{2329}' => "\\langle ",
        '\u{27e9}' | '\u{232a}' => "\\rangle ",
        '\u{230a}' => "\\lfloor ",
        '\u{230b}' => "\\rfloor ",
        '\u{2308}' => "\\lceil ",
        '\u{2309}' => "\\rceil ",
        '\u{2223}' => "|",
        '\u{2227}' => "\\land ",
        '\u{2228}' => "\\lor ",
        '\u{2026}' => "\\dots ",
        '\u{a2}' => "\\text{cents}",
        '\u{2030}' => "\\text{permille}",
        '\u{223c}' => "\\sim ",
        '\u{ac}' => "\\neg ",
        '\u{21a6}' => "\\mapsto ",
        '\u{2218}' => "\\circ ",
        '\u{222c}' => "\\iint ",
        '\u{22a5}' => "\\perp ",
        '\u{2225}' => "\\parallel ",
        '\u{2234}' => " ",
        '\u{3001}' => ",",
        '\u{3002}' => ".",
        '\u{3010}' => "[",
        '\u{3011}' => "]",
        '\u{201c}' | '\u{201d}' => "\"",
        '\u{2103}' => "\\circ C",
        '\u{2109}' => "\\circ F",
        '\u{bd}' => " \\frac{1}{2}",
        '\u{bc}' => " \\frac{1}{4}",
        '\u{be}' => " \\frac{3}{4}",
        '\u{2153}' => " \\frac{1}{3}",
        '\u{2154}' => " \\frac{2}{3}",
        '\u{2155}' => " \\frac{1}{5}",
        '\u{2156}' => " \\frac{2}{5}",
        '\u{2157}' => " \\frac{3}{5}",
        '\u{2158}' => " \\frac{4}{5}",
        '\u{2159}' => " \\frac{1}{6}",
        '\u{215a}' => " \\frac{5}{6}",
        '\u{215b}' => " \\frac{1}{8}",
        '\u{215c}' => " \\frac{3}{8}",
        '\u{215d}' => " \\frac{5}{8}",
        '\u{215e}' => " \\frac{7}{8}",
        '\u{2150}' => " \\frac{1}{7}",
        '\u{2151}' => " \\frac{1}{9}",
        '\u{2152}' => " \\frac{1}{10}",
        _ => return None,
    })
}

/// Greek letters by code point from alpha and from Alpha.
const GREEK_SMALL: [&str; 25] = [
    "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu", "nu", "xi",
    "omicron", "pi", "rho", "sigma", "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega",
];

const GREEK_LARGE: [&str; 25] = [
    "A", "B", "Gamma", "Delta", "E", "Z", "H", "Theta", "I", "K", "Lambda", "M", "N", "Xi", "O", "Pi", "P", "",
    "Sigma", "T", "Upsilon", "Phi", "X", "Psi", "Omega",
];

/// A raised or lowered character: its plain form, and whether it is raised.
fn script(c: char) -> Option<(char, bool)> {
    const DIGITS: [char; 10] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9'];
    Some(match c {
        '\u{b2}' => ('2', true),
        '\u{b3}' => ('3', true),
        '\u{b9}' => ('1', true),
        '\u{2070}' | '\u{2074}'..='\u{2079}' => (DIGITS[(c as usize) - 0x2070], true),
        '\u{207a}' => ('+', true),
        '\u{207b}' => ('-', true),
        '\u{207d}' => ('(', true),
        '\u{207e}' => (')', true),
        '\u{207f}' => ('n', true),
        '\u{2071}' => ('i', true),
        '\u{2c7}' => return None,
        '\u{1d40}' => ('T', true),
        '\u{2e3}' => ('x', true),
        '\u{2080}'..='\u{2089}' => (DIGITS[(c as usize) - 0x2080], false),
        '\u{208a}' => ('+', false),
        '\u{208b}' => ('-', false),
        '\u{2099}' => ('n', false),
        '\u{2090}' => ('a', false),
        '\u{2093}' => ('x', false),
        '\u{1d62}' => ('i', false),
        '\u{2096}' => ('k', false),
        _ => return None,
    })
}

/// The text with Unicode notation written as ASCII or LaTeX.
pub fn ascii(text: &str) -> String {
    if text.is_ascii() {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len() + 16);
    let mut raised: Option<bool> = None;
    for c in text.chars() {
        let scripted = script(c);
        if raised.is_some() && scripted.map(|s| s.1) != raised {
            out.push('}');
            raised = None;
        }
        if let Some((sign, up)) = scripted {
            if raised.is_none() {
                out.push_str(if up { "^{" } else { "_{" });
                raised = Some(up);
            }
            out.push(sign);
            continue;
        }
        let code = c as usize;
        if let Some(s) = plain(c) {
            out.push_str(s);
        } else if let Some(name) = code.checked_sub(0x3b1).and_then(|i| GREEK_SMALL.get(i)) {
            out.push('\\');
            out.push_str(name);
            out.push(' ');
        } else if let Some(name) = code.checked_sub(0x391).and_then(|i| GREEK_LARGE.get(i)) {
            if name.len() > 1 {
                out.push('\\');
            }
            out.push_str(name);
            out.push(' ');
        } else if let 0xff01..=0xff5e = code {
            out.push(char::from((code - 0xff01 + 0x21) as u8));
        } else if let Some(d) = python::digit_value(c) {
            out.push(char::from(b'0' + d));
        } else if python::is_space(c) {
            out.push(' ');
        } else {
            out.push(c);
        }
    }
    if raised.is_some() {
        out.push('}');
    }
    out
}

/// The content of a text command as words and signs: spaces as such, signs of units in Unicode, no commands.
pub(super) fn upright(text: &str) -> String {
    if !text.contains(['\\', '~']) {
        return text.to_owned();
    }
    const SIGNS: [(&str, &str); 22] = [
        ("\\,", " "),
        ("\\;", " "),
        ("\\:", " "),
        ("\\ ", " "),
        ("~", " "),
        ("\\cdot", " * "),
        ("\\times", " * "),
        ("\\circ ", "\u{b0}"),
        ("\\circ", "\u{b0}"),
        ("\\degree", "\u{b0}"),
        ("$^\u{b0}$", "\u{b0}"),
        ("^{\u{b0}}", "\u{b0}"),
        ("^\u{b0}", "\u{b0}"),
        ("\\mu ", "\u{b5}"),
        ("\\mu", "\u{b5}"),
        ("\\Omega ", "\u{3a9}"),
        ("\\Omega", "\u{3a9}"),
        ("\\AA", "\u{c5}"),
        ("\\text{", "{"),
        ("\\mathrm{", "{"),
        ("\\rm ", ""),
        ("\\quad", " "),
    ];
    let mut text = text.to_owned();
    for command in ["\\dfrac", "\\tfrac", "\\frac"] {
        while let Some((before, over, under, after)) = fraction(&text, command) {
            text = format!("{before}({over})/({under}){after}");
        }
    }
    replaced(replaced(text, &SIGNS), &[("\\", "")]).into_owned()
}

/// The text before the last such command, its two arguments, and the text behind it.
fn fraction<'a>(text: &'a str, command: &str) -> Option<(&'a str, &'a str, &'a str, &'a str)> {
    let (before, rest) = text.rsplit_once(command)?;
    let (over, rest) = rest.strip_prefix('{')?.split_once('}')?;
    let (under, after) = rest.strip_prefix('{')?.split_once('}')?;
    (!over.contains('{') && !under.contains('{')).then_some((before, over, under, after))
}
