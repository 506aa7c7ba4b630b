//! `omr upload`: uploads a model, with a model card and the metrics of its run, to the Hugging Face hub.

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::Context;
use super::stdout::print;
use crate::report::model_card;
use omr_base::error::{Error, Result};
use omr_base::files;
use omr_base::hub::upload::{Job, Upload};
use omr_base::hub::{Kind, Repo, Settings, local};
use omr_base::identity::{Manifest, Part};
use omr_base::observe::bytes;

/// Files of a run that are uploaded beside its model, in the folder `training`.
const OF_RUN: [&str; 4] = ["config.yaml", "metrics.jsonl", "report.html", "summary.json"];

/// Arguments of `omr upload`.
#[derive(clap::Args)]
#[command(after_help = "A README.md in DIR is uploaded as it is; otherwise a model card is written from the run. To \
    continue a stopped upload, run the same command again. HF_TOKEN, HF_ENDPOINT, HF_HOME and HF_HUB_OFFLINE work as \
    in the Hugging Face libraries.")]
pub struct Args {
    /// Run directory of omr sft or omr rl, or a model directory
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Repository, optionally with @BRANCH. It is created if it does not exist
    #[arg(long, value_name = "ORG/NAME")]
    to: String,
    /// Create a private repository, and refuse one that is public
    #[arg(long)]
    private: bool,
    /// Print the files, their sizes and the model card, and exit
    #[arg(long)]
    dry_run: bool,
    /// Number of files sent at once
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=64))]
    max_workers: u8,
}

/// Uploads the files and prints the address of the commit to stdout.
pub fn run(args: &Args, context: &Context) -> Result<()> {
    let repo: Repo = args.to.parse()?;
    if repo.kind == Some(Kind::Dataset) || !args.to.contains('/') {
        return Err(Error::input("--to", format!("{:?}", args.to), "a model repository, ORG/NAME"));
    }
    let is_run = args.dir.join("model/config.json").exists();
    let model = if is_run { args.dir.join("model") } else { args.dir.clone() };
    local::inside(&args.dir, &model)?;
    let mut files = model_files(&model)?;
    for name in OF_RUN.iter().filter(|name| is_run && args.dir.join(name).exists()) {
        files.push(upload(format!("training/{name}"), &args.dir, &args.dir.join(name))?);
    }
    let own = args.dir.join("README.md");
    let mut written = tempfile::NamedTempFile::new().map_err(Error::io("a temporary file"))?;
    if is_run && own.exists() {
        files.retain(|file| file.path != "README.md");
        files.push(upload("README.md".to_owned(), &args.dir, &own)?);
    } else if !files.iter().any(|file| file.path == "README.md") {
        let run = if is_run { Some(args.dir.as_path()) } else { model_card::run_of(&model) };
        let text = model_card::write(run, &repo.id)?;
        written.write_all(text.as_bytes()).map_err(Error::io(written.path()))?;
        files.push(upload("README.md".to_owned(), written.path(), written.path())?);
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    if args.dry_run {
        return plan(&files);
    }
    let settings = Settings::of(&|name| std::env::var(name).ok())?;
    let job = Job { repo, private: args.private, files, workers: usize::from(args.max_workers) };
    let address = context.runtime()?.block_on(job.run(&settings, context.observer()))?;
    print(&format!("{address}\n"))
}

/// Returns the file `source` of `folder`, to be uploaded as `path`.
fn upload(path: String, folder: &Path, source: &Path) -> Result<Upload> {
    let source = local::inside(folder, source)?;
    let size = std::fs::metadata(&source).map_err(Error::io(&source))?.len();
    Ok(Upload { path, source, size })
}

/// Returns the files of the model in `dir`, except hidden ones and the trainer's state of a checkpoint. Errors if a file
/// is not what `MANIFEST` lists, or if a link leads to a folder.
fn model_files(dir: &Path) -> Result<Vec<Upload>> {
    if let Some(manifest) = Manifest::read(dir)? {
        [Part::Settings, Part::Tensors].into_iter().try_for_each(|part| manifest.check(dir, part))?;
    }
    let found = files::below(dir, &mut |inner, is_folder| {
        let source = dir.join(inner);
        let refused = |found, expected| Err(Error::input(&source, found, expected));
        match inner.file_name().and_then(OsStr::to_str) {
            None => refused("a name that is not UTF-8", "a name in UTF-8"),
            Some(name) if name.starts_with('.') || inner == Path::new("trainer") => Ok(false),
            Some(_) if is_folder && source.is_symlink() => refused("a link to a folder", "a folder or a file"),
            Some(_) => Ok(is_folder || source.is_file()),
        }
    })?;
    let name = |inner: &PathBuf| inner.to_string_lossy().into_owned();
    let files: Vec<Upload> =
        found.iter().map(|inner| upload(name(inner), dir, &dir.join(inner))).collect::<Result<_>>()?;
    let has = |ending: &str| files.iter().any(|file| file.path.ends_with(ending) && !file.path.contains('/'));
    if has("config.json") && has(".safetensors") {
        return Ok(files);
    }
    let stages = ["rl", "sft"].map(|stage| dir.join(stage)).into_iter().find(|dir| dir.join("model").is_dir());
    let hint = stages.map_or("omr sft and omr rl make run directories".to_owned(), |dir| dir.display().to_string());
    let found = "no config.json with weights (*.safetensors)";
    Err(Error::input_hint(dir, found, "a run directory or a model directory", hint))
}

/// Prints the files with their sizes, and the model card.
fn plan(files: &[Upload]) -> Result<()> {
    let lines: String = files.iter().map(|file| format!("{:>10}  {}\n", bytes(file.size), file.path)).collect();
    let total = bytes(files.iter().map(|file| file.size).sum());
    let readme = files.iter().find(|file| file.path == "README.md");
    let text = readme.map(|file| files::read_to_string(&file.source).map_err(Error::io(&file.source)));
    let (count, text) = (files.len(), text.transpose()?.unwrap_or_default());
    print(&format!("{lines}{total:>10}  in {count} files\n\nREADME.md:\n\n{text}"))
}
