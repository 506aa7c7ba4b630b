//! Reads rows of published data sets one after another from the hub's parquet files in the user's folder, and converts
//! them to questions.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::crash::PublishedResult;
use super::dataset::Hub;
use super::doc::{Doc, Prompt};
use super::spec::{Source, TaskQuestion, TaskSpec};
use crate::rows::forms::fields::RawImage;
use crate::rows::readers::columns::{self, Columns};
use crate::rows::samples::sample::SYSTEM_PROMPT;
use crate::rows::{ImageSource, Row};
use crate::text::Message;
use omr_base::error::{Error, Result};

/// Key of `extra` with the name of a question's cluster.
pub const CLUSTER: &str = "cluster";

/// Key of `extra` with a question's subject.
pub const SUBJECT: &str = "subject";

/// Returns the subfolder of `folder` with a task's files: named after the task, one of its aliases, or the repository
/// `repo`. If none exists, returns the one named after the repository.
pub fn subfolder(spec: &TaskSpec, repo: &str, folder: &Path) -> PathBuf {
    let short = repo.rsplit('/').next().unwrap_or(repo);
    let names = [spec.name].into_iter().chain(spec.aliases.iter().copied()).chain([repo, short]);
    let found = names.map(|name| folder.join(name)).find(|path| path.is_dir());
    found.unwrap_or_else(|| folder.join(short))
}

/// Returns a task's files in the folder given by the user.
pub fn files(spec: &TaskSpec, source: &Source) -> Result<Vec<PathBuf>> {
    let hub = of(spec)?;
    let expected =
        || format!("a folder `{}` or `{}` with the parquet files of {}", spec.name, hub.repo, hub.describe());
    let Some(folder) = source.folder else {
        return Err(Error::input("--data, data_dir or val_data_dir", "nothing", expected()));
    };
    match subfolder(spec, hub.repo, folder) {
        path if path.is_dir() => hub.files(&path),
        _ => {
            let hint = format!("omr eval --download --tasks {} --data {}", spec.name, folder.display());
            Err(Error::input_hint(folder, format!("no files of {}", spec.name), expected(), hint))
        }
    }
}

fn of(spec: &TaskSpec) -> Result<&'static Hub<'static>> {
    spec.hub.ok_or_else(|| Error::Failed(format!("{}: this task has no data set on the hub", spec.name)))
}

/// Passes the rows of a task's files to `take`, in order, until `take` returns `Break`.
pub fn docs(
    spec: &TaskSpec,
    source: &Source,
    take: &mut dyn FnMut(Doc) -> Result<ControlFlow<()>>,
) -> Result<ControlFlow<()>> {
    let hub = of(spec)?;
    let optional: Vec<&str> = hub.optional.iter().copied().chain(hub.subject.column()).collect();
    let wanted = Columns { needed: &hub.columns, optional: &optional, images: &hub.images };
    let mut first = 0;
    for path in files(spec, source)? {
        let flow = columns::choose(&path, &wanted, |row, (fields, images)| {
            let place = format!("{} row {}", path.display(), row + 1);
            let image = |(name, raw): (String, RawImage)| match raw.bytes {
                Some(bytes) => Some((name, Some(ImageSource::Bytes { bytes, path: raw.path }))),
                None => raw.path.filter(|path| path.trim().is_empty()).map(|_| (name, None)),
            };
            let images = images.into_iter().filter_map(image).collect();
            let subject = hub.subject.of(&fields);
            take(Doc { index: first + row, fields, place, subject, images })
        })?;
        if flow.is_break() {
            return Ok(flow);
        }
        first += columns::count(&path)?;
    }
    Ok(ControlFlow::Continue(()))
}

/// Makes question `index` of a task from `doc` and its prompt.
pub fn task_question(spec: &TaskSpec, index: usize, doc: &Doc, prompt: PublishedResult<Prompt>) -> TaskQuestion {
    let row = prompt.map(|prompt| {
        let Prompt { parts, images, question, target, gold, mut extra, cluster } = prompt;
        extra.insert("target".to_owned(), target);
        extra.extend(cluster.map(|cluster| (CLUSTER.to_owned(), cluster.into())));
        extra.extend(doc.subject.clone().map(|subject| (SUBJECT.to_owned(), subject.into())));
        extra.insert("judge_question".to_owned(), question.map_or(Value::Null, Value::String));
        let user = Message { role: "user".to_owned(), content: parts, masked: false };
        Row {
            id: format!("{}-{index}", spec.name),
            messages: vec![Message::text("system", SYSTEM_PROMPT), user],
            images,
            data_source: spec.name.to_owned(),
            ground_truth: Some(gold),
            extra,
            place: doc.place.clone(),
            ..Row::default()
        }
    });
    TaskQuestion { index, place: doc.place.clone(), row }
}
