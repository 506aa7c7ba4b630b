//! Finds all keys of a config file or command line that do not exist, and reports them together with what to use instead.

use std::collections::BTreeSet;

use serde_json::Value;

use super::foreign::Foreign;
use super::setting::{Key, Place};
use super::table::join;
use super::{Config, keys, nearest};
use crate::error::{Error, Result};

/// Maximum number of unknown keys that are looked up. It is far above the number of keys that any system has.
const MOST_LISTED: usize = 1000;

/// Maximum length of a key for which a similar one is searched.
const MOST_LETTERS: usize = 64;

/// Groups of a config of `omr recipe` that no other config has.
const STAGES: [&str; 4] = ["task", "base", "sft", "rl"];

/// Hint of the error for one key.
const HINT: &str = "`omr config` lists all keys with their names in other systems";

/// An unknown key, or an unknown group with its keys.
struct Unknown {
    /// The known group that contains the key, without indices of lists.
    group: String,
    /// Path of this group as the user wrote it.
    written: String,
    /// Name of the key in the group.
    name: String,
    /// Paths below the group: the name, or in an unknown group those of its keys.
    leaves: Vec<String>,
}

/// Replacement of an unknown key.
enum Answer {
    /// The counterpart of a key of another system or command.
    Counterpart(String),
    /// A key with a similar name, or with the same name in another group.
    Similar(String),
    /// No key is similar.
    Nothing,
}

/// Returns an error if `tree` contains unknown keys. The error contains all of them, each with what to use instead.
pub(super) fn refuse<C: Config>(place: &Place, tree: &Value) -> Result<()> {
    let keys = keys::<C>();
    let known = Known::new(&keys);
    let mut found = Vec::new();
    known.search("", "", tree, &mut found);
    let stages = found.iter().filter(|unknown| unknown.group.is_empty() && STAGES.contains(&&*unknown.name));
    if let [first, second, ..] = stages.map(|unknown| &*unknown.name).collect::<Vec<_>>()[..] {
        let expected = format!("the keys of `omr {}`; `omr recipe FILE` runs a config with several stages", C::NAME);
        return Err(Error::input(place.origin(first), format!("the groups {first} and {second}"), expected));
    }
    let (mut room, mut hidden) = (MOST_LISTED, 0);
    for unknown in &mut found {
        hidden += unknown.leaves.len().saturating_sub(room);
        unknown.leaves.truncate(room);
        room -= unknown.leaves.len();
    }
    let names = Foreign::new(&keys);
    let listed = found.iter().filter(|unknown| !unknown.leaves.is_empty());
    let answers: Vec<(String, Answer)> = listed.flat_map(|unknown| known.answers(unknown, &names)).collect();
    match &answers[..] {
        [] => Ok(()),
        [(path, answer)] => Err(known.single(place, path, answer)),
        _ => Err(several(place, &answers, hidden)),
    }
}

/// Returns the error for several unknown keys. `hidden` more keys have no answer.
fn several(place: &Place, answers: &[(String, Answer)], hidden: usize) -> Error {
    let line = |(path, answer): &(String, Answer)| match answer {
        Answer::Counterpart(ours) => format!("\n- {path} -> {ours}"),
        Answer::Similar(near) => format!("\n- {path} -> {near}?"),
        Answer::Nothing => format!("\n- {path} -> no key is similar"),
    };
    let lines: String = answers.iter().map(line).collect();
    let more = if hidden == 0 { String::new() } else { format!("\n- {hidden} more keys are not listed") };
    let origins: BTreeSet<String> = answers.iter().map(|(path, _)| place.origin(path)).collect();
    Error::input(
        origins.into_iter().collect::<Vec<_>>().join(" and "),
        format!("{} unknown keys", answers.len() + hidden),
        format!("these instead (`omr config --from FILE` converts a config of another system):{lines}{more}"),
    )
}

/// The paths of all keys and groups of a kind of config, without the marks of lists.
struct Known(BTreeSet<String>);

impl Known {
    fn new(keys: &[Key]) -> Known {
        let mut known = BTreeSet::new();
        for key in keys {
            let path = key.path.replace("[]", "");
            known.extend(path.match_indices('.').map(|(i, _)| path[..i].to_owned()));
            known.insert(path);
        }
        Known(known)
    }

    /// Returns the names of the keys and groups in the group `path`.
    fn children<'a>(&'a self, path: &str) -> impl Iterator<Item = &'a str> {
        let below = if path.is_empty() { String::new() } else { format!("{path}.") };
        let paths = self.0.range(below.clone()..).map_while(move |known| known.strip_prefix(&below));
        paths.filter(|name| !name.contains('.'))
    }

    /// Appends the unknown keys of `value`, the value of the group `group`, which the user wrote as `written`.
    fn search(&self, group: &str, written: &str, value: &Value, out: &mut Vec<Unknown>) {
        if let Value::Array(list) = value {
            list.iter().enumerate().for_each(|(i, value)| self.search(group, &format!("{written}.{i}"), value, out));
        }
        for (name, value) in value.as_object().into_iter().flatten() {
            let path = join(group, name);
            if name.contains('.') || !self.0.contains(&path) {
                let mut leaves = Vec::new();
                collect(name, value, &mut leaves);
                out.push(Unknown { group: group.to_owned(), written: written.to_owned(), name: name.clone(), leaves });
            } else if self.children(&path).next().is_some() {
                self.search(&path, &join(written, name), value, out);
            }
        }
    }

    /// Returns the answers for an unknown key or group, each with the path of the key. A group has one answer if it is
    /// the answer for all of its keys, or if none of them has one.
    fn answers(&self, unknown: &Unknown, names: &Foreign) -> Vec<(String, Answer)> {
        let path = |leaf: &str| join(&unknown.written, leaf);
        let whole = join(&unknown.group, &unknown.name);
        if let Some((group, last)) =
            whole.rsplit_once('.').filter(|_| unknown.name.contains('.') && self.0.contains(&whole))
        {
            let nested = format!("{last} in the group {group} (a file has no keys with dots)");
            return vec![(path(&unknown.name), Answer::Counterpart(nested))];
        }
        let counterpart = |leaf: &str| {
            // As in the config of a recipe, where the keys are in groups.
            let inside = leaf.split_once('.').filter(|(_, key)| unknown.group.is_empty() && self.0.contains(*key));
            names.counterpart(&unknown.group, leaf).or_else(|| inside.map(|(_, key)| key.to_owned()))
        };
        let answers = unknown.leaves.iter().map(|leaf| (leaf, counterpart(leaf)));
        let answers: Vec<(&String, Option<String>)> = answers.collect();
        let first = answers.first().and_then(|(_, answer)| answer.clone());
        if answers.iter().all(|(_, answer)| *answer == first) {
            let shown = if let (Some(_), [(leaf, _)]) = (&first, &answers[..]) { *leaf } else { &unknown.name };
            let answer = first.map_or_else(|| self.similar(&unknown.group, &unknown.name), Answer::Counterpart);
            return vec![(path(shown), answer)];
        }
        let answer = |answer: Option<String>| answer.map_or(Answer::Nothing, Answer::Counterpart);
        answers.into_iter().map(|(leaf, ours)| (path(leaf), answer(ours))).collect()
    }

    /// Returns the most similar name in `group`, or the keys with the same name in other groups.
    fn similar(&self, group: &str, name: &str) -> Answer {
        let last = name.rsplit('.').next().unwrap_or(name);
        let same: Vec<&str> =
            self.0.iter().map(String::as_str).filter(|key| key.rsplit('.').next() == Some(last)).collect();
        let near = || nearest(last, self.children(group)).map(str::to_owned);
        match (last.len() <= MOST_LETTERS).then(near).flatten() {
            Some(near) => Answer::Similar(near),
            None if same.is_empty() => Answer::Nothing,
            None => Answer::Similar(same.join(" or ")),
        }
    }

    /// Returns the error for the only unknown key.
    fn single(&self, place: &Place, path: &str, answer: &Answer) -> Error {
        let (group, last) = path.rsplit_once('.').unwrap_or(("", path));
        // Only its group makes a key unknown whose last part is a key here.
        let shown = if matches!(answer, Answer::Counterpart(ours) if path.ends_with(ours)) { path } else { last };
        let found = format!("the unknown key {shown}");
        let indices = |part: &&str| part.parse::<usize>().is_err();
        let siblings =
            self.children(&group.split('.').filter(indices).collect::<Vec<_>>().join(".")).collect::<Vec<_>>();
        let expected = match (answer, siblings.len()) {
            (Answer::Counterpart(ours), _) => ours.clone(),
            (_, 1..=6) => format!("one of {}", siblings.join(", ")),
            _ => "a known key".to_owned(),
        };
        let hint = if let Answer::Similar(near) = answer { format!("did you mean {near}?") } else { HINT.to_owned() };
        Error::input_hint(place.of(path), found, expected, hint)
    }
}

/// Appends the paths of the keys with values in `value`, the value of the key `path`.
fn collect(path: &str, value: &Value, out: &mut Vec<String>) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            map.iter().for_each(|(name, value)| collect(&join(path, name), value, out))
        }
        _ => out.push(path.to_owned()),
    }
}
