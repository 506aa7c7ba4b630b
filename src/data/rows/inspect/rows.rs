//! Inspects the rows of a data set or of any other source.

use super::found::{Options, Statistics};
use super::inspection::Inspection;
use super::nearest;
use crate::rows::chunks::Chunks;
use crate::rows::read::{self, RowFile, RowPosition, RowsLeft};
use crate::rows::{Row, RowResult};
use omr_base::config::DatasetConfig;
use omr_base::error::Result;

/// Maximum number of rows that are measured together.
const CHUNK_ROWS: usize = 512;

/// Inspects every row of a data set: decodes each image and, if a model is given, encodes each row. Faulty rows are
/// counted. Returns an error only if a file cannot be read at all.
pub fn inspect(entry: &DatasetConfig, options: &Options) -> Result<Inspection> {
    let files = RowFile::open(std::slice::from_ref(entry))?;
    let (mut left, mut faulty) = (RowsLeft::default(), None);
    let found = of_rows(read::name(entry), options, |take| {
        files.iter().try_for_each(|file| {
            left.each(file, |at, row| {
                if row.is_err() {
                    faulty.get_or_insert((file, at));
                }
                take(row)
            })
        })
    })?;
    let columns = files.first().map_or(Ok(Vec::new()), RowFile::columns)?;
    let seen = found.seen.clone().with_columns(&files)?;
    let raw = faulty.map_or(Ok(None), |(file, at)| nearest::raw(file, at))?;
    let mapping = faulty.and_then(|_| nearest::mapping(&columns));
    Ok(Inspection { files: files.len(), columns, seen, raw, mapping, ..found })
}

/// Inspects the rows that `each` passes, from any source.
pub fn of_rows(
    name: String,
    options: &Options,
    each: impl FnOnce(&mut dyn FnMut(RowResult<Row>) -> Result<()>) -> Result<()>,
) -> Result<Inspection> {
    let mut found = Statistics::default();
    let mut chunks = Chunks::new(CHUNK_ROWS, |rows| found.take(rows, options));
    each(&mut |row| chunks.push(RowPosition::default(), row))?;
    chunks.finish()?;
    Ok(found.inspection(name, options))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::bad_row::Reason;

    const LOOK: Options = Options { model: None, first: 1, random: 3, seed: 1, shown: None };

    #[test]
    fn faults_are_counted_beside_what_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rows.jsonl");
        let good =
            r#"{"id": "a", "messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]}"#;
        let broken = r#"{"problem": "x", "images": [{"bytes": "AAAA"}]}"#;
        std::fs::write(&path, format!("{good}\n{{\n{good}\n{broken}\n")).unwrap();
        let found = inspect(&read::entry(&path), &LOOK).unwrap();
        assert_eq!((found.rows, found.faulty(), found.answered, found.shared_ids), (4, 2, 2, 1));
        assert_eq!(found.reasons, [(Reason::BrokenRow, 1), (Reason::BrokenImage, 1)].into());
        let text = found.text();
        assert!(text.contains("line 2") && text.contains("rows.jsonl row 4") && text.contains("user: hi"), "{text}");
        let columns: Vec<_> = found.columns.iter().map(|c| (c.name.as_str(), c.kind.as_str(), c.read_as)).collect();
        assert!(columns.contains(&("problem", "a string", Some("problem"))), "{columns:?}");
    }

    #[test]
    fn the_same_fault_of_several_rows_is_quoted_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rows.jsonl");
        std::fs::write(&path, "{\"x\": 1}\n".repeat(4)).unwrap();
        let found = inspect(&read::entry(&path), &LOOK).unwrap();
        assert_eq!((found.faulty(), found.faults.len()), (4, 1));
        assert!(found.text().contains("\n    and 3 more\n"), "{}", found.text());
    }

    #[test]
    fn the_rows_drawn_depend_on_the_seed_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rows.jsonl");
        let lines: Vec<String> = (0..2000).map(|i| format!("{{\"problem\": \"{i}\", \"answer\": {i}}}")).collect();
        std::fs::write(&path, lines.join("\n")).unwrap();
        let drawn = |seed| {
            let found = inspect(&read::entry(&path), &Options { seed, ..LOOK }).unwrap();
            found.drawn.into_iter().map(|drawn| drawn.row.question().parse::<usize>().unwrap()).collect::<Vec<_>>()
        };
        let first = drawn(1);
        assert!(first.len() == 3 && first.is_sorted() && first == drawn(1) && first != drawn(2), "{first:?}");
    }
}
