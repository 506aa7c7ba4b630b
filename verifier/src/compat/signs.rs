//! Vocabulary of the published grammar: commands, accents, letters and signs.

use std::sync::LazyLock;

use super::token::Kind;

/// Kind and text of the token for a command. `None` if the command is skipped.
type Said = Option<(Kind, &'static str)>;

/// Symbols by name.
const GREEK: &str = "alpha beta delta Delta epsilon varepsilon zeta eta theta Theta vartheta iota kappa lambda Lambda \
    mu nu xi Xi omicron pi Pi varpi rho varrho sigma Sigma varsigma tau upsilon Upsilon phi Phi varphi chi psi Psi omega \
    Omega";
const OTHER: &str = "Bbbk wp nabla bigstar angle nexists diagdown measuredangle eth diagup sphericalangle clubsuit \
    varnothing Diamond complement diamondsuit imath Finv triangledown heartsuit jmath Game triangle spadesuit ell hbar \
    vartriangle hslash blacklozenge lozenge blacksquare mho blacktriangle sharp prime Im flat square backprime Re natural \
    surd circledS";
const FUNCTIONS: &str = "log ln exp sin cos tan csc sec cot arcsin arccos arctan arccsc arcsec arccot sinh cosh tanh \
    arsinh arcosh artanh arcsinh arccosh arctanh floor ceil det Gamma gamma";
const SEVERAL: &str = "gcd lcm max min";
/// Commands without a meaning.
const SKIPPED: &str = ", thinspace : medspace ; thickspace quad qquad ! negthinspace negmedspace negthickspace $ vrule \
    vcenter vbox vskip vspace hfil";
/// Signs and the commands that stand for them. Rows are separated by ` | `. The first word of a row is the sign, and
/// the others are the commands.
const OPERATORS: &str = "/ over div | * times cdot | mod mod | pm pm mp | frac frac dfrac tfrac cfrac | \
    binom binom tbinom dbinom | choose choose | sqrt sqrt | sum sum | prod prod | int int | lim lim | \
    to to rightarrow Rightarrow longrightarrow Longrightarrow | operatorname operatorname | phantom phantom | \
    boxed boxed | infty infty | vert vert | lvert lvert | rvert rvert | cup cup | cap cap | setminus setminus | \
    supset supseteq | subset subseteq | notin notin | \\\\ \\";
const OPEN: &str = "\\( ( | \\{ { | lbrace lbrace | lbrack lbrack | lgroup lgroup | floor lfloor | ceil lceil";
const CLOSE: &str = "\\) ) | \\} } | rbrace rbrace | rbrack rbrack | rgroup rgroup | floor rfloor | ceil rceil";
const SETS: &str =
    "0 emptyset {\\} lbrace\\rbrace | N mathbb{N} | Z mathbb{Z} | Q mathbb{Q} | R mathbb{R} | C mathbb{C}";
const RELATIONS: &str = "in in | == equiv | ~ approx | < lt | <= leq le leqslant | > gt | >= geq ge geqslant | \
    != ne neq not\\equiv";

/// Commands without their backslash, the longest first.
pub(super) static COMMANDS: LazyLock<Vec<(&str, Said)>> = LazyLock::new(|| {
    let mut all: Vec<(&str, Said)> = SKIPPED.split_whitespace().map(|c| (c, None)).collect();
    // A function comes before the letter with the same name.
    for (kind, names) in
        [(Kind::Function, FUNCTIONS), (Kind::Several, SEVERAL), (Kind::Greek, GREEK), (Kind::Other, OTHER)]
    {
        all.extend(names.split_whitespace().map(|n| (n, Some((kind, n)))));
    }
    for (kind, table) in [
        (Kind::Sign, OPERATORS),
        (Kind::Open, OPEN),
        (Kind::Close, CLOSE),
        (Kind::Set, SETS),
        (Kind::Relation, RELATIONS),
    ] {
        for row in table.split(" | ") {
            let mut words = row.split_whitespace();
            let Some(sign) = words.next() else { continue };
            all.extend(words.map(|w| (w, Some((kind, sign)))));
        }
    }
    all.push(("|", Some((Kind::Sign, "||"))));
    all.sort_by_key(|(c, _)| std::cmp::Reverse(c.len()));
    all
});

/// Commands with a text argument.
pub(super) const ACCENTS: &str = "acute bar overline breve check widecheck dot ddot grave hat tilde widetilde vec \
    overrightarrow bm boldsymbol text textit textbf textnormal mathbb mathbin mathbf mathcal mathclap mathclose \
    mathellipsis mathfrak mathinner mathit mathnormal mathop mathopen mathord mathpunct mathrel mathring mathrlap mathrm \
    mathscr mathsf mathsterling mathtt mbox";

/// Words that are single tokens, although no rule for formulas accepts them.
pub(super) const WORDS: &str = "arsinh arcsinh arcosh arccosh artanh arctanh gcd lcm floor ceil eye zeros ones cols rows \
    diag norm rank trace tr rref hstack vstack orth ortho orthogonal orthogonalize nullspace eig eigen diagonalize \
    eigenvals eigenvalues eigenvects eigenvectors svd SVD matrix pmatrix bmatrix vmatrix";

/// Returns the name of a letter of another alphabet.
pub(super) fn greek(c: char) -> Option<&'static str> {
    const SMALL: [&str; 25] = [
        "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu", "nu",
        "xi", "omicron", "pi", "rho", "varsigma", "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega",
    ];
    if let Some(name) = (c as usize).checked_sub(0x3b1).and_then(|i| SMALL.get(i)) {
        return Some(name);
    }
    Some(match c {
        '\u{393}' => "Gamma",
        '\u{394}' => "Delta",
        '\u{398}' => "Theta",
        '\u{39b}' => "Lambda",
        '\u{39e}' => "Xi",
        '\u{3a0}' => "Pi",
        '\u{3a3}' => "Sigma",
        '\u{3a5}' => "Upsilon",
        '\u{3a6}' => "Phi",
        '\u{3a8}' => "Psi",
        '\u{3a9}' => "Omega",
        _ => return None,
    })
}

/// Notations of a transposition.
pub(super) const TRANSPOSE: [&str; 3] = ["^T", "^{T}", "^{\\top}"];
/// Notations of degrees.
pub(super) const DEGREE: [&str; 8] =
    ["^\\circ", "^\\degree", "^\\circle", "^\u{b0}", "^{\\circ}", "^{\\degree}", "^{\\circle}", "^{\u{b0}}"];

/// Returns the token for a sign outside commands.
pub(super) fn sign(c: char) -> Option<(Kind, &'static str)> {
    Some(match c {
        '+' | '\u{2214}' | '\u{2295}' | '\u{229e}' => (Kind::Sign, "+"),
        '-' | '\u{2212}' | '\u{2238}' => (Kind::Sign, "-"),
        '*' | '\u{d7}' | '\u{22c5}' | '\u{22c4}' | '\u{22a1}' | '\u{2217}' | '\u{22c6}' | '\u{2218}' | '\u{2219}'
        | '\u{2297}' | '\u{22a0}' | '\u{22c8}' | '\u{22c9}' | '\u{22ca}' => (Kind::Sign, "*"),
        '/' | '\u{f7}' | '\u{2215}' => (Kind::Sign, "/"),
        ':' => (Kind::Sign, ":"),
        ';' => (Kind::Sign, ";"),
        ',' => (Kind::Sign, ","),
        '_' => (Kind::Sign, "_"),
        '^' => (Kind::Sign, "^"),
        '|' => (Kind::Sign, "|"),
        '!' => (Kind::Sign, "!"),
        '&' => (Kind::Sign, "&"),
        '\'' => (Kind::Sign, "^T"),
        '(' => (Kind::Open, "("),
        '[' => (Kind::Open, "["),
        '{' => (Kind::Open, "{"),
        ')' => (Kind::Close, ")"),
        ']' => (Kind::Close, "]"),
        '}' => (Kind::Close, "}"),
        '=' | '\u{2261}' | '\u{2263}' | '\u{225f}' | '\u{224e}'..='\u{2257}' => (Kind::Relation, "="),
        '\u{2248}' | '\u{224a}' | '\u{224b}' | '\u{2243}' | '\u{2245}' => (Kind::Relation, "~"),
        '<' | '\u{226a}' | '\u{227a}' | '\u{22d6}' => (Kind::Relation, "<"),
        '\u{2264}' | '\u{2266}' | '\u{2272}' | '\u{227e}' => (Kind::Relation, "<="),
        '>' | '\u{226b}' | '\u{227b}' | '\u{22d7}' => (Kind::Relation, ">"),
        '\u{2265}' | '\u{2267}' | '\u{2273}' | '\u{227f}' => (Kind::Relation, ">="),
        '\u{2260}' | '\u{2241}' | '\u{2244}' | '\u{2247}' | '\u{2249}' | '\u{2262}' => (Kind::Relation, "!="),
        '\u{222a}' => (Kind::Sign, "cup"),
        '\u{2229}' => (Kind::Sign, "cap"),
        '\u{2216}' => (Kind::Sign, "setminus"),
        '\u{b1}' | '\u{2213}' => (Kind::Sign, "pm"),
        '\u{2205}' => (Kind::Set, "0"),
        '\u{2115}' => (Kind::Set, "N"),
        '\u{2124}' => (Kind::Set, "Z"),
        '\u{211a}' => (Kind::Set, "Q"),
        '\u{211d}' => (Kind::Set, "R"),
        '\u{2102}' => (Kind::Set, "C"),
        '\u{2287}' => (Kind::Sign, "supset"),
        '\u{2286}' => (Kind::Sign, "subset"),
        '\u{2209}' => (Kind::Sign, "notin"),
        _ => return None,
    })
}
