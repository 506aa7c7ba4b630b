//! Fuzz tests with random formulas, intact and broken. Every text must be judged within its budget, and the verdict
//! must match the relation by which a pair was constructed.

use std::process::Command;

use omr_verify::{BUDGET, Mode, grade, verify};

use super::formula::{Formula, Rng, Style, formula, write};

/// Pieces for broken texts.
const PIECES: [&str; 60] = [
    "\\frac",
    "\\boxed{",
    "\\sqrt",
    "\\text{",
    "{",
    "}",
    "(",
    ")",
    "[",
    "]",
    "^",
    "_",
    "!",
    "%",
    "$",
    "\\(",
    "\\)",
    "\\[",
    "\\pm",
    "\\cup",
    "\\le",
    "<",
    "=",
    "1",
    "23",
    "4.5",
    "x",
    "\\pi",
    "sin",
    "\\log",
    "\\left",
    "\\{",
    "\\}",
    " ",
    "\n",
    "+",
    "-",
    "*",
    "/",
    ":",
    ";",
    "and",
    "or",
    "cm",
    "\u{2212}",
    "\u{b2}",
    "\u{221a}",
    "\u{661}",
    "\\",
    "9^9^9",
    "\\binom",
    "<answer>",
    "answer is",
    "\\sum_{k=1}^{",
    "\\int_0^1",
    "\\lim_{x\\to 0}",
    "\\begin{pmatrix}",
    "&",
    "\\\\",
    "\\overline{",
];

/// Environment variable that is set in the process that runs only the fuzz test. Only in that process does the peak
/// memory show the memory use of the verifier.
const ALONE: &str = "OMR_TEST_FUZZ_ALONE";

/// Judges a pair in both modes and checks the budget. Returns the strict verdict and the larger number of steps.
fn judge(gold: &str, answer: &str) -> (bool, u64) {
    let [compat, strict] = [Mode::Compat, Mode::Strict].map(|mode| {
        let verdict = verify(gold, answer, mode);
        assert!(verdict.steps <= BUDGET, "{mode:?}: {} steps for {gold:?} and {answer:?}", verdict.steps);
        assert!(!verdict.why.is_empty());
        (verdict.equal, verdict.steps)
    });
    (strict.0, strict.1.max(compat.1))
}

/// Returns the text with some pieces inserted, removed or doubled.
fn broken(text: &str, rng: &mut Rng) -> String {
    let mut chars: Vec<char> = text.chars().collect();
    for _ in 0..=rng.below(6) {
        let at = rng.below(chars.len() as u64 + 1) as usize;
        match rng.below(3) {
            0 => drop(chars.splice(at..at, rng.pick(&PIECES).chars())),
            1 if at < chars.len() => drop(chars.remove(at)),
            _ => {
                let end = (at + rng.below(12) as usize).min(chars.len());
                let part: Vec<char> = chars[at..end].to_vec();
                chars.splice(end..end, part);
            }
        }
    }
    chars.into_iter().collect()
}

fn run(cases: u64) {
    let mut rng = Rng::new(crate::seed::seed());
    let before = peak_memory();
    let (mut most, mut open) = (0, 0);
    for case in 0..cases {
        let depth = rng.below(4) as u32;
        let f = formula(&mut rng, depth);
        let styles = [Style::Tight, Style::Loose, Style::Plain];
        let (a, b) = (write(&f, styles[rng.below(3) as usize]), write(&f, styles[rng.below(3) as usize]));
        let more = Formula::Add(Box::new(f.clone()), Box::new(Formula::Int(1)));
        let other = write(&more, styles[rng.below(3) as usize]);
        // If the budget ends before the values are known, nothing counts as equal.
        let verdict = verify(&a, &b, Mode::Strict);
        let undecided = ["too much work to compare", "too close to tell apart", "no value to compare"];
        assert!(verdict.equal || undecided.contains(&verdict.why), "case {case}: {a:?} and {b:?}: {}", verdict.why);
        let (same, steps) = judge(&a, &other);
        assert!(!same, "case {case}: {a:?} and {other:?}");
        let (x, y) = (broken(&a, &mut rng), broken(&b, &mut rng));
        let (_, plain) = judge(&x, &y);
        let (_, repeated) = judge(&y, &format!("The answer is ${x}$."));
        most = most.max(verdict.steps).max(steps).max(plain).max(repeated);
        open += u64::from(!verdict.equal);
        let graded = grade(&y, &x, None, Mode::Strict);
        assert!(!graded.why.is_empty());
        if case % 100_000 == 99_999 {
            println!("{} cases, at most {most} steps, peak memory {:?} KiB", case + 1, peak_memory());
        }
    }
    println!("{cases} cases: at most {most} of {BUDGET} steps, {open} equal pairs left open");
    // Other tests of this process use memory, too.
    if std::env::var_os(ALONE).is_some()
        && let (Some(before), Some(after)) = (before, peak_memory())
    {
        println!("peak memory {before} KiB before, {after} KiB after");
        assert!(after.saturating_sub(before) < 256 << 10, "{before} KiB before, {after} KiB after");
    }
}

/// Returns the peak memory of this process in KiB, if the system reports it.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[test]
fn formulas_whole_and_broken() {
    run(400);
}

/// Runs the test of random formulas for about two minutes on one core.
#[test]
#[ignore = "two minutes; tools/check --slow runs it"]
fn formulas_whole_and_broken_for_long() {
    if std::env::var_os(ALONE).is_some() {
        return run(250_000);
    }
    let name = "fuzz::formulas_whole_and_broken_for_long";
    let mut command = Command::new(std::env::current_exe().unwrap());
    let status = command.args([name, "--exact", "--ignored", "--nocapture"]).env(ALONE, "1").status().unwrap();
    assert!(status.success(), "{status}");
}
