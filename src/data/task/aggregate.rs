//! Computes the metrics of a question from its answers, and the metrics of a task from its questions. It implements the
//! four aggregations of the published evaluation and their corrected forms.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::crash::PublishedResult;
use super::marks::{Marks, Metrics};
use crate::rows::Row;
use omr_base::config::Mode;

/// Returns the mean, or 0 if there are no values.
pub fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, n) = values.fold((0.0, 0), |(sum, n), value| (sum + value, n + 1));
    if n == 0 { 0.0 } else { sum / f64::from(n) }
}

/// Computes `acc_score` and `format_score` as means over the answers.
pub fn accuracy_and_format(_: &Row, marks: &Marks, _: Mode) -> PublishedResult<Metrics> {
    let (acc, format) = (mean(marks.all().map(|mark| mark.acc)), mean(marks.all().map(|mark| mark.format)));
    let metrics = [("acc_score", acc), ("format_score", format)].map(|(name, value)| (name.to_owned(), json!(value)));
    Ok(metrics.into_iter().collect())
}

/// A question as it enters the metrics of a task.
#[derive(Clone, Debug, Default)]
pub struct Counted {
    /// Metrics of the question.
    pub metrics: Metrics,
    /// Names shared by questions that depend on the same things, such as a chart, a problem or images. Empty if the
    /// question is independent of all others.
    pub clusters: Vec<String>,
}

/// A value of a mean.
#[derive(Clone, Debug, PartialEq)]
pub struct Observation {
    /// The value.
    pub value: f64,
    /// Names shared by observations that are not independent.
    pub clusters: Vec<String>,
}

/// A metric of a task.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    /// Name of the metric.
    pub name: String,
    /// Value of the metric.
    pub value: Value,
    /// Observations that the metric is the mean of. Empty if the metric is not a mean.
    pub observations: Vec<Observation>,
}

impl Metric {
    fn alone(name: &str, value: Value) -> Metric {
        Metric { name: name.to_owned(), value, observations: Vec::new() }
    }

    /// Makes a metric that is the mean of some observations.
    fn mean_of(name: &str, observations: Vec<Observation>) -> Metric {
        let value = json!(mean(observations.iter().map(|observation| observation.value)));
        Metric { name: name.to_owned(), value, observations }
    }

    /// Makes a metric that is the mean of independent values.
    fn mean_of_independent(name: &str, values: impl Iterator<Item = f64>) -> Metric {
        Metric::mean_of(name, values.map(|value| Observation { value, clusters: Vec::new() }).collect())
    }
}

/// Computes the mean of every metric that is a number in all questions.
pub fn means(questions: &[Counted], _: Mode) -> Vec<Metric> {
    let Some(first) = questions.first() else { return Vec::new() };
    let mean = |name: &String| {
        let observation = |Counted { metrics, clusters }: &Counted| {
            Some(Observation { value: metrics.get(name)?.as_f64()?, clusters: clusters.clone() })
        };
        Some(Metric::mean_of(name, questions.iter().map(observation).collect::<Option<_>>()?))
    };
    first.metrics.keys().filter_map(mean).collect()
}

/// Computes only the mean accuracy.
pub fn accuracy(questions: &[Counted], mode: Mode) -> Vec<Metric> {
    means(questions, mode).into_iter().filter(|metric| metric.name == "acc_score").collect()
}

/// Computes the means, and the accuracy by `q_number`, the number of the question on its chart, if it is known.
pub fn charxiv(questions: &[Counted], mode: Mode) -> Vec<Metric> {
    let mut metrics = means(questions, mode);
    let mut by_number: Map<String, Value> = Map::new();
    for number in ["1", "2", "3", "4"] {
        let of = |question: &&Counted| question.metrics.get("q_number").is_some_and(|found| found == number);
        let right = questions.iter().filter(of).filter_map(|question| question.metrics.get("acc_score")?.as_f64());
        let right: Vec<f64> = right.collect();
        if !right.is_empty() {
            by_number.insert(number.to_owned(), json!(mean(right.into_iter())));
        }
    }
    if !by_number.is_empty() {
        metrics.push(Metric::alone("acc_by_q_number", by_number.into()));
    }
    metrics
}

/// Computes the metrics of DynaMath: the average and the minimum over the variants of a question, both averaged over
/// questions.
pub fn dynamath(questions: &[Counted], _: Mode) -> Vec<Metric> {
    let mut groups: Vec<Vec<f64>> = Vec::new();
    let mut known: HashMap<String, usize> = HashMap::new();
    for question in questions {
        let variant = &question.metrics["dynamath_average"];
        let group = *known.entry(variant["variant_id"].to_string()).or_insert_with(|| {
            groups.push(Vec::new());
            groups.len() - 1
        });
        groups[group].push(variant["acc"].as_f64().unwrap_or_default());
    }
    let average = groups.iter().map(|acc| mean(acc.iter().copied()));
    let worst = groups.iter().map(|acc| acc.iter().copied().fold(f64::INFINITY, f64::min));
    vec![Metric::mean_of_independent("dynamath_average", average), Metric::mean_of_independent("dynamath_worst", worst)]
}

/// Number of problems that the published score of We-Math divides by.
const WEMATH_PROBLEMS: f64 = 525.0;

/// Computes the four-way score of We-Math, in addition to the means.
pub fn wemath(questions: &[Counted], mode: Mode) -> Vec<Metric> {
    let mut metrics = means(questions, mode);
    let groups: Vec<Group> = [2, 3].into_iter().flat_map(|steps| groups(questions, steps, mode)).collect();
    let counts = Counts::of(&groups);
    for (name, loose) in [("wemath_loose", true), ("wemath_strict", false)] {
        let worth = |group: &Group| Counts::of(std::slice::from_ref(group)).score(1.0, loose);
        metrics.push(match mode {
            Mode::Compat if counts.crashes() => Metric::alone(name, json!({"error": "ZeroDivisionError"})),
            Mode::Compat => {
                let percent = 100.0 * counts.score(WEMATH_PROBLEMS, loose);
                Metric::alone(name, format!("{percent:.2}%").into())
            }
            Mode::Strict if groups.is_empty() => Metric::alone(name, Value::Null),
            Mode::Strict => {
                let value = counts.score(groups.len() as f64, loose);
                Metric { value: value.into(), ..Metric::mean_of_independent(name, groups.iter().map(worth)) }
            }
        });
    }
    metrics
}

/// A problem: correctness of its steps and of the whole problem. `None` marks a missing member, which does not count as
/// correct and does not count as wrong.
struct Group {
    steps: Vec<Option<bool>>,
    whole: Option<bool>,
}

/// Collects the problems with `steps` steps. In compat each first step is joined with all other members of its ID, as
/// often as they occur. In strict only complete problems are used, and the n-th occurrences of all members form a
/// problem.
fn groups(questions: &[Counted], steps: usize, mode: Mode) -> Vec<Group> {
    let mut members: HashMap<(String, String), Vec<bool>> = HashMap::new();
    let mut firsts: Vec<(String, bool)> = Vec::new();
    let keys: Vec<String> =
        (1..=steps).map(|i| i.to_string()).chain(["multi".to_owned()]).map(|i| format!("{steps}steps_{i}")).collect();
    for question in questions {
        let member = &question.metrics["wemath_loose"];
        let (id, key) = (member["ID"].to_string(), member["key"].as_str().unwrap_or_default());
        let right = member["acc_score"].as_f64() == Some(1.0);
        if key == keys[0] {
            firsts.push((id.clone(), right));
        }
        members.entry((id, key.to_owned())).or_default().push(right);
    }
    let of = |id: &String, key: &String| members.get(&(id.clone(), key.clone())).cloned().unwrap_or_default();
    if mode == Mode::Strict {
        let mut seen: HashMap<String, usize> = HashMap::new();
        let complete = |(id, _): &(String, bool)| {
            let n = seen.entry(id.clone()).or_insert(0);
            *n += 1;
            let group: Option<Vec<bool>> = keys.iter().map(|key| of(id, key).get(*n - 1).copied()).collect();
            let group = group?;
            let (whole, steps) = group.split_last()?;
            Some(Group { steps: steps.iter().map(|right| Some(*right)).collect(), whole: Some(*whole) })
        };
        return firsts.iter().filter_map(complete).collect();
    }
    let mut joined: Vec<(&String, Vec<Option<bool>>)> =
        firsts.iter().map(|(id, right)| (id, vec![Some(*right)])).collect();
    for key in &keys[1..] {
        let join = |(id, row): (_, Vec<Option<bool>>)| {
            let found: Vec<Option<bool>> = of(id, key).into_iter().map(Some).collect();
            let found = if found.is_empty() { vec![None] } else { found };
            found.into_iter().map(move |right| (id, [row.clone(), vec![right]].concat())).collect::<Vec<_>>()
        };
        joined = joined.into_iter().flat_map(join).collect();
    }
    let group = |(_, mut row): (_, Vec<Option<bool>>)| Group { whole: row.pop().flatten(), steps: row };
    joined.into_iter().map(group).collect()
}

/// Numbers of problems in We-Math's four categories: inadequate generalisation, insufficient knowledge, complete mastery
/// and rote memorisation. Arrays hold the strict count at index 0 and the loose one at index 1.
#[derive(Default)]
struct Counts {
    inadequate: f64,
    insufficient: f64,
    mastered: [f64; 2],
    by_rote: [f64; 2],
}

impl Counts {
    fn of(groups: &[Group]) -> Counts {
        let mut counts = Counts::default();
        for Group { steps, whole } in groups {
            let all = |right: bool| steps.iter().all(|step| *step == Some(right));
            let any = |right: bool| steps.contains(&Some(right));
            let count = |to: &mut f64, if_so: bool| *to += f64::from(if_so);
            if *whole == Some(false) {
                count(&mut counts.inadequate, all(true));
                count(&mut counts.insufficient, any(false));
            }
            if *whole == Some(true) {
                // In the loose score, one correct step is enough.
                count(&mut counts.mastered[1], any(true));
                count(&mut counts.mastered[0], all(true));
                count(&mut counts.by_rote[1], all(false));
                count(&mut counts.by_rote[0], any(false));
            }
        }
        counts
    }

    /// True if the published code would divide by zero. That code divides by these sums to compute rates that it does
    /// not report.
    fn crashes(&self) -> bool {
        (0..2).any(|i| self.mastered[i] + self.by_rote[i] == 0.0)
    }

    fn score(&self, problems: f64, loose: bool) -> f64 {
        (problems - 0.5 * self.inadequate - self.by_rote[usize::from(loose)] - self.insufficient) / problems
    }
}
