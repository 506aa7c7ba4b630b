//! Groups of rows that are the same, side by side, in one HTML page without network.

use std::fmt::Write as _;
use std::io::Cursor;

use base64::Engine as _;

use crate::data::Row;
use crate::error::Result;
use crate::files;
use crate::image::{Rgb, resize};
use crate::page::{escape, frame};
use crate::pipeline::dedup::hashes::Rows;
use crate::pipeline::stage::{Input, Work};

/// What this page has beside the style of all.
const STYLE: &str = ".side { display: flex; flex-wrap: wrap; gap: 18px; margin-top: 12px; } .side figure { width: 230px; \
    font-size: 0.86rem; overflow-wrap: anywhere; } .side img { max-width: 200px; border: 1px solid var(--line); }";
/// Groups that are shown, and rows of each.
const GROUPS: usize = 100;
const MEMBERS: usize = 6;
/// Longest side of a picture on the page, in pixels.
const SIDE: u32 = 200;
/// Characters of a question that are shown.
const SHOWN: usize = 400;

/// Writes `dedup.html`: of `groups` a part, from first to last; `dropped` tells what becomes of a row.
pub fn write(
    work: &Work,
    inputs: &[&Input],
    rows: &Rows,
    groups: &[Vec<u32>],
    dropped: &dyn Fn(u32) -> Option<&'static str>,
) -> Result<()> {
    let shown = groups.len().min(GROUPS);
    let mut body = format!(
        "<header><p class=\"brand\">omr data dedup</p><h1>{} groups of rows that are the same</h1>\
         <p class=\"remark\">{shown} of them, evenly chosen.</p></header>\n",
        groups.len()
    );
    for k in 0..shown {
        let group = &groups[k * groups.len() / shown];
        let _ = write!(body, "<section><h3>{} rows</h3><div class=\"side\">", group.len());
        for &row in group.iter().take(MEMBERS) {
            let (set, at) = rows.places[row as usize];
            let input = inputs[set as usize];
            let found = input.row(at)?.map_err(|bad| *bad.error)?;
            let fate = dropped(row).unwrap_or("kept");
            let _ = write!(
                body,
                "<figure>{}<figcaption><b>{}</b> row {}, id {}: {fate}<p>{}</p></figcaption></figure>",
                picture(&found),
                escape(&input.name),
                at.index + 1,
                escape(&found.id),
                escape(&found.question().chars().take(SHOWN).collect::<String>()),
            );
        }
        body.push_str("</div></section>\n");
    }
    let page = frame("omr data dedup", STYLE, &body, "");
    files::write(work.path("dedup", "html"), page.as_bytes())
}

/// The row's first picture, small; nothing where it has none, or none that can be shown.
fn picture(row: &Row) -> String {
    let Some(Ok(rgb)) = row.images.first().map(|image| image.decode(&row.place)) else { return String::new() };
    let longest = rgb.width.max(rgb.height).max(SIDE);
    let side = |length: u32| (length * SIDE / longest).max(1);
    let Rgb { width, height, data } = resize(&rgb, side(rgb.width), side(rgb.height));
    let mut jpeg = Vec::new();
    let written = image::codecs::jpeg::JpegEncoder::new_with_quality(Cursor::new(&mut jpeg), 80).encode(
        &data,
        width,
        height,
        image::ExtendedColorType::Rgb8,
    );
    match written {
        Ok(()) => {
            let data = base64::engine::general_purpose::STANDARD.encode(&jpeg);
            format!("<img alt=\"\" src=\"data:image/jpeg;base64,{data}\">")
        }
        Err(_) => String::new(),
    }
}
