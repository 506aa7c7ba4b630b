//! `omr data inspect`: shows the contents of data sets as text and as a page.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::Context;
use super::args::{Overrides, repository};
use super::stdout::print;
use crate::report;
use omr_base::config::{
    self, ChatTemplateKwargs, Config, DatasetConfig, DistillConfig, EvalConfig, ImageConfig, RecipeConfig, RlConfig,
    SftConfig,
};
use omr_base::error::{Error, Result};
use omr_base::files::{self, Output, is_own_page};
use omr_base::hub::Kind;
use omr_data::image::Processor;
use omr_data::rows::files::paths::has_ending;
use omr_data::rows::inspect::{Inspection, Options, inspect, of_rows, refuse_faults};
use omr_data::rows::{BadRow, Reason, read};
use omr_data::task::{self, Source, TaskSpec};
use omr_data::text::Chat;
use omr_model::nn::ModelConfig;

/// Arguments of `omr data inspect`.
#[derive(clap::Args)]
pub struct Args {
    /// File or folder of rows, a file name pattern, a repository in HF_HOME, or a config that contains data sets
    #[arg(value_name = "PATH|CONFIG")]
    place: PathBuf,
    /// Config keys to set, such as datasets.0.limit=100. Only for a config
    #[arg(value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    /// Model directory or repository. Its tokenizer, chat template and image sizes are used to count tokens
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Number of rows of each data set to print
    #[arg(long, value_name = "N", default_value_t = 2)]
    show: usize,
    /// Number of random rows of each data set to show on the page
    #[arg(long, value_name = "N", default_value_t = 60)]
    rows: usize,
    /// Seed for the choice of random rows
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Folder for inspect.html and summary.json. Without it, only inspect.html is written, to the current folder
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Replace existing files of these names
    #[arg(long)]
    overwrite: bool,
}

/// Reads every row, prints the findings and writes the page.
pub fn run(args: &Args, context: &Context) -> Result<()> {
    let Inspected { datasets, tasks, variables, images } = named(&args.place, &args.overrides)?;
    let model = args.model.as_ref().map(|dir| model(dir, &variables, &images)).transpose()?;
    let page = args.out.clone().unwrap_or_default().join("inspect.html");
    // A second inspection into the same folder replaces what the first wrote there.
    let overwrite = args.overwrite || is_own_page(&page);
    let open = |path: &Path| Output::open(path, overwrite, &[&args.place]);
    let to = open(&page)?;
    let summary_to = args.out.as_ref().map(|out| open(&out.join("summary.json"))).transpose()?;
    let Args { show: first, rows: random, seed, .. } = *args;
    let options = Options { model: model.as_ref(), first, random, seed, shown: Some(report::browser::image_of) };
    let mut found: Vec<_> = datasets.iter().map(|entry| inspect(entry, &options)).collect::<Result<_>>()?;
    if let Some(config) = &tasks {
        for spec in task::named(&config.tasks)?.into_iter().filter(|spec| spec.hub.is_some()) {
            found.push(questions(spec, config, &options)?);
        }
    }
    found.iter().try_for_each(|inspection| print(&inspection.text()))?;
    let place = args.place.display().to_string();
    to.write(report::inspect::page(&place, &found, args.seed)?.as_bytes())?;
    context.say(&format!("wrote {}", page.display()));
    if let Some(to) = summary_to {
        let rows: usize = found.iter().map(|f| f.rows).sum();
        let faulty: usize = found.iter().map(Inspection::faulty).sum();
        let sets: Vec<_> = found.iter().map(|f| f.json()).collect();
        let summary = json!({"in": rows, "kept": rows - faulty, "rejected": {"fault": faulty}, "datasets": sets});
        to.write(format!("{summary:#}\n").as_bytes())?;
    }
    refuse_faults(&place, &found)?;
    found.iter().try_for_each(|inspection| inspection.seen.check().and_then(|()| inspection.seen.check_texts()))
}

/// Loads the chat template with `variables`, and the image processor of the model that `--model` names, with the settings
/// `images`.
pub(super) fn model(
    dir: &Path,
    variables: &Map<String, Value>,
    images: &ImageConfig,
) -> Result<(Chat, Option<Processor>)> {
    let dir = repository(dir, Kind::Model, "--model")?;
    let config = ModelConfig::load(&dir.join("config.json"))?.chat();
    let chat = Chat::load(&dir, &config)?.with_variables(variables)?;
    Ok((chat, Processor::of_model(&dir, config.media, images)?))
}

/// Inspects the questions of a task as a data set.
fn questions(spec: &TaskSpec, config: &EvalConfig, options: &Options) -> Result<Inspection> {
    let mut left = config.limit.unwrap_or(usize::MAX);
    of_rows(spec.name.to_owned(), options, |take| {
        spec.questions(&Source::of(config), &mut |asked| {
            take(asked.row.map_err(|crash| BadRow::of(Reason::WrongColumns)(crash.error(&asked.place))))?;
            left -= 1;
            Ok(if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })
    })
}

/// Data to inspect.
pub(super) struct Inspected {
    /// Data sets of rows.
    pub(super) datasets: Vec<DatasetConfig>,
    /// A config whose tasks are inspected.
    tasks: Option<EvalConfig>,
    /// Variables of the chat template.
    pub(super) variables: Map<String, Value>,
    /// Sizes of images.
    pub(super) images: ImageConfig,
}

/// Returns the data sets at the given path, or those of a config of data, sft, rl, eval or recipe.
pub(super) fn named(place: &Path, overrides: &[String]) -> Result<Inspected> {
    let is_config = ["yaml", "yml"].iter().any(|ending| has_ending(place, ending));
    if !is_config {
        if let Some(key) = overrides.first() {
            return Err(Error::input("command line", key, "no config keys, because the path is not a config"));
        }
        let datasets = vec![read::entry(repository(place, Kind::Dataset, "omr data")?)];
        return Ok(Inspected { datasets, tasks: None, variables: Map::new(), images: ImageConfig::default() });
    }
    let text = files::read_config(place).map_err(Error::io(place))?;
    let kinds = [
        config::kind::<DistillConfig>(),
        config::kind::<SftConfig>(),
        config::kind::<RlConfig>(),
        config::kind::<EvalConfig>(),
        config::kind::<RecipeConfig>(),
    ];
    let kind = config::likeliest(&text, &kinds);
    let overrides = Overrides { overrides: overrides.to_vec(), print_config: false };
    let mut tasks = None;
    let (datasets, kwargs, images) = match kind {
        SftConfig::NAME => {
            let SftConfig { datasets, validation, training, .. } = load(&overrides, place)?;
            ([datasets, validation.val_files].concat(), training.chat_template_kwargs, training.images)
        }
        RlConfig::NAME => {
            let RlConfig { train_files, validation, training, .. } = load(&overrides, place)?;
            ([train_files, validation.val_files].concat(), training.chat_template_kwargs, training.images)
        }
        EvalConfig::NAME => {
            let config: EvalConfig = load(&overrides, place)?;
            tasks = config.data_dir.is_some().then(|| config.clone());
            (config.data, config.chat_template_kwargs, config.images)
        }
        RecipeConfig::NAME => {
            let RecipeConfig { data, sft, .. } = load(&overrides, place)?;
            (data.stage.datasets, sft.training.chat_template_kwargs, sft.training.images)
        }
        _ => {
            let datasets = load::<DistillConfig>(&overrides, place)?.stage.datasets;
            (datasets, ChatTemplateKwargs::default(), ImageConfig::default())
        }
    };
    if datasets.is_empty() && tasks.is_none() {
        let found = format!("a config of `omr {kind}` without rows");
        let expected = "a config with rows (for `omr eval`: with data_dir=DIR), or the path of the rows";
        return Err(Error::input(place, found, expected));
    }
    Ok(Inspected { datasets, tasks, variables: kwargs.variables(), images })
}

/// Loads a config and resolves the paths of its rows. Its models may be missing.
fn load<C: Config>(overrides: &Overrides, place: &Path) -> Result<C> {
    let mut config = overrides.read::<C>(Some(place), None)?.unwrap_or_default();
    for (key, source) in config.sources() {
        if let config::Source::Rows(path) = source {
            *path = repository(path, Kind::Dataset, &key)?;
        }
    }
    Ok(config)
}
