//! Splits training rows off for a validation (`val_size`). A hash of a row's images, or of its question, selects the
//! rows. Therefore the choice depends neither on the order of the rows nor on their ids, and all rows about one image
//! are on the same side.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::rows::{Dataset, ImageSource, Row, short};
use crate::text::Part;
use omr_base::error::{Error, Result};

/// Removes `size` of the rows of `data` and returns them: a share if `size` is below 1, else a number of rows. Takes a
/// few rows more if rows share an image. Errors if no row is left to train on.
pub fn split_off(data: &mut Dataset, size: f64) -> Result<Vec<Row>> {
    let subjects: Vec<u64> = data.each(|row| Some(subject(row)))?.into_iter().flatten().collect();
    let rows: HashMap<(u32, u32), u64> = subjects.iter().enumerate().map(|(i, &hash)| (data.row(i), hash)).collect();
    let wanted = if size < 1.0 { (size * rows.len() as f64).ceil() as usize } else { size as usize };
    let mut counts: BTreeMap<u64, usize> = BTreeMap::new();
    rows.values().for_each(|&hash| *counts.entry(hash).or_default() += 1);
    let (mut held, mut taken) = (HashSet::new(), 0);
    for (hash, count) in &counts {
        if taken >= wanted {
            break;
        }
        held.insert(*hash);
        taken += count;
    }
    if taken == rows.len() {
        let found =
            format!("{size}, which is {taken} of {} rows about {} images or questions", rows.len(), counts.len());
        return Err(Error::input("val_size", found, "a size that leaves rows to train on"));
    }
    data.remarks.push(format!(
        "val_size: {taken} of {} rows are split off (rows with the same images together) and not trained on",
        rows.len()
    ));
    let is_held: Vec<bool> = subjects.iter().map(|hash| held.contains(hash)).collect();
    data.split(&is_held)
}

/// Returns a hash of a row's images, or of the messages before the last answer if it has none. An image in a file is
/// identified by its name.
fn subject(row: &Row) -> u64 {
    let mut hasher = blake3::Hasher::new();
    let mut add = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
    };
    for image in &row.images {
        match image {
            ImageSource::Bytes { bytes, .. } => add(bytes),
            file => add(file.name().unwrap_or_default().as_bytes()),
        }
    }
    let asked = if row.images.is_empty() { row.prompt() } else { &[] };
    for message in asked {
        add(message.role.as_bytes());
        message.content.iter().filter_map(Part::text).for_each(|text| add(text.as_bytes()));
    }
    short(&hasher.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::Message;

    #[test]
    fn rows_about_one_image_or_question_share_their_hash_and_others_do_not() {
        let row = |system: &str, text: &str, answer: &str| Row {
            messages: [("system", system), ("user", text), ("assistant", answer)]
                .map(|(role, text)| Message::text(role, text.to_owned()))
                .into(),
            ..Row::default()
        };
        let of = |image: &[u8], row: Row| {
            subject(&Row { images: vec![ImageSource::Bytes { bytes: image.into(), path: None }], ..row })
        };
        let first = subject(&row("a", "b", "yes"));
        assert_eq!(first, subject(&Row { id: "other".to_owned(), ..row("a", "b", "no") }));
        assert!([row("a", "c", "yes"), row("ab", "", "yes")].iter().all(|other| subject(other) != first));
        assert_eq!(of(b"x", row("a", "b", "yes")), of(b"x", row("a", "c", "no")));
        assert_ne!(of(b"x", row("a", "b", "yes")), of(b"y", row("a", "b", "yes")));
    }
}
