//! What a sentence ends with: "the curve falls only from 2008 to 2012", "so the net force points leftward".
//!
//! A writer who gives no mark to the answer puts it at the end. The ends that may be an answer stand behind a verb that
//! shows one, behind some prepositions, or behind a word that concludes; each is compared with the gold answer as it is.

use super::prose::last_sentence;
use super::remarks::before_reason;
use super::words::tables::among;
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
    " it follows that ",
    " we get ",
    " we obtain ",
    " we find that ",
    " we see that ",
    " we conclude that ",
    " we have ",
    " this means that ",
    " this shows that ",
    "; so ",
    "; thus ",
    "; hence ",
    "; therefore ",
    "; therefore, ",
];

/// Verbs, and participles, that show what follows.
const SHOWING: &str = "is are was were be become becomes became remain remains stays equals equal means gives give giving \
    yields yield shows show showing reads read says say states reveals indicates suggests implies denotes denote \
    represents represent depicts displays forms makes make leaves leave leaving has have having contains \
    holds carries points faces moves goes turns runs lies sits stands falls occurs happens lands ends starts \
    begins get gets obtain obtains find finds fill fills see sees choose pick select conclude write call called \
    named labelled labeled marked dated written known termed takes take requires needs need costs cost weighs \
    measures totals lasts spans covers reaches spells uses use using wears wearing holding wants prefers \
    produces produce releases undergoes describes describe exhibits experiences acquires receives works wins won \
    considers considered obeys satisfies follows recovers recover deduce took gave showed made scored finished \
    facing heading pointing started";

/// Words that follow a verb before what it shows: "leads to", "stands for", "known as", "folds into".
const LINKING: [(&str, &str); 5] = [
    (
        "to",
        "leads lead equal simplifies reduces amounts comes evaluates corresponds belongs belong converges tends changes \
         refers adds rounds sums works points goes turns up out down back",
    ),
    ("at", "is are was were stays remains stands settles reads melts boils freezes"),
    ("on", "land lands falls fall is was"),
    ("for", "stands stand short sign symbol word looking"),
    ("as", "appear appears written known expressed given described used"),
];

/// Prepositions before a place, a time or a doer; before a number they may change it.
const PLACING: &str = "as in at on by during into towards";

/// Words between a verb and what it shows that change nothing.
const IDLE: &str =
    "only exactly just simply therefore thus then hence also now a an the her him them us it always indeed precisely";

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

/// Words that open what is told of an answer behind it.
const TOLD: &str = "towards toward away with in at on as from like just when";

/// Longest sentence that is searched, in bytes, and most ends of it that are tried.
const MAX_SENTENCE: usize = 400;
const MAX_ENDS: usize = 8;

/// The last sentence of a text without its reason, its main or concluding clause where it has more; and whether it has.
fn concluding_clause(text: &str) -> (&str, bool) {
    let line = text.trim_end().rsplit('\n').next().unwrap_or(text);
    let sentence = python::strip(last_sentence(line));
    // The way to it may stand before: "sorting the data, the median is 5".
    let opening = sentence.split(' ').next().unwrap_or_default().to_lowercase();
    let main = sentence
        .split_once(", ")
        .filter(|(_, rest)| !rest.starts_with("where ") && (among(LEADING, &opening) || opening.ends_with("ing")));
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

/// A clause and its words: where each begins, and what it is without marks and capitals.
struct Clause<'a> {
    text: &'a str,
    starts: Vec<usize>,
    words: Vec<String>,
}

impl<'a> Clause<'a> {
    fn new(text: &'a str) -> Self {
        let starts: Vec<usize> = std::iter::once(0)
            .chain(text.match_indices(' ').map(|(at, _)| at + 1))
            .filter(|&at| at < text.len())
            .collect();
        let word = |at: &usize| {
            let word = text[*at..].split(' ').next().unwrap_or_default();
            let word = word.trim_matches([',', ':', ';', '*', '"']).to_lowercase();
            // It's, that's
            word.strip_suffix("'s").filter(|w| matches!(*w, "it" | "that")).map_or(word.clone(), |_| "is".to_owned())
        };
        let words = starts.iter().map(word).collect();
        Clause { text, starts, words }
    }

    fn from(&self, n: usize) -> &'a str {
        python::strip(&self.text[self.starts[n]..])
    }

    /// The first word that denies what follows, else the number of words.
    fn denied(&self) -> usize {
        self.words.iter().position(|w| among(DENYING, w) || w.ends_with("n't")).unwrap_or(self.words.len())
    }

    /// True where one of the two words before makes another value of what follows.
    fn changes(&self, n: usize) -> bool {
        self.words[n.saturating_sub(2)..n].iter().any(|w| among(CHANGING, w))
    }

    /// True where the word before shows what follows.
    fn shows(&self, n: usize) -> bool {
        let Some(before) = n.checked_sub(1).map(|b| self.words[b].as_str()) else { return false };
        let linked = |(link, verbs): &(&str, &str)| before == *link && n > 1 && among(verbs, &self.words[n - 2]);
        among(SHOWING, before) || LINKING.iter().any(linked) || self.acts(n)
    }

    /// True for words behind a subject and its verb or participle: "the loop current flows clockwise".
    fn acts(&self, n: usize) -> bool {
        let Some(before) = n.checked_sub(1).filter(|b| *b > 0).map(|b| self.words[b].as_str()) else { return false };
        let verb = before.ends_with("ed")
            || before.ends_with('s') && !["ss", "us", "is"].iter().any(|end| before.ends_with(end));
        verb && before.len() > 3
            && before.chars().all(|c| c.is_ascii_lowercase())
            && self.from(n).chars().all(|c| c.is_alphabetic() || matches!(c, ' ' | '-' | '\''))
            && !self.words[n..].iter().any(|w| math::is_number_word(w))
    }

    fn is_number(&self, n: usize) -> bool {
        let digit = |c: char| c.is_ascii_digit() || "$\\-+".contains(c);
        let number = math::is_number_word(&self.words[n]) || self.from(n).starts_with(digit);
        // A time of day.
        let time = self.words[n].split_once(':').is_some_and(|(h, m)| h.len() < 3 && m.len() == 2);
        number && !time && !self.from(n).contains(" out of ")
    }

    /// True behind a preposition of place; where something is reached is no answer: "attained at x = 3".
    fn placed(&self, n: usize) -> bool {
        n > 0 && among(PLACING, &self.words[n - 1]) && !self.is_number(n) && !self.from(n).contains('=')
    }

    /// True for "six years" of "a gap of six years"; a third of them is another number.
    fn is_amount(&self, n: usize) -> bool {
        n > 2
            && self.words[n - 1] == "of"
            && matches!(self.words[n - 3].as_str(), "a" | "an")
            && !among(PARTS, &self.words[n - 2])
    }

    /// True for a sign behind its name: "the sulfate ion, SO4".
    fn is_sign(&self, n: usize) -> bool {
        let plain = |t: &str| t.len() > 2 && t.chars().all(|c| c.is_ascii_lowercase() || c == '-');
        n > 0
            && n + 1 == self.words.len()
            && !plain(self.from(n))
            && plain(&self.words[n - 1])
            && self.text[..self.starts[n]].ends_with(", ")
            && self.text.matches(',').count() == 1
    }

    /// True for a letter or a formula, which may be the name of what follows.
    fn is_name(&self, n: usize) -> bool {
        let word = self.words[n].trim_matches('$');
        let letters = word.chars().filter(|c| c.is_alphabetic()).count();
        word.contains(['\\', '_', '('])
            || !word.is_ascii()
            || (letters == 1 && word.len() < 4 && word != "a" && word != "i")
    }

    /// The name that a clause begins with, where what follows sets it above all others: "Germany has the tallest bar".
    fn foremost(&self) -> Option<&'a str> {
        const HAVING: &str = "is has was had shows reaches scored won got";
        const FOREMOST: &str = "most least first last only best worst";
        let verb = self.words.iter().take(5).position(|w| among(HAVING, w)).filter(|n| *n > 0)?;
        let [the, which, ..] = &self.words[verb + 1..] else { return None };
        let superlative = (which.len() > 4 && which.ends_with("est")) || among(FOREMOST, which);
        let all = !self.words.iter().any(|w| among(DENYING, w) || matches!(w.as_str(), "second" | "next"));
        (the == "the" && superlative && all).then(|| python::strip(&self.text[..self.starts[verb]]))
    }
}

/// A number and its unit without what it is told of: "20 km/h in still water", "3 out of 8 of them".
fn without_circumstance(end: &str) -> Option<&str> {
    const OF: [&str; 9] = [" of ", " from ", " at ", " in ", " for ", " above ", " below ", " chance", " when "];
    let plain = |told: &str| {
        told.chars().all(|c| c.is_alphabetic() || matches!(c, ' ' | '-' | '\''))
            && !told.split(' ').any(|w| among(DENYING, w))
            && !told.split(' ').nth(2).is_some_and(math::is_number_word)
    };
    let cuts = OF.iter().flat_map(|p| end.match_indices(p)).map(|(at, _)| at).filter(|at| plain(&end[*at..]));
    cuts.min().map(|at| &end[..at])
}

/// The ends of the concluding clause that may be its answer, the longest first. Where the gold answer relates a name
/// to its value, none without the name that the clause has: "x is 5" is no y = 5.
pub(super) fn ends<'a>(gold: &str, text: &'a str) -> Vec<&'a str> {
    let (clause, concludes) = concluding_clause(text);
    if clause.len() > MAX_SENTENCE {
        return Vec::new();
    }
    let clause = Clause::new(clause);
    let relates = gold.contains(['=', '<', '>']) || gold.contains("\\le") || gold.contains("\\ge");
    // A clause of its own may be the answer.
    let mut out: Vec<&str> = if concludes { vec![clause.text] } else { Vec::new() };
    out.extend(clause.foremost());
    let denied = clause.denied();
    for n in (1..clause.words.len()).take_while(|n| *n <= denied).filter(|n| !clause.changes(*n)) {
        // What stands behind the words that change nothing, too.
        let idle = clause.words[1..n].iter().rev().take_while(|w| among(IDLE, w)).count();
        let from = n - idle;
        if relates && from > 1 && clause.is_name(from - 2) {
            continue;
        }
        if clause.shows(n) || clause.shows(from) || clause.placed(from) || clause.is_sign(n) || clause.is_amount(n) {
            let end = clause.from(n);
            out.push(end);
            // "Out of the paper, towards the reader"
            out.extend(
                end.split_once(", ")
                    .filter(|(_, told)| among(TOLD, told.split(' ').next().unwrap_or_default()))
                    .map(|(e, _)| e),
            );
            out.extend(without_circumstance(end).filter(|e| e.contains(|c: char| c.is_ascii_digit())));
        }
    }
    out.retain(|end| whole(end));
    out.dedup();
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
