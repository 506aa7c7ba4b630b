//! Facts of number theory in words, as notation: "n is divisible by both 3 and 4", "x leaves remainder 1 or 7 on
//! division by 8", "a and b are relatively prime", "all positive divisors of 28".

/// Longest sentence.
const MAX_BYTES: usize = 160;
/// Most members of a set that is written out.
const MAX_MEMBERS: u64 = 400;

/// The notation of a sentence, where it is one of these.
pub(super) fn rewritten(text: &str) -> Option<String> {
    if text.len() > MAX_BYTES || !text.contains(' ') {
        return None;
    }
    let plain = text.replace(['$', '.'], "").replace("\\(", "").replace("\\)", "").replace("\\mid", " | ");
    let plain = plain.replace("\\text{", "").replace(['}', '{'], " ");
    let words: Vec<&str> = plain.split_whitespace().collect();
    let words: Vec<&str> = if matches!(words.first(), Some(&"the" | &"The")) { words[1..].to_vec() } else { words };
    if let Some(head) = ["+ constant", "+ const", "plus a constant", "+ a constant", "+ some constant"]
        .iter()
        .find_map(|end| text.trim_end_matches('.').strip_suffix(end))
    {
        return Some(format!("{head}+ C"));
    }
    let said = introduced(&words);
    of_form(&words)
        .or_else(|| divisible(said))
        .or_else(|| leaves(said))
        .or_else(|| coprime(&words))
        .or_else(|| members(&words))
}

/// The clause about one letter behind what it is said of: "the statement holds exactly when n leaves ...", "all n that
/// leave ...". Words that deny or limit it, and numbers, keep the whole.
fn introduced<'a, 'b>(words: &'b [&'a str]) -> &'b [&'a str] {
    const JOINTS: [&str; 6] = ["when", "if", "iff", "that", "whenever", "where"];
    const TURNS: [&str; 12] =
        ["not", "no", "never", "fails", "false", "unless", "except", "fail", "impossible", "wrong", "without", "than"];
    let verb = |w: &str| matches!(w, "leaves" | "has" | "gives" | "is" | "must" | "|");
    let at = (1..words.len().saturating_sub(1)).find(|&n| letter(words[n]) && verb(words[n + 1]));
    let plain = |w: &&str| {
        let lower = w.trim_end_matches(',').to_lowercase();
        lower.chars().all(|c| c.is_alphabetic() || matches!(c, '-' | '\'')) && !TURNS.contains(&&*lower)
    };
    match at {
        Some(n) if JOINTS.contains(&words[n - 1]) && words[..n].iter().all(plain) => &words[n..],
        _ => words,
    }
}

/// True where both name a divisor, the answer in words, and not the same: a remainder is one of its divisor.
pub(in crate::reward) fn another_divisor(gold: &str, answer: &str) -> bool {
    const BEFORE: [&str; 5] = ["divided by ", "division by ", "modulo ", "\\pmod", "mod "];
    let divisor = |text: &str, before: &[&str]| {
        let plain = text.get(..text.len().min(MAX_BYTES))?.replace(['$', '{', '}', '(', ')'], " ");
        let (_, behind) = before.iter().find_map(|w| plain.rsplit_once(w))?;
        count(behind.split_whitespace().next()?.trim_end_matches(['.', ',', ';']))
    };
    matches!((divisor(gold, &BEFORE), divisor(answer, &BEFORE[..2])), (Some(a), Some(b)) if a != b)
}

fn letter(word: &str) -> bool {
    word.len() == 1 && word.chars().all(|c| c.is_ascii_alphabetic())
}

fn count(word: &str) -> Option<u64> {
    word.trim_matches(',').parse().ok().filter(|n| (1..=1_000_000).contains(n))
}

/// Numbers with commas and "and" between, all of them.
fn numbers(words: &[&str]) -> Option<Vec<u64>> {
    let numbers: Option<Vec<u64>> = words
        .iter()
        .flat_map(|w| w.split(','))
        .filter(|w| !matches!(*w, "" | "and" | "or" | "both" | "by"))
        .map(count)
        .collect();
    numbers.filter(|n| !n.is_empty())
}

fn lcm(numbers: &[u64]) -> Option<u64> {
    fn gcd(a: u64, b: u64) -> u64 {
        if b == 0 { a } else { gcd(b, a % b) }
    }
    numbers.iter().try_fold(1u64, |a, &b| (a / gcd(a, b)).checked_mul(b))
}

/// `3 | n`, "n is a multiple of 3", "n is divisible by both 3 and 4", "n is even".
fn divisible(words: &[&str]) -> Option<String> {
    let (name, n) = match words {
        [n, "|", name] => (*name, count(n)?),
        [name, "is", "even"] => (*name, 2),
        [name, "is", "odd"] => return letter(name).then(|| format!("{name} \\equiv 1 \\pmod{{2}}")),
        [name, "is", "a" | "an", "multiple", "of", rest @ ..]
        | [name, "is", "an", "integer", "multiple", "of", rest @ ..]
        | [name, "is", "divisible", "by", rest @ ..]
        | [name, "must", "be", "divisible", "by", rest @ ..]
        | [name, "must", "be", "a", "multiple", "of", rest @ ..]
            if !rest.contains(&"or") =>
        {
            (*name, lcm(&numbers(rest)?)?)
        }
        [a, "divides", name] => (*name, count(a)?),
        _ => return None,
    };
    letter(name).then(|| format!("{name} \\equiv 0 \\pmod{{{n}}}"))
}

/// True for numbers of a form that are the whole of a text: the form alone says less than "all primes of the form 6k + 1".
pub(super) fn is_form(text: &str) -> bool {
    let first = text.split(' ').next().unwrap_or_default();
    text.len() <= MAX_BYTES
        && text.contains(" of the form ")
        && matches!(
            first.to_ascii_lowercase().as_str(),
            "all"
                | "every"
                | "positive"
                | "negative"
                | "odd"
                | "even"
                | "prime"
                | "primes"
                | "integers"
                | "numbers"
                | "natural"
        )
}

/// "all integers of the form 6k + 1", "numbers of the form 4m + 3, where m is an integer": for every whole number.
fn of_form(words: &[&str]) -> Option<String> {
    const OPENING: [&str; 13] = [
        "all", "every", "each", "the", "those", "positive", "integers", "integer", "numbers", "number", "that",
        "which", "are",
    ];
    let from = words.iter().take_while(|w| OPENING.contains(&w.to_lowercase().as_str())).count();
    let said = words[..from].iter().any(|w| w.starts_with("integer") || w.starts_with("number"));
    let rest =
        words[from..].strip_prefix(&["of", "the", "form"]).or_else(|| words[from..].strip_prefix(&["of", "form"]))?;
    let ends = |w: &str| matches!(w, "where" | "with" | "for" | "as");
    let to =
        rest.iter().position(|w| ends(w) || w.ends_with(',')).map_or(rest.len(), |n| n + usize::from(!ends(rest[n])));
    let form = rest[..to].concat();
    let form = form.trim_end_matches(',');
    let mut letters = form.split(|c: char| !c.is_ascii_alphabetic()).filter(|w| !w.is_empty());
    let (counter, None) = (letters.next()?, letters.next()) else { return None };
    // Whole numbers of one sign or kind are fewer.
    let whole = rest[to..].iter().all(|w| {
        const WORDS: [&str; 20] = [
            "where", "with", "for", "as", "is", "an", "a", "any", "some", "all", "every", "each", "integer",
            "integers", "varies", "over", "the", "\\in", "\u{2208}", "",
        ];
        let w = w.trim_end_matches(',');
        w == counter || WORDS.contains(&w) || matches!(w, "\\mathbb" | "Z" | "\u{2124}")
    });
    if !said || !letter(counter) || !whole {
        return None;
    }
    if !words[..from].contains(&"positive") {
        return Some(format!("{form}, {counter} \\in \\mathbb{{Z}}"));
    }
    // From the first that is positive.
    let (times, add) = form.split_once(counter).filter(|_| to == rest.len())?;
    let times: i64 = if times.is_empty() { 1 } else { times.parse().ok().filter(|n| (1..1_000_000).contains(n))? };
    let add: i64 = if add.is_empty() { 0 } else { add.parse().ok().filter(|n: &i64| n.abs() < 1_000_000)? };
    let list = match (0..2).find(|k| times * k + add > 0)? {
        0 => "0, 1, 2, \\dots",
        _ => "1, 2, 3, \\dots",
    };
    Some(format!("{form}, {counter} = {list}"))
}

/// "x leaves a remainder of 1 or 7 when divided by 8".
fn leaves(words: &[&str]) -> Option<String> {
    let (name, rest) = match words {
        [name, "leaves" | "has" | "gives", rest @ ..] => (name, rest),
        ["all" | "All", "integers" | "numbers", "that" | "which", "leave" | "give", rest @ ..]
        | ["integers" | "numbers", "that" | "which", "leave" | "give", rest @ ..] => (&"n", rest),
        _ => return None,
    };
    let at = rest.iter().position(|w| matches!(*w, "when" | "on" | "upon" | "after" | "if" | "mod" | "modulo"))?;
    let (residues, behind) = rest.split_at(at);
    let idle = |w: &&&str| !matches!(**w, "a" | "the" | "remainder" | "remainders" | "of" | "either" | "residue");
    if !residues.iter().any(|w| w.starts_with("remainder") || w.starts_with("residue")) {
        return None;
    }
    let residues: Vec<&str> = residues.iter().filter(idle).copied().collect();
    let zero = residues == ["no"] || residues == ["0"];
    let modulus = count(behind.last()?)?;
    let between = |w: &&str| {
        matches!(
            *w,
            "when"
                | "on"
                | "upon"
                | "after"
                | "if"
                | "mod"
                | "modulo"
                | "divided"
                | "division"
                | "by"
                | "it"
                | "is"
                | "dividing"
        )
    };
    if !letter(name) || !behind[..behind.len() - 1].iter().all(between) {
        return None;
    }
    let list = if zero {
        "0".to_owned()
    } else {
        numbers(&residues)?.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")
    };
    Some(format!("{name} \\equiv {list} \\pmod{{{modulus}}}"))
}

/// "a and b are coprime".
fn coprime(words: &[&str]) -> Option<String> {
    match words {
        [a, "and", b, "are", rest @ ..] if letter(a) && letter(b) => {
            let said = rest.join(" ");
            matches!(
                said.as_str(),
                "coprime" | "co-prime" | "relatively prime" | "mutually prime" | "prime to each other"
            )
            .then(|| format!("\\gcd({a}, {b}) = 1"))
        }
        [a, "is", "coprime" | "prime", "to", b] | [a, "is", "relatively", "prime", "to", b] if letter(a) => {
            Some(format!("\\gcd({a}, {b}) = 1"))
        }
        _ => None,
    }
}

/// "all positive divisors of 28", "the primes less than 10".
fn members(words: &[&str]) -> Option<String> {
    let mut words = words;
    while let [first, rest @ ..] = words
        && matches!(*first, "set" | "of" | "all" | "the" | "All" | "Set")
    {
        words = rest;
    }
    let (members, rest): (Vec<u64>, &[&str]) = match words {
        ["positive", "divisors" | "factors", "of", n] | ["divisors" | "factors", "of", n] => {
            let n = count(n)?;
            ((1..=n.min(100_000)).filter(|d| n % d == 0).collect(), &[])
        }
        ["prime", "factors" | "divisors", "of", n] => {
            let n = count(n)?;
            ((2..=n.min(100_000)).filter(|d| n % d == 0 && prime(*d)).collect(), &[])
        }
        ["primes", rest @ ..] | ["prime", "numbers", rest @ ..] => {
            let (low, high) = range(rest)?;
            ((low..=high).filter(|n| prime(*n)).collect(), &[])
        }
        ["perfect", "squares", rest @ ..] | ["square", "numbers", rest @ ..] => {
            let (low, high) = range(rest)?;
            ((1..).map(|n| n * n).skip_while(|n| *n < low).take_while(|n| *n <= high).collect(), &[])
        }
        _ => return None,
    };
    let list: Vec<String> = members.iter().map(u64::to_string).collect();
    (rest.is_empty() && !members.is_empty() && members.len() as u64 <= MAX_MEMBERS)
        .then(|| format!("\\{{{}\\}}", list.join(", ")))
}

fn prime(n: u64) -> bool {
    n > 1 && (2..).take_while(|d| d * d <= n).all(|d| !n.is_multiple_of(d))
}

/// "less than 10", "up to 20", "between 10 and 30", "below 100".
fn range(words: &[&str]) -> Option<(u64, u64)> {
    let small = |n: u64| (n <= 2_000).then_some(n);
    match words {
        ["less", "than", n] | ["below", n] | ["under", n] | ["smaller", "than", n] => Some((1, small(count(n)?)? - 1)),
        ["up", "to", n] | ["at", "most", n] | ["not", "exceeding", n] => Some((1, small(count(n)?)?)),
        ["less", "than", "or", "equal", "to", n] => Some((1, small(count(n)?)?)),
        ["between", a, "and", b] | ["from", a, "to", b] => Some((count(a)?, small(count(b)?)?)),
        _ => None,
    }
}
