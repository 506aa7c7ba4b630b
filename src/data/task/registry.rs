//! The table of tasks, and functions that find tasks by name.

use std::sync::LazyLock;

use serde::Deserialize;

use super::dataset::Hub;
use super::recipe::Recipe;
use super::spec::TaskSpec;
use super::{
    aime, charts, charxiv, digits, dynamath, gpqa, logicvista, mathverse, mathvision, mathvista, mmmu, mmmu_pro, wemath,
};
use omr_base::error::{Error, Result};

/// The tasks for evaluation. The first one is the default.
pub static TASKS: LazyLock<Vec<TaskSpec>> = LazyLock::new(|| CODE.iter().map(|task| described(*task)).collect());

/// Description of a benchmark in `benchmarks.json`: its names, a line for users, and its data set.
#[derive(Deserialize)]
struct Benchmark<'a> {
    name: &'a str,
    aliases: Vec<&'a str>,
    questions: usize,
    about: &'a str,
    #[serde(borrow)]
    hub: Hub<'a>,
}

static BENCHMARKS: LazyLock<Vec<Benchmark<'static>>> =
    LazyLock::new(|| serde_json::from_str(include_str!("benchmarks.json")).expect("a fixed text"));

/// Adds the description from `benchmarks.json` to the task of a benchmark. Other tasks are returned unchanged.
fn described(task: TaskSpec) -> TaskSpec {
    match BENCHMARKS.iter().find(|known| known.name == task.name) {
        Some(Benchmark { aliases, questions, about, hub, .. }) => {
            TaskSpec { aliases, questions: Some(*questions), about, hub: Some(hub), ..task }
        }
        None => task,
    }
}

/// The code of the tasks, one file each.
const CODE: &[TaskSpec] = &[
    digits::TASK,
    charts::TASK,
    mathvista::TASK,
    mathvision::TEST,
    mathvision::TESTMINI,
    mathverse::TASK,
    dynamath::TASK,
    wemath::TASK,
    logicvista::TASK,
    mmmu::TASK,
    mmmu_pro::STANDARD,
    mmmu_pro::VISION,
    charxiv::REASONING_TASK,
    charxiv::DESCRIPTIVE_TASK,
    gpqa::TASK,
    aime::AIME24,
    aime::AIME25,
    aime::AMC23,
];

/// Names that stand for several tasks, as in the published evaluation.
pub const GROUPS: &[(&str, &[&str])] = &[
    ("aime_agg8", &["aime24", "aime25"]),
    ("mmmu_pro", &["mmmu_pro_standard", "mmmu_pro_vision"]),
    ("mmmu_pro_cot", &["mmmu_pro_standard", "mmmu_pro_vision"]),
    ("charxiv", &["charxiv_reasoning", "charxiv_descriptive"]),
];

/// Returns the task with a name or alias. The error lists the known tasks.
pub fn find(name: &str) -> Result<&'static TaskSpec> {
    let known = |task: &&TaskSpec| task.name == name || task.aliases.contains(&name);
    TASKS.iter().find(known).ok_or_else(|| {
        let names: Vec<&str> = TASKS.iter().map(|task| task.name).collect();
        Error::input("--tasks", name, format!("a task of `omr eval --list`: {}", names.join(", ")))
    })
}

/// Returns the task with this name, and its recipe. If there is no such task or it has no recipe, returns an error that
/// lists the tasks with a recipe.
pub fn recipe_of(name: &str) -> Result<(&'static TaskSpec, &'static Recipe)> {
    let with_recipe = || TASKS.iter().filter_map(|task| Some((task, task.recipe.as_ref()?)));
    with_recipe().find(|(task, _)| task.name == name).ok_or_else(|| {
        let names: Vec<&str> = with_recipe().map(|(task, _)| task.name).collect();
        Error::input("task.name", name, names.join(", "))
    })
}

/// Returns the tasks for names, aliases and groups, each once, in the given order. The error lists the known tasks.
pub fn named(names: &[String]) -> Result<Vec<&'static TaskSpec>> {
    let mut tasks: Vec<&'static TaskSpec> = Vec::new();
    for name in names {
        let group = GROUPS.iter().find(|(group, _)| group == name);
        let members = group.map_or_else(|| vec![name.as_str()], |(_, members)| members.to_vec());
        for member in members {
            let spec = find(member)?;
            if !tasks.iter().any(|known| known.name == spec.name) {
                tasks.push(spec);
            }
        }
    }
    Ok(tasks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_benchmark_that_is_described_is_a_task() {
        for known in BENCHMARKS.iter() {
            let task = find(known.name).unwrap();
            assert_eq!((task.about, task.hub.map(|hub| hub.repo)), (known.about, Some(known.hub.repo)));
        }
        assert_eq!(TASKS.iter().filter(|task| task.hub.is_some()).count(), BENCHMARKS.len());
    }

    #[test]
    fn every_name_leads_to_one_task() {
        let mut names: Vec<&str> =
            TASKS.iter().flat_map(|task| task.aliases.iter().copied().chain([task.name])).collect();
        for name in &names {
            assert!(find(name).is_ok_and(|task| task.name == *name || task.aliases.contains(name)));
        }
        names.extend(GROUPS.iter().map(|(group, _)| *group));
        names.sort_unstable();
        assert!(names.windows(2).all(|two| two[0] != two[1]), "{names:?}");
        let error = find("no such task").err().unwrap();
        assert!(error.exit_code() == 2 && error.to_string().contains(TASKS[0].name), "{error}");
    }

    #[test]
    fn groups_are_their_members_once() {
        for (group, members) in GROUPS {
            let twice = [(*group).to_owned(), members[0].to_owned()];
            assert_eq!(named(&twice).unwrap().len(), members.len(), "{group}");
        }
    }

    #[test]
    fn a_task_that_no_recipe_teaches_is_refused_with_those_that_one_does() {
        let error = recipe_of("no such task").err().unwrap();
        let text = error.to_string();
        assert!(error.exit_code() == 2 && text.contains("task.name") && text.contains(digits::NAME), "{text}");
    }
}
