//! Writes an HTML page that shows groups of equal rows side by side. The page loads nothing from the network.

use base64::Engine as _;
use minijinja::context;

use crate::pipeline::dedup::hashes::RowHashes;
use crate::pipeline::stage::{Input, Work};
use omr_base::error::Result;
use omr_base::files;
use omr_base::frame::{self, Scripts};
use omr_data::image::{Backend, jpeg, resize};
use omr_data::rows::Row;

/// Maximum number of groups on the page, and of rows per group.
const GROUPS: usize = 100;
const MEMBERS: usize = 6;
/// Maximum length of the longer side of an image on the page, in pixels.
const SIDE: u32 = 200;
/// Maximum number of characters of a question on the page.
const SHOWN: usize = 400;

/// Writes `dedup.html` with at most `GROUPS` of the `groups`, spread evenly from the first to the last. `dropped`
/// returns the reason why a row is removed, or `None` if the row is kept.
pub fn write(
    work: &Work,
    inputs: &[&Input],
    rows: &RowHashes,
    groups: &[Vec<u32>],
    dropped: &dyn Fn(u32) -> Option<&'static str>,
) -> Result<()> {
    let shown = groups.len().min(GROUPS);
    let mut sections = Vec::new();
    for k in 0..shown {
        let group = &groups[k * groups.len() / shown];
        let mut members = Vec::new();
        for &row in group.iter().take(MEMBERS) {
            let (set, at) = rows.places[row as usize];
            let input = inputs[set as usize];
            let found = input.row(at)?.map_err(|bad| *bad.error)?;
            members.push(context! {
                image => image(&found),
                set => input.name,
                number => at.index + 1,
                id => found.id,
                fate => dropped(row).unwrap_or("kept"),
                question => found.question().chars().take(SHOWN).collect::<String>(),
            });
        }
        sections.push(context! { rows => group.len(), members });
    }
    let templates = frame::templates(&[("dedup.html", include_str!("dedup.html"))])?;
    let page = context! { title => "omr data dedup", groups => groups.len(), sections };
    files::write(
        work.path("dedup", "html"),
        frame::render(&templates, "dedup.html", Scripts::default(), page)?.as_bytes(),
    )
}

/// Returns the row's first image as a small JPEG in base64, or `None` if the row has no image or the image cannot be
/// decoded.
fn image(row: &Row) -> Option<String> {
    let rgb = row.images.first()?.decode(&row.place).ok()?;
    let longest = rgb.width.max(rgb.height).max(SIDE);
    let side = |length: u32| (length * SIDE / longest).max(1);
    let jpeg = jpeg(&resize(&rgb, side(rgb.width), side(rgb.height), Backend::Pil), 80)?;
    Some(base64::engine::general_purpose::STANDARD.encode(&jpeg))
}
