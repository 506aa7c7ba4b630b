//! `omr data preview`: shows rows as a model sees them, as text and as a page.

use std::path::PathBuf;

use super::Context;
use super::inspect::{Inspected, model, named};
use super::stdout::print_marked;
use crate::report;
use omr_base::error::{Error, Result};
use omr_base::files::Output;
use omr_data::rows::inspect::{Preview, Previewer};

/// Arguments of `omr data preview`.
#[derive(clap::Args)]
pub struct Args {
    /// File or folder of rows, a file name pattern, a repository in HF_HOME, or a config that contains data sets
    #[arg(value_name = "ROWS|CONFIG")]
    place: PathBuf,
    /// Config keys to set, such as datasets.0.limit=100. Only for a config
    #[arg(value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    /// Model directory. Its tokenizer, chat template and image sizes are used
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Number of rows of each data set to show
    #[arg(long, value_name = "N", default_value_t = 3)]
    rows: usize,
    /// Folder for preview.html. Without it, the page is written to the current folder
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Replace an existing page
    #[arg(long)]
    overwrite: bool,
}

/// Prints the rows and writes the page.
pub fn run(args: &Args, context: &Context) -> Result<()> {
    let Inspected { datasets, variables, images, .. } = named(&args.place, &args.overrides)?;
    if datasets.is_empty() {
        return Err(Error::input(&args.place, "a config without rows", "a config with rows"));
    }
    let (chat, processor) = model(&args.model, &variables, &images)?;
    let previewer = Previewer { chat, processor, show: report::browser::image_of };
    let page = args.out.clone().unwrap_or_default().join("preview.html");
    let to = Output::open(&page, args.overwrite, &[&args.place, &args.model])?;
    let mut rows: Vec<Preview> = Vec::new();
    for entry in &datasets {
        rows.extend(previewer.rows(entry, args.rows)?);
    }
    for row in &rows {
        let head = format!("{}\n{}\n", row.id, report::preview::facts(row));
        let pieces = row.pieces.iter().map(|piece| (piece.trained, piece.text.as_str()));
        print_marked([(false, head.as_str())].into_iter().chain(pieces).chain([(false, "\n\n")]))?;
    }
    to.write(report::preview::page(&args.place.display().to_string(), &rows)?.as_bytes())?;
    context.say(&format!("wrote {}", page.display()));
    Ok(())
}
