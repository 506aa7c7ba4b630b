//! What a sentence ends with: "the curve falls only from 2008 to 2012", "so the net force points leftward".
//!
//! A writer who gives no mark to the answer puts it at the end. The ends that may be an answer stand behind a verb that
//! shows one, behind some prepositions, or behind a word that concludes; each is compared with the gold answer as it is.

use super::remarks::before_reason;
use super::{math, python};

/// Words behind which a clause draws the conclusion.
const CONCLUDING: &[&str] = &[
    ", so that ",
    ", and so ",
    ", and thus ",
    ", and hence ",
    ", and therefore ",
    ", which is ",
    ", which equals ",
    ", which gives ",
    ", which yields ",
    ", which leads to ",
    ", which leaves ",
    ", giving ",
    ", yielding ",
    ", leaving ",
    ", so ",
    ", thus ",
    ", hence ",
    ", therefore ",
    ", which means that ",
    ", which means ",
    ", meaning that ",
    ", meaning ",
    ", which makes ",
    ", making ",
    ", that is, ",
    ", i.e., ",
    ", i.e. ",
    ", namely ",
    "; so ",
    "; thus ",
    "; hence ",
    "; therefore ",
    "; therefore, ",
];

/// Verbs, and participles, that show what follows.
const SHOWING: &str = "is are was were be become becomes became remain remains stays equals equal means mean gives give giving \
    yields yield shows show showing reads read says say states reveals indicates suggests implies denotes denote \
    represents represent depicts displays forms form makes make leaves leave leaving has have having contains \
    holds carries points faces moves goes turns runs lies sits stands falls occurs happens lands ends starts \
    begins get gets obtain obtains find finds fill fills see sees choose pick select conclude write call called \
    named labelled labeled marked dated written known termed takes take requires needs need costs cost weighs \
    measures totals lasts spans covers reaches spells uses use using wears wearing holding wants prefers \
    produces produce releases undergoes describes describe exhibits experiences acquires receives works wins won \
    considers considered obeys satisfies follows recovers recover deduce took gave showed made scored finished facing heading pointing \
    started";

/// Words that follow a verb before what it shows: "leads to", "stands for", "known as", "folds into".
const LINKING: [(&str, &str); 3] = [
    (
        "to",
        "leads lead equal simplifies reduces amounts comes evaluates corresponds belongs belong converges tends changes \
         refers adds rounds sums works points goes turns up out down back",
    ),
    ("for", "stands stand short sign symbol word looking"),
    ("as", "appear appears written known expressed given described used"),
];

/// Prepositions before a place, a time or a doer; before a number they may change it.
const PLACING: &str = "as in at on by during into towards";

/// Words between a verb and what it shows that change nothing.
const IDLE: &str = "only exactly just simply therefore thus then hence also now a an the always indeed precisely";

/// Words behind which a clause says what the answer is not.
const DENYING: &str = "not never no neither nor without except unlike cannot instead wrong incorrect false opposite \
    contrary converse mistake than either or unless if";

/// Words that change what follows them.
const CHANGING: &str = "other rather hardly almost nearly half twice least most less more between";

/// Nouns that make something else of what follows their "of".
const PARTS: &str = "half third quarter fifth tenth fraction part portion percentage multiple factor divisor power root \
    function member subset minimum maximum number couple pair dozen kind type sort";

/// Words that open a clause before the main one.
const LEADING: &str = "by from since because in with after when as for at on if once to given";

/// Longest sentence that is searched, in bytes, and most ends of it that are tried.
const MAX_SENTENCE: usize = 400;
const MAX_ENDS: usize = 8;

fn among(words: &str, word: &str) -> bool {
    words.split(' ').any(|w| w == word)
}

/// The last sentence of a text without its reason, its main or concluding clause where it has more; and whether it has.
fn concluding_clause(text: &str) -> (&str, bool) {
    let line = text.trim_end().rsplit('\n').next().unwrap_or(text);
    let sentence = python::strip(line.rsplit(". ").next().unwrap_or(line));
    // The way to it may stand before: "sorting the data, the median is 5".
    let opening = sentence.split(' ').next().unwrap_or_default().to_lowercase();
    let main = sentence.split_once(", ").filter(|_| among(LEADING, &opening) || opening.ends_with("ing"));
    let sentence = main.map_or(sentence, |(_, rest)| rest);
    // A conclusion inside a reason is none of the sentence.
    let sentence = [" because ", " since "].iter().find_map(|r| sentence.split_once(r)).map_or(sentence, |(s, _)| s);
    let clause = CONCLUDING.iter().filter_map(|c| sentence.rfind(c).map(|at| at + c.len())).max();
    // A formula behind a colon.
    let shown = sentence.rfind(": $").map(|at| at + 2).filter(|_| !sentence.contains("**"));
    let from = clause.max(shown).unwrap_or(0);
    let clause = before_reason(&sentence[from..]).trim_end_matches(['.', '!', ' ']);
    (clause, from > 0 || main.is_some())
}

/// The ends of the concluding clause that may be its answer, the longest first. Where the gold answer relates a name
/// to its value, none without the name that the clause has: "x is 5" is no y = 5.
pub(super) fn ends<'a>(gold: &str, text: &'a str) -> Vec<&'a str> {
    let (clause, concludes) = concluding_clause(text);
    if clause.len() > MAX_SENTENCE {
        return Vec::new();
    }
    let word = |w: &str| w.trim_matches([',', ':', ';', '*', '"']).to_lowercase();
    let starts: Vec<usize> = std::iter::once(0)
        .chain(clause.match_indices(' ').map(|(at, _)| at + 1))
        .filter(|&at| at < clause.len())
        .collect();
    let words: Vec<String> =
        starts.iter().map(|&at| word(clause[at..].split(' ').next().unwrap_or_default())).collect();
    // What stands behind a denial is not said.
    let denied = words.iter().position(|w| among(DENYING, w) || w.ends_with("n't")).unwrap_or(words.len());
    let relates = gold.contains(['=', '<', '>']) || gold.contains("\\le") || gold.contains("\\ge");
    let symbol = |w: &String| {
        let w = w.trim_matches('$');
        let letters = w.chars().filter(|c| c.is_alphabetic()).count();
        w.contains(['\\', '_', '(']) || !w.is_ascii() || (letters == 1 && w.len() < 4 && w != "a" && w != "i")
    };
    let changed = |n: usize| words[n.saturating_sub(2)..n].iter().any(|w| among(CHANGING, w));
    let shows = |n: usize| {
        let Some(before) = n.checked_sub(1).map(|b| words[b].as_str()) else { return false };
        let linked = |(link, verbs): &(&str, &str)| {
            before == *link && (verbs.is_empty() || (n > 1 && among(verbs, &words[n - 2])))
        };
        // A verb, or a participle, before words: "the loop current flows clockwise".
        let verb = before.len() > 3
            && before.chars().all(|c| c.is_ascii_lowercase())
            && (before.ends_with("ed")
                || before.ends_with('s') && !["ss", "us", "is"].iter().any(|e| before.ends_with(e)));
        let wordy = n > 1
            && verb
            && clause[starts[n]..].chars().all(|c| c.is_alphabetic() || matches!(c, ' ' | '-' | '\''))
            && !words[n..].iter().any(|w| math::is_number_word(w));
        wordy || among(SHOWING, before) || LINKING.iter().any(linked)
    };
    let numeric = |n: usize| {
        math::is_number_word(&words[n])
            || clause[starts[n]..].starts_with(|c: char| c.is_ascii_digit() || "$\\-+".contains(c))
    };
    // Where something is reached is no answer: "attained at x = 3".
    let placed = |n: usize| n > 0 && among(PLACING, &words[n - 1]) && !numeric(n) && !clause[starts[n]..].contains('=');
    // "A gap of six years"; a third of them is another number.
    let amount = |n: usize| {
        let of = |[article, noun, of]: &[String; 3]| {
            of == "of" && matches!(article.as_str(), "a" | "an") && !among(PARTS, noun)
        };
        n > 2 && words[n - 3..n].first_chunk().is_some_and(of)
    };
    // "The sulfate ion, SO4": a sign behind its name.
    let named = |n: usize| {
        let plain = |t: &str| t.len() > 2 && t.chars().all(|c| c.is_ascii_lowercase() || c == '-');
        let sign = !plain(&clause[starts[n]..]) && n + 1 == words.len();
        n > 0 && sign && clause[..starts[n]].ends_with(", ") && plain(&words[n - 1]) && clause.matches(',').count() == 1
    };
    let mut out = Vec::new();
    for n in (1..words.len()).take_while(|n| *n <= denied).filter(|n| !changed(*n)) {
        let mut from = n;
        // What stands behind the words that change nothing, too.
        while from > 1 && among(IDLE, &words[from - 1]) {
            from -= 1;
        }
        if relates && from > 1 && symbol(&words[from - 2]) {
            continue;
        }
        let end = python::strip(&clause[starts[n]..]);
        if (shows(n) || shows(from) || placed(from) || named(n) || amount(n)) && whole(end) && !out.contains(&end) {
            out.push(end);
        }
    }
    // A clause of its own may be the answer.
    // A clause of its own may be the answer.
    if concludes && whole(clause) {
        out.insert(0, clause);
    }
    out.truncate(MAX_ENDS);
    out
}

/// True where brackets and dollar signs close inside.
fn whole(end: &str) -> bool {
    let count = |c: char| end.matches(c).count();
    let pairs = [('(', ')'), ('[', ']'), ('{', '}')];
    let interval = count('(') + count('[') == count(')') + count(']');
    (count('$') - end.matches("\\$").count()).is_multiple_of(2)
        && (interval || pairs.iter().all(|p| count(p.0) == count(p.1)))
        && end.matches("\\(").count() == end.matches("\\)").count()
        && end.matches("**").count().is_multiple_of(2)
}
