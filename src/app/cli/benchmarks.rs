//! `omr eval --download`: downloads the files of benchmarks from the Hugging Face hub.

use std::collections::BTreeMap;
use std::path::Path;

use glob::Pattern;

use super::Context;
use omr_base::error::{Error, Result};
use omr_base::hub::download::{self, Job};
use omr_base::hub::{Repo, Settings};
use omr_base::observe::bytes;
use omr_data::rows::files::shards;
use omr_data::task::{TaskSpec, hub};

/// Branch with parquet files that the hub makes from files of other formats.
const CONVERTED: &str = "refs/convert/parquet";

/// Downloads the files of `tasks` into subfolders of `folder`, after printing the size of all of them. With `dry_run`, only
/// prints the size. If a data set cannot be downloaded, continues with the others and returns its error at the end.
pub fn download(tasks: &[&TaskSpec], folder: Option<&Path>, dry_run: bool, context: &Context) -> Result<()> {
    context.alone("--download runs in one process. Download first, then evaluate with several")?;
    let expected = "--data with the folder for the files";
    let folder = folder.ok_or_else(|| Error::input("--download", "no --data", expected))?;
    let settings = Settings::of(&|name| std::env::var(name).ok())?;
    let mut failed = None;
    let mut fail = |name: &str, error: Error| {
        context.say(&format!("{name} is left out: {error}"));
        failed.get_or_insert(error);
    };
    context.runtime()?.block_on(async {
        // The repositories by their folders, with the sizes of the files.
        let mut sets: BTreeMap<_, (Repo, BTreeMap<String, u64>)> = BTreeMap::new();
        for spec in tasks {
            match files(spec, &settings).await {
                Ok((repo, files)) => {
                    let dir = hub::subfolder(spec, &repo.id, folder);
                    sets.entry(dir).or_insert((repo, BTreeMap::new())).1.extend(files);
                }
                Err(error) => fail(spec.name, error),
            }
        }
        let sizes: Vec<u64> = sets.values().flat_map(|(_, files)| files.values().copied()).collect();
        let (size, files, folder) =
            (bytes(sizes.iter().fold(0, |sum: u64, size| sum.saturating_add(*size))), sizes.len(), folder.display());
        let (tasks, all_sets) = (tasks.len(), sets.len());
        context.say(&format!("{tasks} tasks: {size} in {files} files of {all_sets} data sets, for {folder}"));
        for (dir, (repo, files)) in sets.into_iter().filter(|_| !dry_run) {
            let include = files.keys().map(|path| Pattern::new(&Pattern::escape(path)).expect("an escaped path"));
            let (id, job) = (repo.id.clone(), Job { repo, dir, include: include.collect(), workers: 8 });
            job.run(&settings, context.observer()).await.unwrap_or_else(|error| fail(&id, error));
        }
    });
    failed.map_or(Ok(()), Err)
}

/// Returns the repository of a task with the paths and sizes of the task's files.
async fn files(spec: &TaskSpec, settings: &Settings) -> Result<(Repo, BTreeMap<String, u64>)> {
    let expected = "a task with a data set on the hub";
    let set = spec.hub.ok_or_else(|| Error::input("--download", format!("the task {}", spec.name), expected))?;
    let of = |revision: &str| format!("datasets/{}@{revision}", set.repo).parse::<Repo>();
    let is_parquet = |(path, _): &(String, u64)| path.ends_with(".parquet");
    let mut repo = of("main")?;
    let mut files = download::files(&repo, settings).await?;
    if !files.iter().any(is_parquet) {
        repo = of(CONVERTED)?;
        files = download::files(&repo, settings).await?;
    }
    files.retain(is_parquet);
    let root = Path::new(set.repo);
    let chosen = set.choose(root, files.iter().map(|(path, _)| root.join(path)).collect())?;
    if let Some((gone, _)) = shards::lacking(&chosen, &|_| true).first() {
        return Err(Error::input(set.repo, format!("no {}", gone.display()), "all files of the data set"));
    }
    Ok((repo, files.into_iter().filter(|(path, _)| chosen.contains(&root.join(path))).collect()))
}
