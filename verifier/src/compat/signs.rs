//! Vocabulary of the published grammar: commands, accents, letters and signs.

use std::sync::LazyLock;

use super::token::Kind;
use crate::lexicon;

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
/// Signs, and the commands and characters that stand for them. Rows are separated by ` | `. The first word of a row is the
/// sign, and the others are the commands and characters.
const OPERATORS: &str = "/ over div ÷ ∕ | * times cdot × ⋅ ⋄ ⊡ ∗ ⋆ ∘ ∙ ⊗ ⊠ ⋈ ⋉ ⋊ | + ∔ ⊕ ⊞ | - − ∸ | mod mod | pm pm mp ± ∓ | \
    frac frac dfrac tfrac cfrac | binom binom tbinom dbinom | choose choose | sqrt sqrt | sum sum | prod prod | int int | \
    lim lim | to to rightarrow Rightarrow longrightarrow Longrightarrow | operatorname operatorname | phantom phantom | \
    boxed boxed | infty infty | vert vert | lvert lvert | rvert rvert | cup cup ∪ | cap cap ∩ | setminus setminus ∖ | \
    supset supseteq ⊇ | subset subseteq ⊆ | notin notin ∉ | \\\\ \\";
const OPEN: &str = "\\( ( | \\{ { | lbrace lbrace | lbrack lbrack | lgroup lgroup | floor lfloor | ceil lceil";
const CLOSE: &str = "\\) ) | \\} } | rbrace rbrace | rbrack rbrack | rgroup rgroup | floor rfloor | ceil rceil";
const SETS: &str = "0 emptyset {\\} lbrace\\rbrace ∅ | N mathbb{N} ℕ | Z mathbb{Z} ℤ | Q mathbb{Q} ℚ | R mathbb{R} ℝ | \
    C mathbb{C} ℂ";
const RELATIONS: &str = "in in | == equiv | ~ approx ≈ ≊ ≋ ≃ ≅ | = ≡ ≣ ≟ ≎ ≏ ≐ ≑ ≒ ≓ ≔ ≕ ≖ ≗ | < lt ≪ ≺ ⋖ | \
    <= leq le leqslant ≤ ≦ ≲ ≾ | > gt ≫ ≻ ⋗ | >= geq ge geqslant ≥ ≧ ≳ ≿ | != ne neq not\\equiv ≠ ≁ ≄ ≇ ≉ ≢";

/// Commands without their backslash, the longest first, and characters outside ASCII.
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
    let is_letter = matches!(c, '\u{391}'..='\u{3c9}');
    is_letter.then(|| lexicon::look(lexicon::Kind::Greek, c.encode_utf8(&mut [0; 4])))?
}

/// Notations of a transposition.
pub(super) const TRANSPOSE: [&str; 3] = ["^T", "^{T}", "^{\\top}"];
/// Notations of degrees.
pub(super) const DEGREE: [&str; 8] =
    ["^\\circ", "^\\degree", "^\\circle", "^\u{b0}", "^{\\circ}", "^{\\degree}", "^{\\circle}", "^{\u{b0}}"];

/// Returns the token for a sign outside commands.
pub(super) fn sign(c: char) -> Option<(Kind, &'static str)> {
    const PLAIN: &str = "([{)]}=<>+-*/:;,_^|!&";
    if let Some(at) = PLAIN.find(c) {
        let kind = [Kind::Open, Kind::Close, Kind::Relation].get(at / 3).copied().unwrap_or(Kind::Sign);
        return Some((kind, &PLAIN[at..=at]));
    }
    COMMANDS.iter().find(|(name, _)| !c.is_ascii() && name.starts_with(c))?.1
}
