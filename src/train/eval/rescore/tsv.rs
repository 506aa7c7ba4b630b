//! Parses tab-separated tables in the format of pandas. A field with a tab, a line break or a quote is enclosed in
//! quotes, and quotes inside it are doubled.

use csv::{Position, ReaderBuilder, Terminator};

/// Line that is read after the text. If a quote is never closed, it becomes part of the quoted field.
const END: &str = "\n\u{1}";

/// Returns the rows of a text, each with the number of its first line, from 1. The error is the number of the line where
/// a row begins with a quote that is never closed.
pub fn rows(text: &str) -> Result<Vec<(usize, Vec<String>)>, usize> {
    let text = text.to_owned() + END;
    let mut reader = ReaderBuilder::new();
    reader.delimiter(b'\t').terminator(Terminator::Any(b'\n')).has_headers(false).flexible(true);
    let mut rows = Vec::new();
    // A text has no invalid UTF-8, which would be the only error.
    for record in reader.from_reader(text.as_bytes()).into_records().flatten() {
        let (line, at) = record.position().map_or((0, 0), |at: &Position| (at.line(), at.byte()));
        let empty_lines = text.as_bytes()[at as usize..].iter().take_while(|&&byte| byte == b'\n').count();
        let mut row: Vec<String> = record.iter().map(str::to_owned).collect();
        row.iter_mut().next_back().into_iter().for_each(|last| last.truncate(last.trim_end_matches('\r').len()));
        rows.push((line as usize + empty_lines, row));
    }
    let unclosed = rows.pop().filter(|(_, row)| *row != [END.trim_start()]);
    unclosed.map_or(Ok(()), |(line, _)| Err(line))?;
    rows.retain(|(_, row)| row.iter().any(|field| !field.is_empty()));
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::rows;

    #[test]
    fn quotes_hold_tabs_lines_and_quotes() {
        let text = "\u{feff}index\tprediction\r\n1\t\"two\nlines\tand \"\"quotes\"\"\"\n\n2\tplain \"word\"";
        let found = rows(text).unwrap();
        let plain = |row: &[&str]| row.iter().map(|field| (*field).to_owned()).collect::<Vec<_>>();
        assert_eq!(found[0], (1, plain(&["index", "prediction"])));
        assert_eq!(found[1], (2, plain(&["1", "two\nlines\tand \"quotes\""])));
        assert_eq!(found[2], (5, plain(&["2", "plain \"word\""])));
        assert_eq!(rows("a\tb\n1\t\"open\n\n"), Err(2));
    }
}
